"""The arithmetic of int8: q = saturate(round_half_even(x / scale) + zero_point).

All of it in float32, as ONNX's QuantizeLinear specifies, so the same input gives the same bits
here, in ONNX Runtime and in the emulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SMALLEST_SCALE = 2.0**-100
"""Its reciprocal and its products stay finite."""


@dataclass(frozen=True)
class Parameters:
    """Scale and zero point of one tensor.

    Attributes:
        scale: float32, () per tensor or (channels,) per channel.
        zero_point: of `dtype`, same shape as `scale`.
        dtype: "int8" or "uint8".
        axis: channel axis for per-channel parameters, None per tensor.
    """

    scale: NDArray[np.float32]
    zero_point: Array
    axis: int | None = None

    @property
    def dtype(self) -> str:
        return str(self.zero_point.dtype)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value that does not saturate (per tensor only)."""
        info = np.iinfo(self.zero_point.dtype)
        scale, zero = float(self.scale), int(self.zero_point)
        lowest = -127 if info.min == -128 and zero == 0 else info.min
        return scale * (lowest - zero), scale * (info.max - zero)


def activation_parameters(
    low: float,
    high: float,
    *,
    dtype: str,
    symmetric: bool,
    power_of_two: bool = False,
    half: bool = False,
) -> Parameters:
    """Per-tensor parameters that cover [low, high] and hold zero exactly.

    A tensor that is all zero gets the range of 1: kernels refuse scales far from their inputs', and
    a bias must still fit int32.

    Args:
        half: the scale is a float16 number, wherever one is large enough.
    """
    info = np.iinfo(dtype)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        steps, span = 127.0, max(-low, high)
    else:
        steps, span = float(info.max - info.min), high - low
    span = span or 1.0
    scale = max(span / steps, SMALLEST_SCALE)
    scale32 = _representable(np.array([scale]), power_of_two=power_of_two, half=half)[0]
    zero = 0 if symmetric else int(np.clip(np.rint(info.min - low / scale32), info.min, info.max))
    return Parameters(np.array(scale32), np.array(zero, dtype))


def weight_parameters(
    magnitude: NDArray[np.float64],
    *,
    axis: int | None,
    power_of_two: bool = False,
    half: bool = False,
) -> Parameters:
    """Symmetric int8 parameters in [−127, 127] from the largest magnitudes to cover.

    Args:
        magnitude: (channels,) for per-channel parameters on `axis`, or (1,) per tensor. Channels
            that are all zero get the scale of the widest, so that their bias fits int32.
    """
    magnitude = np.where(magnitude > 0, magnitude, magnitude.max(initial=0.0) or 1.0)
    scale = np.maximum(magnitude / 127.0, SMALLEST_SCALE)
    scale = _representable(scale, power_of_two=power_of_two, half=half)
    shaped = scale if axis is not None else scale.reshape(())
    return Parameters(shaped, np.zeros(shaped.shape, np.int8), axis)


def _representable(
    scale: NDArray[np.float64], *, power_of_two: bool, half: bool
) -> NDArray[np.float32]:
    """The next larger power of two or float16; beyond float16's range the float32."""
    if power_of_two:
        scale = np.exp2(np.ceil(np.log2(scale) - 1e-9))
    single = scale.astype(np.float32)
    if not half:
        return single
    with np.errstate(over="ignore"):
        near = single.astype(np.float16)
    above = np.where(near < single, np.nextafter(near, np.float16(np.inf)), near)
    return np.where(np.isfinite(above), above, single).astype(np.float32)


def scale_of_each(parameters: Parameters, shape: tuple[int, ...]) -> Array:
    """The scale of each element of a tensor of that shape, as a read-only view."""
    return np.broadcast_to(_shaped(parameters.scale, len(shape), parameters.axis), shape)


def _shaped(values: Array, rank: int, axis: int | None) -> Array:
    if axis is None:
        return values
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def quantize(values: Array, parameters: Parameters) -> Array:
    """Float values → integers of the parameters' type; symmetric int8 keeps −127 as its lowest."""
    scale = _shaped(parameters.scale, values.ndim, parameters.axis)
    zero = _shaped(parameters.zero_point, values.ndim, parameters.axis).astype(np.float32)
    info = np.iinfo(parameters.zero_point.dtype)
    rounded = np.rint(values.astype(np.float32) / scale) + zero
    return np.clip(rounded, info.min, info.max).astype(parameters.zero_point.dtype)


def quantize_weight(values: Array, parameters: Parameters) -> NDArray[np.int8]:
    """The same for weights, whose lowest value is −127."""
    scale = _shaped(parameters.scale, values.ndim, parameters.axis)
    return np.clip(np.rint(values.astype(np.float32) / scale), -127, 127).astype(np.int8)


def dequantize(values: Array, parameters: Parameters) -> NDArray[np.float32]:
    """Integers → float32: (q − zero_point) · scale."""
    scale = _shaped(parameters.scale, values.ndim, parameters.axis)
    zero = _shaped(parameters.zero_point, values.ndim, parameters.axis)
    shifted = values.astype(np.int32) - zero.astype(np.int32)
    return (shifted.astype(np.float32) * scale).astype(np.float32)
