"""Bias correction: cancel the mean error that quantization leaves in each channel of a layer.

δ = E[y_float − y_quantized] over samples and positions is added to the bias (Nagel et al., 2019,
§4.2, with measured means). Where an activation that clips is fused to the layer, the mean over the
positions that it does not clip is tried as well: elsewhere an error is cut off anyway. Each channel
takes what lowers its error most, behind the activation, on samples that δ was not measured on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.thinning import step_of
from onnxq.data.shelf import Values

Array = NDArray[Any]
Floats = NDArray[np.float64]
Pairs = Iterator[tuple[Array, Array]]

CACHED = 1 << 16
"""Values to look at together: so few stay in the processor's cache."""


@dataclass(frozen=True)
class BiasCorrection:
    """What was done to one layer: its mean squared error before and after, on held-out samples."""

    node: str
    accepted: bool
    error_before: float
    error_after: float


def measure_shift(
    node: str,
    wanted: Sequence[Array],
    got: Sequence[Array],
    axis: int,
    bounds: tuple[float, float],
    real: Sequence[Array | None] = (),
) -> tuple[Floats, BiasCorrection]:
    """What to add to the bias of each channel, 0 where nothing helps, and the record.

    Args:
        wanted, got: outputs of the float and of the quantized layer, batch by batch. Every other
            sample measures, those between decide.
        axis: of the channels.
        bounds: of the fused activation, ±∞ for none.
        real: of each batch which values are no padding, as an array that they broadcast with; None
            for all; () for all of all.
    """
    exact, other = Values.of(wanted), Values.of(got)
    shapes = exact.shapes
    axis %= len(shapes[0])
    channels = shapes[0][axis]
    if sum(shape[0] for shape in shapes) < 2:
        return np.zeros(channels), BiasCorrection(node, False, math.nan, math.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        measured, rest = (
            _mean_errors(pairs, channels, axis, bounds)
            for pairs in (_every_other_sample(exact, other, axis, half, real) for half in (0, 1))
        )
        # Where nothing clips, the third shift is the second one.
        shifts = measured.shifts()[: 3 if _clips(bounds) else 2]
        deciding = _every_other_sample(exact, other, axis, 1, real)
        errors = _squared_errors(deciding, shifts, axis, bounds)
    # What float32 cannot square is not known to help.
    errors[~np.isfinite(errors)] = np.inf
    best = errors.argmin(axis=0)
    record = BiasCorrection(
        node, bool(best.any()), float(errors[0].mean()), float(errors.min(axis=0).mean())
    )
    return np.choose(best, (measured + rest).shifts()), record


def along(values: Array, rank: int, axis: int) -> NDArray[np.float32]:
    """One value for each channel, shaped to be added to a tensor of that rank."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape).astype(np.float32)


@dataclass(frozen=True)
class _MeanErrors:
    """Sums of the error over all positions, and over those not clipped; each (channels,)."""

    error: Floats
    count: Floats
    error_inside: Floats
    count_inside: Floats

    def __add__(self, other: _MeanErrors) -> _MeanErrors:
        return _MeanErrors(
            self.error + other.error, self.count + other.count,
            self.error_inside + other.error_inside, self.count_inside + other.count_inside,
        )  # fmt: skip

    def shifts(self) -> tuple[Floats, Floats, Floats]:
        """No correction, the mean error, and the mean where it matters."""
        mean = self.error / np.maximum(self.count, 1)
        inside = self.error_inside / np.maximum(self.count_inside, 1)
        return np.zeros_like(mean), mean, inside


def _every_other_sample(
    wanted: Values, got: Values, axis: int, half: int, real: Sequence[Array | None]
) -> Pairs:
    """One of two halves, some samples at a time. Of large maps it holds the positions that a
    histogram counts, and none that are padding.
    """
    samples, seen = sum(shape[0] for shape in wanted.shapes), 0
    for index, shape in enumerate(wanted.shapes):
        apart = step_of(shape, axis, samples)
        # Two are the stride between samples of one half.
        step = 2 * max(1, CACHED * apart * shape[0] // max(math.prod(shape), 1))
        for start in range((half + seen) % 2, shape[0], step):
            chosen = slice(start, start + step, 2)
            pair = (wanted.rows(index, chosen), got.rows(index, chosen))
            kept = real[index] if real else None
            if kept is not None:
                yield _unpadded(pair[0], axis, kept[chosen]), _unpadded(pair[1], axis, kept[chosen])
                continue
            yield _thinned(pair[0], axis, apart), _thinned(pair[1], axis, apart)
        seen += shape[0]


def _thinned(values: Array, axis: int, step: int) -> Array:
    """Every so many-th position behind the channels."""
    if step == 1 or axis == values.ndim - 1:
        return values
    return values.reshape(*values.shape[: axis + 1], -1)[..., ::step]


def _unpadded(values: Array, axis: int, real: Array) -> Array:
    """The positions that are no padding, one a row, with the channels where they were."""
    rows = np.moveaxis(values, axis, -1)
    found = rows[np.moveaxis(np.broadcast_to(real, values.shape), axis, -1)[..., 0]]
    return np.asarray(found.reshape(len(found), *[1] * (axis - 1), found.shape[1]))


def _mean_errors(
    pairs: Pairs, channels: int, axis: int, bounds: tuple[float, float]
) -> _MeanErrors:
    total = _MeanErrors(*(np.zeros(channels) for _ in range(4)))
    low, high = bounds
    for exact, other in pairs:
        error = exact - other
        everywhere = _sum(error, axis), np.full_like(total.count, error.size / len(total.count))
        unclipped = everywhere
        if _clips(bounds):
            inside = ((exact > low) & (exact < high)) | ((other > low) & (other < high))
            unclipped = _sum(error * inside, axis), _sum(inside, axis)
        total += _MeanErrors(*everywhere, *unclipped)
    return total


def _clips(bounds: tuple[float, float]) -> bool:
    return bounds != (-math.inf, math.inf)


def _squared_errors(
    pairs: Pairs, shifts: Sequence[Floats], axis: int, bounds: tuple[float, float]
) -> Floats:
    """Mean squared error of each channel behind the activation: (shifts, channels)."""
    total, count, clips = np.zeros((len(shifts), len(shifts[0]))), 0, _clips(bounds)
    for exact, other in pairs:
        target = np.clip(exact, *bounds) if clips else exact
        for number, shift in enumerate(shifts):
            error = other + along(shift, other.ndim, axis)
            if clips:
                np.clip(error, *bounds, out=error)
            error -= target
            total[number] += _sum(np.square(error, out=error), axis)
        count += exact.size // len(shifts[0])
    return total / max(count, 1)


def _sum(values: Array, axis: int) -> Floats:
    """Of each channel. What lies behind its axis is added pairwise, which float32 does well."""
    if axis < values.ndim - 1:
        values = values.reshape(*values.shape[: axis + 1], -1).sum(axis=-1)
    total: Floats = values.sum(axis=tuple(range(axis)), dtype=np.float64)
    return total
