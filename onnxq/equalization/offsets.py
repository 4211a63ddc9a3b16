"""How far an offset of a layer's output reaches: what carries it, absorbs it, or stops it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import (
    OffsetRule,
    ScaleRule,
    clip_bounds,
    offset_rule,
    operator_of,
    weight_layout,
)
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """A weighted node, the activations fused behind it, and where the result goes.

    `reach` maps each tensor the offset arrives at to how many times it is added there; `reads`
    lists the (node, tensor) that absorb it, in order.
    """

    node: Node
    limits: tuple[Node, ...]
    tensor: str
    reach: Mapping[str, int]
    reads: tuple[tuple[Node, str], ...]


def source_of(graph: Graph, node: Node) -> Source | Refusal | None:
    """The node as a giver of offsets, or why it is none; None for nodes without a weight."""
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return None
    bias = free_bias(graph, layout)
    if isinstance(bias, Refusal):
        return bias
    name, limits = node.output, []
    while True:
        uses = graph.consumers(name)
        if graph.is_exposed(name) or not uses:
            return Refusal("its output is read by a caller or a subgraph")
        if len(uses) > 1 or offset_rule(uses[0].node) is not OffsetRule.LIMITS:
            break
        limit = uses[0].node
        if not _is_limit(graph, limit):
            break
        limits.append(limit)
        name = limit.output
    found = _reach(graph, name, layout, uniform=bool(limits))
    if isinstance(found, Refusal):
        return found
    reach, reads = found
    return Source(node, tuple(limits), name, reach, reads)


def free_bias(graph: Graph, layout: WeightLayout) -> Floats | Refusal:
    """The bias as (outputs,), where it can take an offset."""
    bias = graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
    vector = None if bias is None or not layout.takes_bias else layout.bias_vector(bias)
    if vector is None:
        return Refusal("its bias cannot take an offset")
    return vector.astype(np.float64)


def _is_limit(graph: Graph, node: Node) -> bool:
    """A Relu, a Clip with constant bounds, a Min or Max with one constant."""
    row = operator_of(node)
    if row is None or row.scale is ScaleRule.CLIP:
        return clip_bounds(graph, node) is not None
    return len(node.inputs) == 1 or [
        graph.constant(name) is not None for name in node.inputs[1:]
    ] == [True]


def _reach(
    graph: Graph, name: str, source: WeightLayout, *, uniform: bool
) -> tuple[dict[str, int], tuple[tuple[Node, str], ...]] | Refusal:
    """Follow an offset to all that absorb it; or say what stops it."""
    times = {name: 1}
    reads: list[tuple[Node, str]] = []
    for node in graph.nodes:
        received = [times.get(tensor, 0) for tensor in node.inputs]
        if not any(received):
            continue
        refusal = _obstacle(graph, node, received, source, uniform=uniform)
        if refusal is not None:
            return Refusal(f"its reader {node.name!r} ({node.op_type}) {refusal}")
        if offset_rule(node) is OffsetRule.ABSORBS:
            reads.append((node, node.inputs[0]))
        else:
            times.update(dict.fromkeys(node.results, sum(received)))
    exposed = [tensor for tensor in times if graph.is_exposed(tensor)]
    if exposed:
        return Refusal(f"{exposed[0]!r} is read by a caller or a subgraph")
    if not reads:
        return Refusal("nothing reads it")
    return times, tuple(reads)


def _obstacle(
    graph: Graph, node: Node, received: Sequence[int], source: WeightLayout, *, uniform: bool
) -> Refusal | None:
    """Why an offset cannot pass or enter a node; None if it can."""
    rule = offset_rule(node)
    if rule is OffsetRule.ABSORBS:
        layout = weight_layout(graph, node)
        if isinstance(layout, Refusal) or any(received[1:]):
            return Refusal("cannot absorb an offset")
        if isinstance(free_bias(graph, layout), Refusal):
            return Refusal("cannot absorb an offset")
        fits = uniform or layout.inputs == source.outputs
        return None if fits else Refusal("has other channels")
    if rule is OffsetRule.STOPS and (row := operator_of(node)) and row.offset is not rule:
        return Refusal("pads its input with zeros")
    if rule is not OffsetRule.ADDS and (rule is not OffsetRule.KEEPS or any(received[1:])):
        return Refusal("does not carry an offset")
    ranks = {graph.rank(tensor) for tensor in (*node.inputs[:1], *node.results)}
    moves = len(ranks) > 1 or len(node.results) > 1
    return Refusal("moves the channels") if moves and not uniform else None
