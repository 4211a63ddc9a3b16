"""Scale and zero point of a tensor, and the arithmetic.

q = saturate(round_half_even(x / scale) + zero_point), real = (q − zero_point) · scale. All of it in
float32, as ONNX's QuantizeLinear and DequantizeLinear specify, so the same input gives the same
bits here, in ONNX Runtime and in the emulator. Numbers of a floating format have no zero point: q
is the nearest of x / scale, saturated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.granularity import PER_TENSOR, Granularity, PerChannel, PerTensor
from onnxq.formats.table import Floating, Format, Uniform

Array = NDArray[Any]
Integers = NDArray[Any]
"""An array of a format's storage type."""


@dataclass(frozen=True)
class Parameters:
    """How a tensor stands for numbers of a format.

    Attributes:
        format: of the stored numbers.
        scale: float32; () per tensor, (channels,) per channel, else one for each block.
        zero_point: int32, of the shape of `scale`; zeros for floating formats.
        granularity: what shares a scale.
        grid: the numbers in use, where not all of the format's.
    """

    format: Format
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    granularity: Granularity = PER_TENSOR
    grid: Uniform | Floating | None = None

    @property
    def numbers(self) -> Uniform | Floating:
        """The numbers that quantizing gives."""
        return self.grid or self.format.grid

    @property
    def per_tensor(self) -> bool:
        return isinstance(self.granularity, PerTensor)

    @property
    def axis(self) -> int | None:
        """Of the channels, where each has a scale of its own."""
        return self.granularity.axis if isinstance(self.granularity, PerChannel) else None

    @property
    def stored_zero_point(self) -> Integers:
        """The zero point in the format's own type."""
        return self.zero_point.astype(self.format.dtype)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value that does not saturate (per tensor only)."""
        scale, zero = float(self.scale), int(self.zero_point)
        return scale * (self.numbers.lowest - zero), scale * (self.numbers.highest - zero)

    @property
    def interval(self) -> tuple[int, int]:
        """Smallest and largest q − zero_point of a uniform format (per tensor only)."""
        zero = int(self.zero_point)
        return int(self.format.grid.lowest) - zero, int(self.format.grid.highest) - zero

    def scale_of_each(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The scale of each element of a tensor of that shape, as a read-only view if it can be."""
        return np.broadcast_to(self.granularity.spread(self.scale, shape), shape)

    def zero_of_each(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """The same of the zero points."""
        return np.broadcast_to(self.granularity.spread(self.zero_point, shape), shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether there is a scale for each element of a tensor of that shape."""
        return self.granularity.fits(self.scale.shape, shape)


EXACT = 24
"""Bits of whole numbers that float32 holds exactly."""


def quantize(values: Array, parameters: Parameters) -> Integers:
    """Real values → numbers of the format, in its storage type."""
    numbers, dtype = parameters.numbers, parameters.format.dtype
    real = np.float64 if parameters.format.bits > EXACT else np.float32
    scale = parameters.granularity.spread(parameters.scale, values.shape)
    steps = values.astype(real) / scale.astype(real)
    if isinstance(numbers, Floating):
        return np.asarray(np.clip(steps, numbers.lowest, numbers.highest).astype(dtype))
    zero = parameters.granularity.spread(parameters.zero_point, values.shape)
    rounded = np.rint(steps) + zero.astype(real)
    return np.asarray(np.clip(rounded, numbers.lowest, numbers.highest).astype(dtype))


def dequantize(values: Integers, parameters: Parameters) -> NDArray[np.float32]:
    """Numbers of the format → float32: (q − zero_point) · scale."""
    scale = parameters.granularity.spread(parameters.scale, values.shape)
    return (centered(values, parameters).astype(np.float32) * scale).astype(np.float32)


def as_quantized(values: Array, parameters: Parameters) -> NDArray[np.float32]:
    """`dequantize(quantize(values, …), …)`, to the bit, without the numbers in between."""
    numbers = parameters.numbers
    if isinstance(numbers, Floating) or parameters.format.bits > EXACT:
        return dequantize(quantize(values, parameters), parameters)
    scale = parameters.granularity.spread(parameters.scale, values.shape)
    zero = parameters.granularity.spread(parameters.zero_point, values.shape).astype(np.float32)
    found = np.asarray(values.astype(np.float32) / scale.astype(np.float32), np.float32)
    np.rint(found, out=found)
    found += zero
    np.clip(found, numbers.lowest, numbers.highest, out=found)
    found -= zero
    found *= scale
    return found


def centered(values: Integers, parameters: Parameters) -> Array:
    """Q − zero_point: int32, or float32 of a floating format."""
    if isinstance(parameters.format.grid, Floating):
        return values.astype(np.float32)
    zero = parameters.granularity.spread(parameters.zero_point, values.shape)
    return values.astype(np.int32) - zero
