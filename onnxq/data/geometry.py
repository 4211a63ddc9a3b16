"""Where the pixels of a picture lie in a model's input: what carries its labels there and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sides = tuple[int, int]
"""(height, width) in pixels, or (y, x)."""

Size = int | Sides
"""The length of one side, or of both."""

Place = Literal["center", "top-left"]
PLACES = ("center", "top-left")

Pixels = TypeVar("Pixels", bound=np.generic)


@dataclass(frozen=True)
class Frame:
    """A size in pixels, and where a smaller picture goes in it."""

    height: int
    width: int
    place: Place = "center"

    @property
    def sides(self) -> Sides:
        return (self.height, self.width)

    def offset(self, picture: Sides) -> Sides:
        """Where the picture's first row and column go; an odd remainder goes right and below."""
        if self.place == "top-left":
            return (0, 0)
        return ((self.height - picture[0]) // 2, (self.width - picture[1]) // 2)

    def fitted(self, picture: Sides) -> Sides:
        """The largest size of the picture's aspect ratio that the frame holds."""
        factor = min(self.height / picture[0], self.width / picture[1])
        return (max(1, round(picture[0] * factor)), max(1, round(picture[1] * factor)))


@dataclass(frozen=True)
class Geometry:
    """How a picture became an input: resized, then laid into it at an offset.

    A point moves as x ↦ x · scale + offset along each axis.

    Attributes:
        picture: its size in the file.
        resized: its size after resizing.
        offset: where the first row and column of the resized picture lie in the input: behind
            padding, or negative where some are cut off.
        input: the size of what the model sees.
    """

    picture: Sides
    resized: Sides
    offset: Sides
    input: Sides

    @classmethod
    def letterboxed(cls, picture: Sides, box: Frame) -> Geometry:
        """The picture fitted into the box."""
        resized = box.fitted(picture)
        return cls(picture, resized, box.offset(resized), box.sides)

    @classmethod
    def cropped(
        cls, picture: Sides, resize: Size | None, pad: Frame | None, crop: Size | None
    ) -> Geometry:
        """The picture resized, padded, and cropped at its center; see `Preprocessing`.

        Raises `ValueError` where it is too small to crop.
        """
        resized = _resized(picture, resize)
        padded = at_least(resized, pad)
        top, left = Frame(*padded, pad.place).offset(resized) if pad else (0, 0)
        if crop is None:
            return cls(picture, resized, (top, left), padded)
        height, width = pair(crop)
        if padded[0] < height or padded[1] < width:
            raise ValueError(f"{by(padded)} pixels are too few to crop {by((height, width))}")
        top -= round((padded[0] - height) / 2)
        left -= round((padded[1] - width) / 2)
        return cls(picture, resized, (top, left), (height, width))

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input a pixel of the picture: (down, across)."""
        return (self.resized[0] / self.picture[0], self.resized[1] / self.picture[1])

    def to_input(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Boxes of the picture as boxes of the input, both …×4: x1, y1, x2, y2 in pixels.

        They are not clipped: what was cut off lies outside the input.
        """
        scale, offset = self._corners()
        return np.asarray(boxes, np.float64) * scale + offset

    def to_picture(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """The inverse of `to_input`: where boxes of the input lie in the picture."""
        scale, offset = self._corners()
        return (np.asarray(boxes, np.float64) - offset) / scale

    def _corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale and offset of x1, y1, x2, y2."""
        (down, across), (top, left) = self.scale, self.offset
        return np.array([across, down] * 2), np.array([left, top] * 2, np.float64)

    def lay(self, resized: NDArray[Pixels], fill: NDArray[Pixels]) -> NDArray[Pixels]:
        """The input's height×width[×channels]: the resized picture's pixels, `fill` around them."""
        (top, left), (height, width) = self.offset, self.input
        within = resized[max(0, -top) : height - top, max(0, -left) : width - left]
        if within.shape[:2] == self.input:
            return within
        laid = np.empty((*self.input, *resized.shape[2:]), resized.dtype)
        laid[...] = fill
        top, left = max(0, top), max(0, left)
        laid[top : top + within.shape[0], left : left + within.shape[1]] = within
        return laid


def _resized(picture: Sides, resize: Size | None) -> Sides:
    if resize is None:
        return picture
    if isinstance(resize, tuple):
        return resize
    shorter = min(picture)
    return (resize * picture[0] // shorter, resize * picture[1] // shorter)


def at_least(size: Sides, frame: Frame | None) -> Sides:
    """The size after padding to the frame's."""
    return size if frame is None else (max(size[0], frame.height), max(size[1], frame.width))


def pair(size: Size) -> Sides:
    return size if isinstance(size, tuple) else (size, size)


def by(size: Sides) -> str:
    """A size as messages have it: "480×640"."""
    return f"{size[0]}×{size[1]}"
