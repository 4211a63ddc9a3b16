"""Heads of detectors: what turns the last layers' numbers into boxes and scores.

Eight bits are enough for layers, whose errors average out, and too few for what is computed with
their results: a coordinate in pixels of a picture 640 wide has steps of 2.5 pixels then, and what
joins it with scores in 0…1 takes all of these to zero. It is a small part of the work, best left in
float, and recognized by what is computed, whatever the nodes are called:

- a mean over the bins of a Softmax (each side of a box of YOLOv8 and its followers);
- arithmetic with a grid of places: anchors, priors, centers of cells;
- boxes next to scores, in one tensor, or as the results of layers of their own;
- what chooses boxes or points into a picture.

Each of these is followed back to the layers that it comes from, and on to the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import (
    QuantizedRule,
    ScaleRule,
    deciding_inputs,
    has_weight,
    is_weighted,
    operator_of,
    weight_layout,
)
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal

MEAN = Refusal("head: it makes boxes of means over bins")
GRID = Refusal("head: it makes boxes on a grid of places")
MEETING = Refusal("head: scores meet other values in one tensor, whose range is not theirs")
BOXES = Refusal("head: it makes coordinates of boxes")
DECIDES = Refusal("head: it decides which boxes are taken, or where a picture is read")

COORDINATES = (2, 4)
"""Numbers that say where something is: a point, or a box."""

MOST_MEANS = 4
"""Means that a layer takes over the bins of one Softmax."""

FEWEST_PLACES = 16
"""Of a grid."""

UNIT = (0.0, 1.0)
"""Bounds of scores."""


def decode_of(graph: Graph) -> dict[str, Refusal]:
    """The nodes of a detector's head behind its last layers, and why each is left in float.

    Layers with a weight are not among them, but for those that take means of bins.
    """
    means = {node.index for node in graph.nodes if _takes_means(graph, node)}

    def is_free(node: Node) -> bool:
        return node.index in means or not is_weighted(node)

    ends = _ends(graph, is_free)
    found: dict[int, Refusal] = {}
    for reason, seeds in (
        (MEAN, [node for node in graph.nodes if node.index in means]),
        (GRID, [node for node in ends if _has_grid(graph, node)]),
        (MEETING, [node for node in ends if _joins_scores(graph, node)]),
        (BOXES, _behind_box_layers(graph, ends)),
    ):
        for node in (*_back(graph, seeds, is_free), *_onward(graph, seeds, ends)):
            found.setdefault(node.index, reason)
    for node in _back(graph, _deciding(graph), is_free):
        found.setdefault(node.index, DECIDES)
    nodes = (graph.nodes[index] for index in sorted(found))
    return {node.name: found[node.index] for node in nodes if not _is_fused(graph, node)}


def last_outputs(graph: Graph, decode: Collection[str]) -> frozenset[str]:
    """What the last layers write: tensors of layers with a weight that the head reads.

    Detections are the rare largest values among them, and in other pictures there are larger ones.
    """
    nodes = (graph.by_name[name] for name in decode if not is_weighted(graph.by_name[name]))
    read = (name for node in nodes for name in node.inputs)
    return frozenset(
        name for name in read
        if (maker := graph.producers.get(name)) is not None
        and (has_weight(graph, maker) or _is_fused(graph, maker))
        and maker.name not in decode
    )  # fmt: skip


# --- what is recognized ----------------------------------------------------------------------


def _takes_means(graph: Graph, node: Node) -> bool:
    """Whether a layer multiplies what a Softmax gives with a few rows of numbers."""
    if not has_weight(graph, node):
        return False
    layout = weight_layout(graph, node)
    if not isinstance(layout, WeightLayout) or layout.outputs > MOST_MEANS:
        return False
    maker = _maker(graph, node.input(layout.data))
    row = None if maker is None else operator_of(maker)
    return row is not None and row.fills_bounds and row.bounds == UNIT


def _has_grid(graph: Graph, node: Node) -> bool:
    """Whether it adds, or multiplies by, a constant that differs from place to place."""
    row = operator_of(node)
    if row is None or row.scale not in {ScaleRule.TIE, ScaleRule.PRODUCT}:
        return False
    operands = row.data_of(node)
    if all(graph.is_constant(name) for name in operands) or not graph.is_float(node.output):
        return False
    return any(graph.is_constant(name) and _is_grid(graph, name) for name in operands)


def _is_grid(graph: Graph, name: str) -> bool:
    """Whether a constant holds coordinates of many places: [1, 2, A], [A, 4], [1, 3, H, W, 2]."""
    shape = graph.shape(name) or ()
    sizes = [size for size in shape if isinstance(size, int) and size != 1]
    return len(sizes) > 1 and any(
        axis in COORDINATES and math.prod(sizes) >= FEWEST_PLACES * axis
        for axis in (sizes[0], sizes[-1])
    )


def _joins_scores(graph: Graph, node: Node) -> bool:
    """Whether it joins tensors of which some are bound to 0…1, as scores are, and others not."""
    row = operator_of(node)
    if row is None or row.quantized is not QuantizedRule.SHARED or row.data_inputs is not None:
        return False
    parts = [name for name in row.data_of(node) if not graph.is_constant(name)]
    return len({_is_bounded(graph, name) for name in parts}) == 2


def _is_bounded(graph: Graph, name: str) -> bool:
    maker = _maker(graph, name)
    row = None if maker is None else operator_of(maker)
    return row is not None and row.bounds == UNIT


def _behind_box_layers(graph: Graph, ends: tuple[Node, ...]) -> list[Node]:
    """What reads the last layers with four results, beside others that give something else."""
    inside = {node.index for node in ends}
    last = {}
    for node in graph.nodes:
        if not has_weight(graph, node):
            continue
        reads = [use.node for use in graph.consumers(node.output)]
        if node.output in graph.outputs or any(each.index in inside for each in reads):
            layout = weight_layout(graph, node)
            if isinstance(layout, WeightLayout):
                last[node.index] = layout.outputs
    boxes = [index for index, outputs in last.items() if outputs == COORDINATES[-1]]
    if not boxes or len(boxes) == len(last):
        return []
    return [use.node for index in boxes for use in graph.consumers(graph.nodes[index].output)
            if use.node.index in inside]  # fmt: skip


def _deciding(graph: Graph) -> list[Node]:
    """What computes the values that decide."""
    makers = (graph.producers.get(name) for node in graph.nodes for name in deciding_inputs(node))
    return [node for node in makers if node is not None]


# --- ways through the graph ------------------------------------------------------------------


def _maker(graph: Graph, name: str) -> Node | None:
    """What computes the values of a tensor, before they are moved or scaled; None for an input."""
    node = graph.producers.get(name)
    while node is not None and (row := operator_of(node)) is not None:
        data = [each for each in row.data_of(node) if not graph.is_constant(each)]
        scaled = row.scale is ScaleRule.PRODUCT and len(row.data_of(node)) > len(data)
        if len(data) != 1 or not (scaled or row.quantized is QuantizedRule.SHARED):
            break
        node = graph.producers.get(data[0])
    return node


def _ends(graph: Graph, is_free: Callable[[Node], bool]) -> tuple[Node, ...]:
    """The nodes from which an output is reached without a layer with a weight on the way."""
    found: dict[int, Node] = {}
    for node in reversed(graph.nodes):
        out = any(graph.is_exposed(name) for name in node.outputs) or any(
            use.node.index in found for name in node.outputs for use in graph.consumers(name)
        )
        if out and is_free(node):
            found[node.index] = node
    return tuple(found.values())


def _back(graph: Graph, seeds: Iterable[Node], is_free: Callable[[Node], bool]) -> Iterator[Node]:
    """The nodes, and those before them as far as the layers that their values come from."""
    seen: set[int] = set()
    pending = list(seeds)
    while pending:
        node = pending.pop()
        if node.index in seen or not is_free(node) or _is_trunk(node):
            continue
        seen.add(node.index)
        yield node
        makers = (graph.producers.get(name) for name in node.inputs)
        pending += [maker for maker in makers if maker is not None]


def _is_trunk(node: Node) -> bool:
    """Whether it is what networks have between layers, not behind the last: pools, norms, Relu."""
    row = operator_of(node)
    if row is None:
        return False
    return row.scale is ScaleRule.AFFINE or (row.averages and not row.copies)


def _is_fused(graph: Graph, node: Node) -> bool:
    """Whether it is an activation that a layer's kernel runs."""
    row, host = operator_of(node), graph.producers.get(node.input(0))
    return row is not None and row.fuses and host is not None and has_weight(graph, host)


def _onward(graph: Graph, seeds: Iterable[Node], ends: tuple[Node, ...]) -> Iterator[Node]:
    """What is computed from the nodes on the way to the outputs."""
    inside = {node.index for node in ends}
    seen: set[int] = set()
    pending = list(seeds)
    while pending:
        node = pending.pop()
        if node.index in seen or node.index not in inside:
            continue
        seen.add(node.index)
        yield node
        pending += [use.node for name in node.outputs for use in graph.consumers(name)]
