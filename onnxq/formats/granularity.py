"""What shares a scale: a whole tensor, a channel, or a block of values along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class PerTensor:
    """One scale, of shape ()."""

    def spread(self, scale: Array, shape: Shape) -> Array:  # noqa: ARG002 - as its siblings
        """The scales, shaped to broadcast to a tensor of that shape."""
        return scale

    def fits(self, scale: Shape, shape: Shape) -> bool:  # noqa: ARG002
        """Whether scales of this shape are enough for a tensor of that shape."""
        return scale == ()

    @property
    def attributes(self) -> dict[str, int]:
        """Of the DequantizeLinear."""
        return {}

    def __str__(self) -> str:
        return "per tensor"


@dataclass(frozen=True)
class PerChannel:
    """A scale for each index of `axis`, of shape (channels,)."""

    axis: int

    def spread(self, scale: Array, shape: Shape) -> Array:
        """The scales, shaped to broadcast to a tensor of that shape."""
        sizes = [1] * len(shape)
        sizes[self.axis] = scale.size
        return scale.reshape(sizes)

    def fits(self, scale: Shape, shape: Shape) -> bool:
        """Whether scales of this shape are enough for a tensor of that shape."""
        inside = -len(shape) <= self.axis < len(shape)
        return inside and scale == (shape[self.axis],)

    @property
    def attributes(self) -> dict[str, int]:
        """Of the DequantizeLinear."""
        return {"axis": self.axis}

    def __str__(self) -> str:
        return f"per channel on axis {self.axis}"


@dataclass(frozen=True)
class Blocks:
    """A scale for each run of `size` values along `axis`; the last run may be shorter.

    The scales have the rank of the tensor (ONNX, operator set 21).
    """

    axis: int
    size: int

    def spread(self, scale: Array, shape: Shape) -> Array:
        """The scales, shaped to broadcast to a tensor of that shape."""
        repeated = np.repeat(scale, self.size, axis=self.axis)
        return repeated.take(np.arange(shape[self.axis]), axis=self.axis)

    def fits(self, scale: Shape, shape: Shape) -> bool:
        """Whether scales of this shape are enough for a tensor of that shape."""
        if len(scale) != len(shape) or not -len(shape) <= self.axis < len(shape):
            return False
        axis = self.axis % len(shape)
        needed = [-(-n // self.size) if i == axis else n for i, n in enumerate(shape)]
        return self.size > 0 and list(scale) == needed

    def split(self, values: Array) -> Array:
        """The values with the axis cut in two, (…, blocks, size, …); zeros fill the last block."""
        axis = self.axis % values.ndim
        missing = -values.shape[axis] % self.size
        padded = np.pad(values, [(0, missing * (i == axis)) for i in range(values.ndim)])
        shape = values.shape
        return padded.reshape(*shape[:axis], -1, self.size, *shape[axis + 1 :])

    @property
    def attributes(self) -> dict[str, int]:
        """Of the DequantizeLinear."""
        return {"axis": self.axis, "block_size": self.size}

    def __str__(self) -> str:
        return f"blocks of {self.size} on axis {self.axis}"


Granularity = PerTensor | PerChannel | Blocks

PER_TENSOR = PerTensor()
