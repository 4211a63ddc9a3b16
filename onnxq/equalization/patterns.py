"""Scale patterns: which scale class every element of a tensor belongs to.

A pattern is an int64 array of class ids with the tensor's rank, in which an axis along which the
ids do not change has size 1 (so it broadcasts to the tensor). Axes of unknown size always have
size 1: scales never depend on the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxq.model.graph import Graph, Node

Pattern = NDArray[np.int64]

PROBE_SIZE = 2
"""Size given to axes of unknown size when an operator is run on ids."""

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
) -> list[Pattern] | str:
    """Run a data-moving node on the ids of its inputs; or say why its effect is not known.

    Args:
        patterns: for each input of the node its pattern, None for parameters.
    """
    feeds: dict[str, NDArray[Any]] = {}
    for name, pattern in zip(node.inputs, patterns, strict=True):
        if not name:
            continue
        if pattern is None:
            value = _parameter(graph, node, name)
            if value is None:
                return "its parameters are computed at run time"
            feeds[name] = value
            continue
        shape = graph.shape(name)
        if shape is None:
            return "its shape is unknown"
        sizes = [size if isinstance(size, int) else PROBE_SIZE for size in shape]
        if np.prod(sizes) > MOVE_LIMIT:
            return "its tensor is too large to follow"
        feeds[name] = np.ascontiguousarray(np.broadcast_to(pattern, sizes))
    results = _run_node(graph, node, feeds)
    if results is None:
        return "its effect depends on sizes known at run time only"
    outputs = []
    for name, result in zip(node.outputs, results, strict=False):
        pattern = compress(result)
        shape = graph.shape(name)
        if shape is None or len(shape) != result.ndim:
            return "its output shape is unknown"
        for axis, size in enumerate(shape):
            if not isinstance(size, int) and pattern.shape[axis] > 1:
                return f"it mixes channels into axis {axis}, whose size is known at run time only"
        outputs.append(pattern)
    return outputs


def _parameter(graph: Graph, node: Node, name: str) -> NDArray[Any] | None:
    """A shape, index or axes input; a run-time shape is read off the inferred output shape."""
    value = graph.constant(name)
    if value is not None:
        return value
    shape = graph.shape(node.output)
    if shape is None or node.op_type != "Reshape":
        return None
    return np.array([s if isinstance(s, int) else PROBE_SIZE for s in shape], np.int64)


def _run_node(
    graph: Graph, node: Node, feeds: dict[str, NDArray[Any]]
) -> list[NDArray[np.int64]] | None:
    from onnx.reference import ReferenceEvaluator

    proto = graph.model.proto.graph.node[node.index]
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    body = onnx.helper.make_graph([proto], "move", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", graph.model.opset)]
    model = onnx.helper.make_model(body, opset_imports=opsets)
    try:
        results: list[NDArray[np.int64]] = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # noqa: BLE001 - a shape that does not fit the probe size raises anything
        return None
    return results
