"""The pixels of a picture: 8 bits, resized with the filter that a model was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

if TYPE_CHECKING:
    from onnxq.data.geometry import Sides

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "area"]
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "area")

_PILLOWS: Mapping[Interpolation, Image.Resampling] = MappingProxyType(
    {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "nearest": Image.Resampling.NEAREST,
        "lanczos": Image.Resampling.LANCZOS,
    }
)


class PixelError(ValueError):
    """Pixels of a kind that no option helps with."""


def to_8_bits(image: Image.Image, *, gray: bool) -> Image.Image:
    """The image in mode L or RGB. Raises `PixelError` for pixels that are not 8 or 16 bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        # Pillow's own conversion saturates at 255 instead of scaling.
        values = np.asarray(image).astype(np.uint32) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    elif image.mode in {"I", "F"}:
        raise PixelError(f"its pixels are 32-bit numbers (mode {image.mode}), not 8-bit")
    elif image.mode in {"P", "PA"} and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if gray else "RGB")


def resize(
    image: Image.Image, sides: Sides, interpolation: Interpolation, *, antialias: bool = True
) -> Image.Image:
    """The 8-bit image in another size.

    "area" is the mean over the part of the picture that a new pixel covers: OpenCV's INTER_AREA to
    one level where neither side grows. The others are Pillow's filters of that name; without
    `antialias` those of `POINTS`, which look at a fixed few pixels even where the picture shrinks.
    """
    height, width = sides
    if image.size == (width, height):
        return image
    if not antialias:
        weights = POINTS[interpolation]
        rows = _at_points(np.asarray(image), height, weights)
        found = _at_points(rows.swapaxes(0, 1), width, weights).swapaxes(0, 1)
        return Image.fromarray(np.rint(found).clip(0, 255).astype(np.uint8))
    if interpolation != "area":
        return image.resize((width, height), _PILLOWS[interpolation])
    # Rows first: a large picture is read as it is, and only the small result is in float.
    means = _means(_means(np.asarray(image), height).swapaxes(0, 1), width).swapaxes(0, 1)
    return Image.fromarray(np.rint(means).astype(np.uint8))


def _linear(part: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the pixels 0 and 1 to the right of a point's left neighbor."""
    return np.stack([1 - part, part])


def _cubic(part: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the pixels −1 to 2: Keys' kernel with a = −0.75, as OpenCV and PyTorch have it."""
    a = -0.75
    away = np.stack([part + 1, part, 1 - part, 2 - part])
    near = ((a + 2) * away - (a + 3)) * away**2 + 1
    far = ((away - 5) * away + 8) * away * a - 4 * a
    return np.where(away <= 1, near, far)


Weights = Callable[[NDArray[np.float64]], NDArray[np.float64]]

POINTS: Mapping[Interpolation, Weights] = MappingProxyType({"bilinear": _linear, "bicubic": _cubic})
"""OpenCV's INTER_LINEAR and INTER_CUBIC, PyTorch's `interpolate` without antialias."""


def _at_points(values: NDArray[Any], count: int, weights: Weights) -> NDArray[np.float64]:
    """`count` values along axis 0, each between its nearest pixels; the ends go on as they are."""
    length = len(values)
    points = (np.arange(count) + 0.5) * length / count - 0.5
    left = np.floor(points)
    shares = weights(points - left)
    first = left.astype(int) - (len(shares) // 2 - 1)
    taps = [values[(first + i).clip(0, length - 1)] for i in range(len(shares))]
    wide = shares.reshape(*shares.shape, *[1] * (values.ndim - 1))
    found: NDArray[np.float64] = np.zeros(taps[0].shape)
    for tap, share in zip(taps, wide, strict=True):
        found += tap * share
    return found


def turned(image: Image.Image) -> Image.Image:
    """The image as its orientation tag (EXIF) says that it is to be seen."""
    return ImageOps.exif_transpose(image)


def turned_sides(image: Image.Image) -> Sides:
    """(height, width) of that; only the header is read."""
    lies = image.getexif().get(_ORIENTATION) in _LYING
    return (image.width, image.height) if lies else (image.height, image.width)


_ORIENTATION = ExifTags.Base.Orientation
_LYING = {5, 6, 7, 8}


def _means(values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """`count` means along axis 0, each over an equal length; values at its ends count in part.

    Mean i covers [i·n/count, (i + 1)·n/count) of the n values.
    """
    length = len(values)
    edges = np.arange(count + 1) * length
    whole, part = edges // count, (edges % count) / count
    part = part.reshape(-1, *[1] * (values.ndim - 1))
    sums = np.add.reduceat(values, whole[:-1], axis=0, dtype=np.float64)
    sums[whole[1:] == whole[:-1]] = 0  # where reduceat gives the value itself
    sums += part[1:] * values[np.minimum(whole[1:], length - 1)]
    sums -= part[:-1] * values[whole[:-1]]
    return sums * (count / length)
