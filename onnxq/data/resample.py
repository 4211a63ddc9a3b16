"""The pixels of a picture: 8 bits, resized with the filter that a model was trained with."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

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


def to_8_bits(image: Image.Image, *, gray: bool) -> Image.Image:
    """The image in mode L or RGB. Raises `ValueError` for pixels that are not 8 or 16 bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        # Pillow's own conversion saturates at 255 instead of scaling.
        values = np.asarray(image).astype(np.uint32) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    elif image.mode in {"I", "F"}:
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}), not 8-bit")
    elif image.mode in {"P", "PA"} and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if gray else "RGB")


def resize(image: Image.Image, sides: Sides, interpolation: Interpolation) -> Image.Image:
    """The 8-bit image in another size.

    "area" is the mean over the part of the picture that a new pixel covers: OpenCV's INTER_AREA to
    one level where neither side grows. The others are Pillow's filters of that name.
    """
    height, width = sides
    if image.size == (width, height):
        return image
    if interpolation != "area":
        return image.resize((width, height), _PILLOWS[interpolation])
    # Rows first: a large picture is read as it is, and only the small result is in float.
    means = _means(_means(np.asarray(image), height).swapaxes(0, 1), width).swapaxes(0, 1)
    return Image.fromarray(np.rint(means).astype(np.uint8))


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
