"""Scale patterns: which scale class every element of a tensor belongs to.

A pattern is an int64 array of class ids with the tensor's rank, in which an axis along which the
ids do not change has size 1 (so it broadcasts to the tensor). Axes of unknown size always have
size 1: scales never depend on the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.shapes import run_nodes, value_at
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from onnxq.model.graph import Graph, Node

Pattern = NDArray[np.int64]

PROBE_SIZES = (2, 3)
"""Sizes given to axes of unknown size when an operator is run on ids: what comes out the same for
both holds for every size."""

MOVE_LIMIT = 1 << 22
"""Elements of a tensor above which data movement is not followed."""


def along_axis(ids: NDArray[np.int64], rank: int, axis: int) -> Pattern:
    """The pattern of `rank` whose ids vary along one axis only."""
    shape = [1] * rank
    shape[axis] = len(ids)
    return ids.reshape(shape)


def compress(ids: NDArray[np.int64]) -> Pattern:
    """Reduce every axis along which nothing changes to size 1."""
    for axis in range(ids.ndim):
        first = ids.take([0], axis=axis)
        if ids.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, ids.shape), ids):
            ids = first
    return ids


def follow_move(
    graph: Graph, node: Node, patterns: Sequence[Pattern | None]
) -> list[Pattern] | Refusal:
    """Run a data-moving node on the ids of its inputs; or say why its effect is not known.

    Args:
        patterns: for each input of the node its pattern, None for parameters.
    """
    first, second = (_follow_at(graph, node, patterns, size) for size in PROBE_SIZES)
    if isinstance(first, Refusal):
        return first
    if isinstance(second, Refusal):
        return second
    if not all(map(np.array_equal, first, second)):
        return Refusal("it mixes channels into an axis whose size is known at run time only")
    ranks = [graph.rank(name) for name in node.results]
    if ranks != [pattern.ndim for pattern in first]:
        return Refusal("its output has an unknown rank")
    return first


def _follow_at(
    graph: Graph, node: Node, patterns: Sequence[Pattern | None], probe: int
) -> list[Pattern] | Refusal:
    """The outputs' patterns where every unknown size is `probe`."""
    feeds: dict[str, NDArray[Any]] = {}
    for name, pattern in zip(node.inputs, patterns, strict=True):
        if not name:
            continue
        if pattern is None:
            value = value_at(graph, name, lambda read: _sizes(graph, read, probe))
            if value is None:
                return Refusal("its parameters are computed at run time")
            feeds[name] = value
            continue
        sizes = _sizes(graph, name, probe)
        if sizes is None:
            return Refusal("its shape is unknown")
        # The pattern may know a size that shape inference does not.
        sizes = [
            known if known > 1 else size for known, size in zip(pattern.shape, sizes, strict=True)
        ]
        if math.prod(sizes) > MOVE_LIMIT:
            return Refusal("its tensor is too large to follow")
        feeds[name] = np.ascontiguousarray(np.broadcast_to(pattern, sizes))
    results = run_nodes(graph, [node], feeds, node.results)
    if results is None or any(result.size == 0 for result in results):
        return Refusal("its effect depends on sizes known at run time only")
    return [compress(result) for result in results]


def _sizes(graph: Graph, name: str, probe: int) -> list[int] | None:
    shape = graph.shape(name)
    if shape is None:
        return None
    return [size if isinstance(size, int) else probe for size in shape]
