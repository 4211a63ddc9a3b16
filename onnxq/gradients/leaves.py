"""What the errors of a model's outputs are measured against: the variance of their parts.

Boxes in pixels and scores near 0 may lie in one output: in the units of both the scores would not
count. So what a Concat puts together counts by its parts. Along the channels each is of another
kind; along positions, as those of the strides of a detector, the parts are of the same kind, and
one that happens to see nothing must not count for more than the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from onnxq.calibration import bins
from onnxq.calibration.statistics import TensorStatistics
from onnxq.model.backward import Backward, backward_of
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import operator_of

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


def find_leaves(graph: Graph, tensors: Mapping[str, TensorStatistics]) -> tuple[Leaf, ...]:
    """The parts of all float outputs that vary.

    Args:
        tensors: what was calibrated; of what was not, nothing is known.
    """
    groups: dict[tuple[str, ...], None] = {}
    for name in graph.outputs:
        if graph.is_float(name):
            groups |= dict.fromkeys(_groups(graph, tensors, name))
    kinds = {group: _kind(graph, group[0]) for group in groups}
    variances = {group: _variance([tensors[n] for n in group if n in tensors]) for group in groups}
    largest = {
        kind: max(variances[group] for group in groups if kinds[group] == kind)
        for kind in kinds.values()
    }
    found: list[Leaf] = []
    seen: set[str] = set()
    for group, variance in variances.items():
        bounded = max(variance, LEAST * largest[kinds[group]])
        names = tuple(name for name in group if name not in seen)
        if names and bounded > 0:
            found.append(Leaf(names, math.sqrt(bounded)))
        seen.update(names)
    return tuple(found)


def _groups(
    graph: Graph, tensors: Mapping[str, TensorStatistics], name: str
) -> list[tuple[str, ...]]:
    """The parts that a tensor is put together from, those of one kind in one group."""
    node = _maker(graph, name)
    if node is None or backward_of(node) is not Backward.CONCAT:
        return [(name,)]
    parts = [each for each in node.inputs if graph.constant(each) is None]
    inner = [_groups(graph, tensors, each) for each in parts]
    if _joins_channels(graph, tensors, node) or len(set(map(len, inner))) > 1:
        return [group for groups in inner for group in groups]
    return [
        tuple(name for group in same for name in group)
        for same in zip_longest(*inner, fillvalue=())
    ]


def _maker(graph: Graph, name: str) -> Node | None:
    """The node that computes a tensor's elements, which others may have rearranged since."""
    node = graph.producers.get(name)
    while node is not None and (row := operator_of(node)) is not None and row.keeps_elements:
        node = graph.producers.get(node.input(0))
    return node


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
    node = _maker(graph, name)
    while node is not None and len(found) < KIND:
        found.append(node.op_type)
        row = operator_of(node)
        if row is None or row.layout is not None:
            break
        data = [each for each in row.data_of(node) if graph.constant(each) is None]
        node = _maker(graph, data[0]) if data else None
    return tuple(found)


def _variance(parts: Sequence[TensorStatistics]) -> float:
    """Of all values of some tensors together."""
    moments = np.zeros(3)
    for statistics in parts:
        edges = bins.edges(statistics.top)
        center = (edges[:-1] + edges[1:]) / 2
        values = np.concatenate([[0.0], center, -center])
        row = statistics.pooled.astype(np.float64) * statistics.step
        moments += [row.sum(), row @ values, row @ np.square(values)]
    if not moments[0]:
        return 0.0
    _, mean, square = moments / moments[0]
    # Rounding to the centers of bins is no variance.
    variance = square - mean * mean
    return float(variance) if variance > square * FINEST else 0.0


FINEST = (0.25 / bins.BINS_PER_OCTAVE) ** 2
