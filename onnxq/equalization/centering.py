"""Bias absorption: center activations, so that symmetric formats use both their halves.

With y = f(x + b) and every reader linear, y − c is f moved down by c, and the readers' biases take
W·c: the network computes the same up to float rounding, and what lay in [0, R] lies in [−R/2, R/2].
High-bias absorption (Nagel et al., 2019, §4.1.3) moves only what a ReLU lets through unclipped;
here the bounds of the ReLU or Clip move along (max(x, 0) − c = max(x − c, −c)), so the shift is
exact for every input. A reader that pads with zeros reads a border that does not move: it stops
the shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.ranges import Distribution, Range, distribution, estimate, noise
from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.equalization.offsets import source_of
from onnxq.formats.scheme import REFERENCE
from onnxq.model.graph import Graph
from onnxq.refusal import Refusal

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
        source = source_of(graph, node)
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
