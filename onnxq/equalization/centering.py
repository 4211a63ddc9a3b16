"""Bias absorption: center activations, so that symmetric formats use both their halves.

With y = f(x + b) and every reader linear, y − c is f moved down by c, and the readers' biases take
W·c: the network computes the same up to float rounding, and what lay in [0, R] lies in [−R/2, R/2].
High-bias absorption (Nagel et al., 2019, §4.1.3) moves only what a ReLU lets through unclipped;
here the bounds of the ReLU or Clip move along (max(x, 0) − c = max(x − c, −c)), so the shift is
exact for every input. A reader that pads with zeros reads a border that does not move: it stops
the shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.derived import Derived
from onnxq.calibration.ranges import Distribution, Range, distribution, estimate, noise
from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.formats.scheme import REFERENCE
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import (
    OffsetRule,
    ScaleRule,
    clip_bounds,
    offset_rule,
    operator_of,
    weight_layout,
)
from onnxq.model.rewrite import constant, edit, variable
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal, granted

Floats = NDArray[np.float64]

REFERENCE_LEVELS = REFERENCE.static.levels if REFERENCE.static else 0
LEAST_GAIN = 0.2
"""dB of rounding noise that a shift must save on its tensor."""

LARGEST_CHANGE = -80.0
"""dB of the float outputs by which float rounding alone may change them."""


@dataclass(frozen=True)
class Shift:
    """One activation that was centered.

    Attributes:
        producer: weighted node whose bias gives the offset.
        limits: activations behind it whose bounds move along.
        tensor: the activation.
        offset: (channels,), or (1,) for one offset for all, subtracted from `tensor`.
        readers: weighted nodes whose biases take it.
        gain: how far the rounding noise of the tensor falls, dB.
    """

    producer: str
    limits: tuple[str, ...]
    tensor: str
    offset: Floats
    readers: tuple[str, ...]
    gain: float


@dataclass(frozen=True)
class Centering:
    """The plan.

    Attributes:
        shifts: what is centered.
        offsets: tensor → what is subtracted from it, (channels,) or (1,).
        ranges: tensor → the range that fits its offset.
        refused: weighted node → why its output is not centered.
    """

    shifts: tuple[Shift, ...]
    offsets: Mapping[str, Floats]
    ranges: Mapping[str, Range]
    refused: Mapping[str, str]

    def broadcastable(self, graph: Graph) -> dict[str, Floats]:
        """The offsets shaped to broadcast to their tensors; channels lie on axis 1."""
        return {
            name: values.reshape(1, -1, *[1] * ((graph.rank(name) or 2) - 2))
            if values.size > 1
            else values
            for name, values in self.offsets.items()
        }


@dataclass(frozen=True)
class _Source:
    """A weighted node, the activations fused behind it, and where the result goes.

    `reach` maps each tensor the offset arrives at to how many times it is added there; `reads`
    lists the (node, tensor) that absorb it, in order.
    """

    node: Node
    limits: tuple[Node, ...]
    tensor: str
    reach: Mapping[str, int]
    reads: tuple[tuple[Node, str], ...]


def plan_centering(
    graph: Graph, calibration: Calibration, gains: Mapping[str, Floats], ranges: str, levels: int
) -> Centering:
    """Choose offsets.

    Args:
        graph: of the model, scaled or not.
        calibration: of exactly that model.
        gains: tensor → how much an error in each channel matters at its readers (channels,).
        ranges: the estimator that will choose the ranges.
        levels: quantization levels of activations.
    """
    offsets: dict[str, Floats] = {}
    fixed: dict[str, Range] = {}
    shifts: list[Shift] = []
    refused: dict[str, str] = {}
    for node in graph.nodes:
        source = _source(graph, node)
        if source is None:
            continue
        if isinstance(source, Refusal):
            refused[node.name] = source.reason
            continue
        # The first tensor that is read decides; those behind it have offsets of their own to give.
        target = source.reads[0][1]
        statistics = calibration.tensors.get(target)
        if statistics is None:
            refused[node.name] = f"{target!r} was not calibrated"
            continue
        given = offsets.get(target, np.zeros(1))
        moved = statistics.shifted(given) if given.any() else statistics
        choose = _center_all if source.limits else _center_channels
        choice = choose(moved, gains.get(target), ranges, levels)
        if choice.saved < LEAST_GAIN:
            refused[node.name] = f"centering {target!r} would save {choice.saved:.1f} dB"
            continue
        for name, times in source.reach.items():
            offsets[name] = offsets.get(name, np.zeros(1)) + times * choice.offset
        if choice.range is not None:
            fixed[target] = choice.range
        limits = tuple(limit.name for limit in source.limits)
        readers = tuple(reader.name for reader, _ in source.reads)
        shifts.append(Shift(node.name, limits, source.tensor, choice.offset, readers, choice.saved))
    return Centering(tuple(shifts), offsets, fixed, refused)


def _source(graph: Graph, node: Node) -> _Source | Refusal | None:
    """The node as a giver of offsets, or why it is none; None for nodes without a weight."""
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return None
    bias = _free_bias(graph, layout)
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
    return _Source(node, tuple(limits), name, reach, reads)


def _free_bias(graph: Graph, layout: WeightLayout) -> Floats | Refusal:
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
            times.update(dict.fromkeys(node.outputs, sum(received)))
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
        if isinstance(_free_bias(graph, layout), Refusal):
            return Refusal("cannot absorb an offset")
        fits = uniform or layout.inputs == source.outputs
        return None if fits else Refusal("has other channels")
    if rule is OffsetRule.STOPS and (row := operator_of(node)) and row.offset is not rule:
        return Refusal("pads its input with zeros")
    if rule is not OffsetRule.ADDS and (rule is not OffsetRule.KEEPS or any(received[1:])):
        return Refusal("does not carry an offset")
    ranks = {graph.rank(tensor) for tensor in (*node.inputs[:1], *node.outputs)}
    moves = len(ranks) > 1 or len(node.outputs) > 1
    return Refusal("moves the channels") if moves and not uniform else None


@dataclass(frozen=True)
class _Choice:
    """An offset, what it saves in dB, and the range to quantize with where that is settled."""

    offset: Floats
    saved: float
    range: Range | None = None


_NOTHING = _Choice(np.zeros(1), 0.0)


def _center_all(
    statistics: TensorStatistics, gain: Floats | None, ranges: str, levels: int
) -> _Choice:
    """One offset for all channels: half the range, which then becomes [−offset, offset].

    So the zeros of a Relu, often most of its values, become the lowest number and stay exact.
    """
    data = distribution([(statistics, gain)])
    low, high = estimate(data, ranges, levels=levels, symmetric=False)
    offset, bound = (float(np.float32(end / 2)) for end in (low + high, high - low))
    if bound <= 0:
        return _NOTHING
    after = noise(data.values, data.counts, (low, high), levels)
    saved = _decibels(_symmetric_noise(data, ranges, levels), after)
    return _Choice(np.full(1, offset), saved, (-bound, bound))


def _center_channels(
    statistics: TensorStatistics, gain: Floats | None, ranges: str, levels: int
) -> _Choice:
    """An offset for each channel: the middle of its range, its mean, or nothing."""
    before = _symmetric_noise(distribution([(statistics, gain)]), ranges, levels)
    middle = (statistics.minimum.astype(np.float64) + statistics.maximum) / 2
    best = _NOTHING
    for candidate in (middle, statistics.mean):
        # float32, so that what is added to a bias is what the readers take away.
        offset = candidate.astype(np.float32).astype(np.float64)
        moved = distribution([(statistics.shifted(offset), gain)])
        after = _symmetric_noise(moved, ranges, levels)
        choice = _Choice(offset, _decibels(before, after))
        best = max(best, choice, key=lambda each: each.saved)
    return best


def _symmetric_noise(data: Distribution, ranges: str, levels: int) -> float:
    """Mean squared error of a symmetric format, with the range that the estimator takes."""
    chosen = estimate(data, ranges, levels=levels, symmetric=True)
    return noise(data.values, data.counts, chosen, levels) if chosen[1] > 0 else 0.0


def _decibels(before: float, after: float) -> float:
    return float(10 * np.log10(before / after)) if before > 0 and after > 0 else 0.0


def rolled_back(plan: Centering, reason: str) -> Centering:
    """The plan that centers nothing, for this reason."""
    refused = {shift.producer: reason for shift in plan.shifts}
    return Centering((), {}, {}, {**plan.refused, **refused})


# --- applying it -----------------------------------------------------------------------------


def center_by(model: Model, plan: Centering) -> Model:
    """The model with its activations centered."""
    if not plan.shifts:
        return model
    graph = Graph(model)
    biases = _new_biases(graph, plan)

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for name, bias in biases.items():
            target = nodes[name]
            position = granted(weight_layout(graph, graph.by_name[name])).bias_position
            while len(target.inputs) <= position:
                target.inputs.append(variable(""))
            target.inputs[position] = constant(f"{name}.bias_absorbed", bias)
        for shift in plan.shifts:
            for name in shift.limits:
                _move_bounds(graph, nodes[name], float(shift.offset[0]))

    return edit(model, change)


def _new_biases(graph: Graph, plan: Centering) -> dict[str, NDArray[np.float32]]:
    """Node → bias − offset given + Σ W·offset received, summed in float64."""
    given = {shift.producer: shift.offset for shift in plan.shifts}
    readers = {reader for shift in plan.shifts for reader in shift.readers}
    biases = {}
    for node in graph.nodes:
        if node.name not in given and node.name not in readers:
            continue
        layout = granted(weight_layout(graph, node))
        bias = granted(_free_bias(graph, layout)) - given.get(node.name, 0.0)
        received = plan.offsets.get(node.inputs[layout.data])
        if node.name in readers and received is not None:
            weight = layout.to_output_major(np.asarray(graph.constant(layout.weight), np.float64))
            offsets = np.broadcast_to(received, (layout.inputs,))[layout.input_index()]
            bias = bias + (weight.sum(axis=2) * offsets).sum(axis=1)
        biases[node.name] = bias.astype(np.float32)
    return biases


def _move_bounds(graph: Graph, target: Any, offset: float) -> None:
    """Subtract the offset from the bounds of a Relu, Clip, Min or Max."""
    name = target.name
    node = graph.by_name[name]
    bounds: Sequence[tuple[int, Any]]
    if len(node.inputs) == 1:
        target.op = "Clip"
        bounds = [(1, np.zeros((), np.float32))]
        target.inputs.append(variable(""))
    else:
        found = ((i, graph.constant(tensor)) for i, tensor in enumerate(node.inputs))
        bounds = [(i, value) for i, value in found if value is not None]
    for position, value in bounds:
        moved = (value.astype(np.float64) - offset).astype(np.float32)
        target.inputs[position] = constant(f"{name}.{position}.absorbed", moved)


def derive_shifted(calibration: Calibration, plan: Centering) -> Calibration:
    """The calibration of the centered model."""
    before, offsets = calibration.tensors, plan.offsets

    def shifted(name: str) -> TensorStatistics:
        found = before[name]
        return found.shifted(offsets[name]) if name in offsets else found

    return replace(calibration, tensors=Derived(before, shifted))
