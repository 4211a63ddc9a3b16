"""From ranges to parameters: the finest scale that covers what it must."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.granularity import PER_TENSOR, Blocks, Granularity
from onnxq.formats.parameters import Parameters
from onnxq.formats.scheme import Representable, Spec
from onnxq.formats.table import Format, Uniform

SMALLEST_SCALE = 2.0**-100
"""Its reciprocal and its products stay finite."""

AT_ONCE = 1 << 20
"""Numbers of a matrix whose blocks are fitted at once."""

SHARES_OF_RANGE = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Of a block of narrower numbers: what is cut off may cost less than wider steps."""

ANY_SCALE = Representable()


def fit_range(low: float, high: float, spec: Spec, scales: Representable = ANY_SCALE) -> Parameters:
    """Per-tensor parameters that cover [low, high] and hold zero exactly.

    A tensor that is all zero gets the range of 1: kernels refuse scales far from their inputs', and
    a bias must still fit its format.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    span = (max(-low, high) if spec.symmetric else high - low) or 1.0
    scale = max(span / spec.steps, SMALLEST_SCALE)
    single = _representable(np.array([scale]), spec.scales(scales))[0]
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
    single = _representable(scale, spec.scales(scales))
    shaped = single.reshape(()) if granularity == PER_TENSOR else single
    zero = np.full(shaped.shape, spec.middle, np.int32)
    return Parameters(spec.format, shaped, zero, granularity, spec.numbers)


def fit_blocks(
    matrix: NDArray[Any], spec: Spec, blocks: Blocks, scales: Representable = ANY_SCALE
) -> Parameters:
    """Parameters of a matrix in blocks, each from the smallest to the largest value and 0.

    Blocks of narrow numbers are cut off where that costs less than wider steps. A block of zeros
    gets an ordinary scale. Large matrices are looked at in parts, so that no copy is whole.
    """
    along = blocks.axis % 2
    across = 1 - along
    step = max(1, AT_ONCE // max(matrix.shape[along], 1))
    parts = [
        _fit_part(
            matrix[at : at + step] if along else matrix[:, at : at + step], spec, blocks, scales
        )
        for at in range(0, matrix.shape[across], step)
    ]
    return replace(
        parts[0],
        scale=np.concatenate([part.scale for part in parts], axis=across),
        zero_point=np.concatenate([part.zero_point for part in parts], axis=across),
    )


def _fit_part(part: NDArray[Any], spec: Spec, blocks: Blocks, scales: Representable) -> Parameters:
    runs, axis = blocks.split(np.asarray(part, np.float64)), blocks.axis % 2 + 1
    low, high = runs.min(axis=axis, initial=0.0), runs.max(axis=axis, initial=0.0)
    best = _blocks_over(low, high, spec, blocks, scales)
    # Wider numbers lose least within the whole range of a block.
    if not spec.format.narrow:
        return best
    least = _error(runs, best, axis)
    for share in SHARES_OF_RANGE:
        some = _blocks_over(low * share, high * share, spec, blocks, scales)
        error = _error(runs, some, axis)
        better = error < least
        least = np.where(better, error, least)
        best = replace(
            best,
            scale=np.where(better, some.scale, best.scale),
            zero_point=np.where(better, some.zero_point, best.zero_point),
        )
    return best


def _error(runs: NDArray[np.float64], parameters: Parameters, axis: int) -> NDArray[np.float64]:
    """Sum of squared rounding errors of each block."""
    numbers, scale, zero = parameters.numbers, parameters.scale, parameters.zero_point
    scale, zero = np.expand_dims(scale, axis), np.expand_dims(zero, axis)
    whole = np.clip(np.rint(runs / scale), numbers.lowest - zero, numbers.highest - zero)
    return np.asarray(np.square(whole * scale - runs).sum(axis=axis))


def _blocks_over(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    spec: Spec,
    blocks: Blocks,
    scales: Representable,
) -> Parameters:
    """Parameters of blocks with these ranges."""
    span = np.maximum(-low, high) if spec.symmetric else high - low
    span = np.where(span > 0, span, span.max(initial=0.0) or 1.0)
    scale = _representable(np.maximum(span / spec.steps, SMALLEST_SCALE), spec.scales(scales))
    zero = np.full(scale.shape, spec.middle, np.int32)
    if not spec.symmetric:
        lowest, highest = spec.numbers.lowest, spec.numbers.highest
        zero = np.clip(np.rint(lowest - low / scale), lowest, highest).astype(np.int32)
    return Parameters(spec.format, scale, zero, blocks, spec.numbers)


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
