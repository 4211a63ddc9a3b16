"""Bias correction: cancel the mean error that quantization leaves in each channel of a layer.

δ = E[y_float − y_quantized] over samples and positions is added to the bias (Nagel et al., 2019,
§4.2, with measured means). Where a function reads the layer, a ReLU or a SiLU, the mean weighed by
its squared slope is tried as well: where it is flat an error changes nothing. Each channel takes
what lowers its error most, behind the function, on samples that δ was not measured on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.thinning import step_of
from onnxq.data.shelf import Values
from onnxq.model.functions import Function
from onnxq.quantization.readers import Clipping, Reader, tabulated

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
    reader: Function | Clipping | None,
    real: Sequence[Array | None] = (),
) -> tuple[Floats, BiasCorrection]:
    """What to add to the bias of each channel, 0 where nothing helps, and the record.

    Args:
        wanted, got: outputs of the float and of the quantized layer, batch by batch. Every other
            sample measures, those between decide.
        axis: of the channels.
        reader: what reads the outputs, value by value; None where they count as they are.
        real: of each batch which values are no padding, as an array that they broadcast with; None
            for all; () for all of all.
    """
    exact, other = Values.of(wanted), Values.of(got)
    shapes = exact.shapes
    axis %= len(shapes[0])
    channels = shapes[0][axis]
    # Where values decide on sizes, the two may have different ones: nothing tells which belong
    # together.
    if other.shapes != shapes or sum(shape[0] for shape in shapes) < 2:
        return np.zeros(channels), BiasCorrection(node, False, math.nan, math.nan)

    def half(first: int) -> Pairs:
        return _every_other_sample(exact, other, axis, first, real)

    with np.errstate(over="ignore", invalid="ignore"):
        behind: Reader | None = (
            tabulated(reader, chain(half(0), half(1))) if isinstance(reader, Function) else reader
        )
        measured, rest = (_mean_errors(half(each), channels, axis, behind) for each in (0, 1))
        # Where nothing is flat, the third shift is the second one.
        shifts = measured.shifts()[: 2 if behind is None else 3]
        errors = _squared_errors(half(1), shifts, axis, behind)
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
    """Sums of the error over all positions, plain and weighed by what each counts; (channels,)."""

    error: Floats
    count: Floats
    weighed: Floats
    weights: Floats

    def __add__(self, other: _MeanErrors) -> _MeanErrors:
        return _MeanErrors(
            self.error + other.error, self.count + other.count,
            self.weighed + other.weighed, self.weights + other.weights,
        )  # fmt: skip

    def shifts(self) -> tuple[Floats, Floats, Floats]:
        """No correction, the mean error, and the mean where it matters."""
        mean = self.error / np.maximum(self.count, 1)
        weighed = self.weighed / np.where(self.weights > 0, self.weights, 1)
        return np.zeros_like(mean), mean, weighed


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


def _mean_errors(pairs: Pairs, channels: int, axis: int, reader: Reader | None) -> _MeanErrors:
    total = _MeanErrors(*(np.zeros(channels) for _ in range(4)))
    for exact, other in pairs:
        error = exact - other
        everywhere = _sum(error, axis), np.full_like(total.count, error.size / len(total.count))
        weighed = everywhere
        if reader is not None:
            weights = reader.weights(exact, other)
            weighed = _sum(np.multiply(error, weights, out=error), axis), _sum(weights, axis)
        total += _MeanErrors(*everywhere, *weighed)
    return total


def _squared_errors(
    pairs: Pairs, shifts: Sequence[Floats], axis: int, reader: Reader | None
) -> Floats:
    """Mean squared error of each channel behind the reader: (shifts, channels)."""
    total, count = np.zeros((len(shifts), len(shifts[0]))), 0
    for exact, other in pairs:
        target = exact if reader is None else reader.result(exact)
        for number, shift in enumerate(shifts):
            moved = other + along(shift, other.ndim, axis)
            error = moved if reader is None else reader.result(moved)
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
