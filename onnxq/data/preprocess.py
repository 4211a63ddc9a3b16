"""How an image becomes a model input, as a value with one canonical text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from onnxq.data.settings import Size, numbers_text, read_settings, size_text
from onnxq.errors import UsageError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layout = Literal["nchw", "nhwc"]
Color = Literal["rgb", "bgr", "gray"]

LAYOUTS = ("nchw", "nhwc")
COLORS = ("rgb", "bgr", "gray")
MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class Preprocessing:
    """y = (x / 255 − mean) / std, in float32, of the resized and center-cropped 8-bit image.

    Attributes:
        resize: the new length of the shorter side, or (height, width); None leaves the size.
        crop: the side of a square, or (height, width), cut from the center; None cuts nothing.
        mean, std: one value a channel, in the order of `color`; a single value stands for all.
        layout: "nchw" gives (channels, height, width), "nhwc" (height, width, channels).
        color: the channels and their order; "gray" is one channel.

    Raises `UsageError`, naming the attribute, for values that make no sense.
    """

    resize: Size | None = None
    crop: Size | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "nchw"
    color: Color = "rgb"

    def __post_init__(self) -> None:
        _check_choice("layout", self.layout, LAYOUTS)
        _check_choice("color", self.color, COLORS)
        for key in ("resize", "crop"):
            _check_size(key, getattr(self, key))
        # One spelling for one meaning, so that equal preprocessings compare equal.
        object.__setattr__(self, "mean", self._for_channels("mean", self.mean))
        object.__setattr__(self, "std", self._for_channels("std", self.std))
        if isinstance(self.crop, tuple) and self.crop[0] == self.crop[1]:
            object.__setattr__(self, "crop", self.crop[0])
        if min(self.std) <= 0:
            raise UsageError(f"preprocessing: std must be positive, not {numbers_text(self.std)}")

    def _for_channels(self, key: str, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(value) for value in values):
            raise UsageError(f"preprocessing: {key} must be finite, not {numbers_text(values)}")
        if len(values) not in {1, self.channels}:
            raise UsageError(
                f"preprocessing: {key} has {len(values)} values, "
                f"color={self.color} has {self.channels} channels",
                hint=f"give {key} one value"
                + (" or three, as in 0.5:0.5:0.5" * (self.channels > 1)),
            )
        return tuple(values) * (self.channels // len(values))

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    @property
    def size(self) -> tuple[int, int] | None:
        """The (height, width) that comes out; None where it depends on the image."""
        if self.crop is not None:
            return _pair(self.crop)
        return self.resize if isinstance(self.resize, tuple) else None

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read a preset's name, "key=value" pairs separated by commas, or a preset and pairs.

        The value "none" takes a preset's resize or crop away. A preset's mean and std follow
        `color=bgr`. Raises `UsageError` naming the preset, key or value that is wrong.
        """
        return cls(**read_settings(text))

    def __str__(self) -> str:
        """The canonical text: `Preprocessing.parse(str(p)) == p`."""
        parts = {
            "resize": self.resize and size_text(self.resize),
            "crop": self.crop and size_text(self.crop),
            "mean": numbers_text(self.mean),
            "std": numbers_text(self.std),
            "layout": self.layout,
            "color": self.color,
        }
        return ",".join(f"{key}={value}" for key, value in parts.items() if value)

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """The model input for one image: float32, without the batch axis.

        An orientation tag is not followed, as in the usual training pipelines. Raises
        `ValueError` for pixels that are not 8 or 16 bits, and images too small to crop.
        """
        pixels = np.asarray(self._crop(self._resize(_to_8_bits(image, self.color))))
        if self.color == "bgr":
            pixels = pixels[..., ::-1]
        values = pixels.reshape(*pixels.shape[:2], self.channels).astype(np.float32)
        values /= np.float32(255)
        values -= np.asarray(self.mean, np.float32)
        values /= np.asarray(self.std, np.float32)
        if self.layout == "nchw":
            return np.ascontiguousarray(values.transpose(2, 0, 1))
        return values

    def _resize(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        width, height = image.size
        if isinstance(self.resize, tuple):
            target = (self.resize[1], self.resize[0])
        elif width <= height:
            target = (self.resize, self.resize * height // width)
        else:
            target = (self.resize * width // height, self.resize)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and target[0] * target[1] > limit:
            raise ValueError(f"resizing {height}×{width} pixels gives {target[1]}×{target[0]}")
        return image if target == image.size else image.resize(target, Image.Resampling.BILINEAR)

    def _crop(self, image: Image.Image) -> Image.Image:
        if self.crop is None:
            return image
        height, width = _pair(self.crop)
        if image.height < height or image.width < width:
            raise ValueError(
                f"{image.height}×{image.width} pixels are too few to crop {height}×{width}"
            )
        top = round((image.height - height) / 2)
        left = round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))


def _to_8_bits(image: Image.Image, color: Color) -> Image.Image:
    mode = "L" if color == "gray" else "RGB"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        # Pillow's own conversion saturates at 255 instead of scaling.
        values = np.asarray(image).astype(np.uint32) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    elif image.mode in {"I", "F"}:
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}), not 8-bit")
    elif image.mode in {"P", "PA"} and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(
            f"preprocessing: {key}={value} is unknown",
            hint=suggest(value, choices, of=f"the values of {key}"),
        )


def _check_size(key: str, size: Size | None) -> None:
    if size is not None and not all(1 <= side <= MAX_SIDE for side in _pair(size)):
        raise UsageError(f"preprocessing: {key}={size_text(size)} is out of range, 1 to {MAX_SIDE}")


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)
