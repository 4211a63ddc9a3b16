"""What the errors of a model's outputs are measured against: the variance of their parts.

Boxes in pixels and scores near 0 may lie in one output: in the units of both the scores would not
count. So what a Concat puts together counts by its parts. Along the channels each is of another
kind; along positions, as those of the strides of a detector, the parts are of the same kind, and
one that happens to see nothing must not count for more than the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxq.calibration import bins
from onnxq.calibration.statistics import TensorStatistics
from onnxq.closeness import is_float_type
from onnxq.model.backward import Backward, backward_of
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import CAST, operator_of, rearranged

LEAST = 0.01
"""Least variance of a leaf, as a share of the largest of its kind."""

KIND = 8
"""Operators in a row that tell what kind a leaf is."""


@dataclass(frozen=True)
class Leaf:
    """Tensors that are parts of outputs and have one variance.

    Attributes:
        tensors: the parts.
        deviation: standard deviation of their values, > 0.
    """

    tensors: tuple[str, ...]
    deviation: float


@dataclass(frozen=True)
class Leaves:
    """The parts of all float outputs that vary.

    Attributes:
        parts: those of one variance together.
        joined: tensors that only put parts together and rearrange them, the outputs among them:
            an error there is one of a part.
    """

    parts: tuple[Leaf, ...]
    joined: frozenset[str]

    @property
    def tensors(self) -> list[str]:
        return [name for leaf in self.parts for name in leaf.tensors]


def find_leaves(graph: Graph, tensors: Mapping[str, TensorStatistics]) -> Leaves:
    """The leaves of a model.

    Args:
        tensors: what was calibrated; of what was not, nothing is known.
    """
    joined: set[str] = set()
    groups: dict[Group, None] = {}
    for output in graph.outputs:
        if name := _as_float(graph, output):
            readers = int(name != output)
            groups |= dict.fromkeys(_groups(graph, tensors, name, joined, readers=readers))
    for name in _compared(graph):
        readers = len(graph.consumers(name))
        groups |= dict.fromkeys(_groups(graph, tensors, name, joined, readers=readers))
    kinds = {group: _kind(graph, group[0]) for group in groups}
    variances = {group: _variance([tensors[n] for n in group if n in tensors]) for group in groups}
    largest: dict[tuple[str, ...], float] = {}
    for group, variance in variances.items():
        largest[kinds[group]] = max(variance, largest.get(kinds[group], 0.0))
    found: list[Leaf] = []
    seen: set[str] = set()
    for group, variance in variances.items():
        bounded = max(variance, LEAST * largest[kinds[group]])
        names = tuple(name for name in group if name not in seen)
        if names and bounded > 0:
            found.append(Leaf(names, math.sqrt(bounded)))
        seen.update(names)
    return Leaves(tuple(found), frozenset(joined))


def _compared(graph: Graph) -> list[str]:
    """What is compared to select elements: scores before an ArgMax, boxes before they are rid of
    their duplicates. Which elements come out tells little of them, so they count by themselves.
    """
    nodes = [node for node in graph.nodes if backward_of(node) is Backward.SELECT]
    names = [
        name for node in nodes if any(map(graph.is_read, node.outputs)) for name in node.inputs
    ]
    return [n for n in dict.fromkeys(names) if graph.is_float(n) and graph.constant(n) is None]


def _as_float(graph: Graph, output: str) -> str:
    """The output, or what it was before it was cast to floats of another width; "" for others."""
    if graph.is_float(output):
        return output
    node, kind = graph.producers.get(output), graph.elem_type(output)
    floats = kind and is_float_type(onnx.helper.tensor_dtype_to_np_dtype(kind))
    casts = floats and node is not None and node.op_type == CAST and graph.is_float(node.input(0))
    return node.input(0) if node is not None and casts else ""


Group = tuple[str, ...]


def _groups(
    graph: Graph,
    tensors: Mapping[str, TensorStatistics],
    name: str,
    joined: set[str],
    *,
    readers: int,
) -> list[Group]:
    """The parts that a tensor is put together from, those of one kind in one group.

    Args:
        joined: takes what lies between the parts and the tensor, itself among it.
        readers: how many nodes read the tensor if only the output that it belongs to depends on it.
    """
    path, node = rearranged(graph, name)
    alone = all(len(graph.consumers(n)) == (readers if n == name else 1) for n in path)
    if node is None or backward_of(node) is not Backward.CONCAT or not alone:
        return [(name,)]
    joined.update(path)
    parts = [each for each in node.inputs if graph.constant(each) is None]
    inner = [_groups(graph, tensors, each, joined, readers=1) for each in parts]
    if _joins_channels(graph, tensors, node) or len(set(map(len, inner))) > 1:
        return [group for groups in inner for group in groups]
    return [tuple(itertools.chain(*groups)) for groups in zip(*inner, strict=True)]


def _joins_channels(graph: Graph, tensors: Mapping[str, TensorStatistics], node: Node) -> bool:
    """Whether a Concat lies along the channels of what it puts together."""
    rank = graph.rank(node.output)
    axes = [tensors[n].axis for n in (node.output, *node.inputs) if n in tensors]
    known = [axis for axis in axes if axis is not None]
    # Of channels that nothing tells they are along the first axis behind that of the samples.
    axis = known[0] if known else 1
    return rank is None or int(node.attributes["axis"]) % rank == axis


def _kind(graph: Graph, name: str) -> tuple[str, ...]:
    """What computes a tensor, from its end on up to the last weighted operator."""
    found: list[str] = []
    _, node = rearranged(graph, name)
    while node is not None and len(found) < KIND:
        found.append(node.op_type)
        row = operator_of(node)
        if row is None or row.layout is not None:
            break
        data = [each for each in row.data_of(node) if graph.constant(each) is None]
        _, node = rearranged(graph, data[0]) if data else ([], None)
    return tuple(found)


def _variance(parts: Sequence[TensorStatistics]) -> float:
    """Of all values of some tensors together."""
    moments = np.zeros(3)
    for statistics in parts:
        values = bins.column_values(statistics.top)
        row = statistics.pooled.astype(np.float64) * statistics.step
        moments += [row.sum(), row @ values, row @ np.square(values)]
    if not moments[0]:
        return 0.0
    _, mean, square = moments / moments[0]
    # Rounding to the centers of bins is no variance.
    variance = square - mean * mean
    return float(variance) if variance > square * FINEST else 0.0


FINEST = (0.25 / bins.BINS_PER_OCTAVE) ** 2
