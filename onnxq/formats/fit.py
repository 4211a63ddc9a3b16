"""From ranges to parameters: the finest scale that covers what it must."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.granularity import PER_TENSOR, Granularity
from onnxq.formats.parameters import Parameters
from onnxq.formats.scheme import Representable, Spec
from onnxq.formats.table import Format, Uniform

SMALLEST_SCALE = 2.0**-100
"""Its reciprocal and its products stay finite."""

ANY_SCALE = Representable()


def fit_range(low: float, high: float, spec: Spec, scales: Representable = ANY_SCALE) -> Parameters:
    """Per-tensor parameters that cover [low, high] and hold zero exactly.

    A tensor that is all zero gets the range of 1: kernels refuse scales far from their inputs', and
    a bias must still fit its format.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    span = (max(-low, high) if spec.symmetric else high - low) or 1.0
    scale = max(span / spec.steps, SMALLEST_SCALE)
    single = _representable(np.array([scale]), scales)[0]
    zero = spec.middle
    if not spec.symmetric:
        lowest, highest = spec.numbers.lowest, spec.numbers.highest
        zero = int(np.clip(np.rint(lowest - low / single), lowest, highest))
    return Parameters(
        spec.format, np.array(single), np.array(zero, np.int32), PER_TENSOR, spec.numbers
    )


def fit_magnitude(
    magnitude: NDArray[np.float64],
    spec: Spec,
    granularity: Granularity,
    scales: Representable = ANY_SCALE,
) -> Parameters:
    """Parameters of symmetric weights from the largest magnitudes to cover.

    Args:
        magnitude: one for each scale of the granularity; (1,) per tensor. What is all zero gets the
            scale of the widest, so that its bias fits its format.
    """
    magnitude = np.where(magnitude > 0, magnitude, magnitude.max(initial=0.0) or 1.0)
    scale = np.maximum(magnitude / float(spec.steps), SMALLEST_SCALE)
    single = _representable(scale, scales)
    shaped = single.reshape(()) if granularity == PER_TENSOR else single
    zero = np.full(shaped.shape, spec.middle, np.int32)
    return Parameters(spec.format, shaped, zero, granularity, spec.numbers)


def coarser(parameters: Parameters, ratio: float, scales: Representable) -> Parameters:
    """Per-tensor parameters of the same zero point, their scale at least `ratio` times as large."""
    scale = np.array([float(parameters.scale) * ratio])
    return Parameters(
        parameters.format, np.array(_representable(scale, scales)[0]), parameters.zero_point,
        parameters.granularity, parameters.grid,
    )  # fmt: skip


def derived(format_: Format, scale: NDArray[np.float32], granularity: Granularity) -> Parameters:
    """Parameters of a bias: steps of input scale × weight scale, as many on both sides of 0."""
    highest = int(format_.grid.highest)
    zero = np.zeros(scale.shape, np.int32)
    return Parameters(format_, scale, zero, granularity, Uniform(-highest, highest))


def _representable(scale: NDArray[np.float64], scales: Representable) -> NDArray[np.float32]:
    """The next larger power of two or float16; beyond float16's range the float32."""
    if scales.power_of_two:
        scale = np.exp2(np.ceil(np.log2(scale) - 1e-9))
    single = scale.astype(np.float32)
    if not scales.half:
        return single
    with np.errstate(over="ignore"):
        near = single.astype(np.float16)
    above = np.where(near < single, np.nextafter(near, np.float16(np.inf)), near)
    return np.where(np.isfinite(above), above, single).astype(np.float32)
