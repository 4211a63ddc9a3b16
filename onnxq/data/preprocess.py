"""How an image becomes a model input, as a value with one canonical text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from onnxq.data.configurations import settings_of
from onnxq.data.geometry import PLACES, Frame, Geometry, Sides, Size, at_least, by, pair
from onnxq.data.resample import (
    INTERPOLATIONS,
    POINTS,
    Interpolation,
    resize,
    to_8_bits,
    turned,
    turned_sides,
)
from onnxq.data.settings import frame_text, numbers_text, read_settings, size_text
from onnxq.errors import UsageError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layout = Literal["nchw", "nhwc", "chw", "hwc"]
Color = Literal["rgb", "bgr", "gray"]
Orientation = Literal["stored", "exif"]

LAYOUTS = ("nchw", "nhwc", "chw", "hwc")
COLORS = ("rgb", "bgr", "gray")
ORIENTATIONS = ("stored", "exif")
MAX_SIDE = 1 << 16

WHITE = 255
"""The highest value of a decoded pixel, and of `fill`."""

LETTERBOX_FILL = 114
"""The gray around a letterboxed picture that the YOLO family is trained with."""


@dataclass(frozen=True)
class Preprocessing:
    """y = (x · scale / 255 − mean) / std, in float32, of the resized and framed 8-bit image.

    Attributes:
        resize: the new length of the shorter side, or (height, width); None leaves the size.
        pad: the size that smaller pictures are padded to; what is larger stays.
        crop: the side of a square, or (height, width), cut from the center; None cuts nothing.
        letterbox: the size to fit the picture into, its aspect ratio kept, and to pad to; in place
            of the three before.
        fill: the 8-bit value of padding, one a channel or one for all; None is 114 for a letterbox
            and 0 for `pad`.
        interpolation: the filter that resizes, see `onnxq.data.resample`.
        antialias: whether it looks at all pixels that a new one covers.
        orientation: "stored" takes the pixels as the file has them, "exif" turns the picture as its
            orientation tag says.
        scale: what white becomes before mean and std: 1, or 255 for pixels left as they are.
        mean, std: one value a channel, in the order of `color`; a single value stands for all.
        layout: where the channels lie: "nchw" and "chw" give (channels, height, width), "nhwc" and
            "hwc" (height, width, channels); those without n are for models without a batch axis.
            None is what the model declares, see `onnxq.data.image_input`, and by itself "nchw".
        color: the channels and their order; "gray" is one channel.

    Raises `UsageError`, naming the attribute, for values that make no sense.
    """

    resize: Size | None = None
    pad: Frame | None = None
    crop: Size | None = None
    letterbox: Frame | None = None
    fill: tuple[int, ...] | None = None
    interpolation: Interpolation = "bilinear"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout | None = None
    color: Color = "rgb"
    antialias: bool = True
    orientation: Orientation = "stored"

    def __post_init__(self) -> None:
        if self.layout is not None:
            _check_choice("layout", self.layout, LAYOUTS)
        _check_choice("color", self.color, COLORS)
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("orientation", self.orientation, ORIENTATIONS)
        for key in ("resize", "crop"):
            _check_size(key, getattr(self, key))
        for key in ("letterbox", "pad"):
            _check_frame(key, getattr(self, key))
        self._check_steps()
        # One spelling for one meaning, so that equal preprocessings compare equal.
        object.__setattr__(self, "mean", self._for_channels("mean", self.mean))
        object.__setattr__(self, "std", self._for_channels("std", self.std))
        object.__setattr__(self, "fill", self._filled())
        if isinstance(self.crop, tuple) and self.crop[0] == self.crop[1]:
            object.__setattr__(self, "crop", self.crop[0])
        if min(self.std) <= 0:
            raise UsageError(f"preprocessing: std must be positive, not {numbers_text(self.std)}")
        if not 0 < self.scale < math.inf:
            raise UsageError(f"preprocessing: scale must be positive, not {self.scale}")
        _check_range(self)

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

    def _filled(self) -> tuple[int, ...] | None:
        if self.letterbox is None and self.pad is None:
            return None
        fill = self.fill
        if fill is None:
            fill = (0,) if self.letterbox is None else (LETTERBOX_FILL,)
        if not all(value in range(WHITE + 1) for value in fill):
            raise UsageError(
                f"preprocessing: fill={numbers_text(fill)} is no value of a pixel",
                hint=f"give whole numbers of 0 to {WHITE}, as the pixels of the file have",
            )
        return tuple(int(value) for value in self._for_channels("fill", fill))

    def _check_steps(self) -> None:
        """Raise `UsageError` for settings that exclude, or do nothing without, each other."""
        if self.letterbox is not None:
            for key in ("resize", "pad", "crop"):
                if getattr(self, key) is not None:
                    raise UsageError(
                        f"preprocessing: letterbox and {key} exclude each other",
                        hint=f"letterbox resizes and pads by itself: leave {key} out",
                    )
        elif self.fill is not None and self.pad is None:
            raise UsageError(
                "preprocessing: fill has nothing to fill", hint="add letterbox=640 or pad=640"
            )
        elif self.interpolation != "bilinear" and self.resize is None:
            raise UsageError(
                f"preprocessing: interpolation={self.interpolation} has nothing to resize",
                hint="add resize=256 or letterbox=640",
            )
        if not self.antialias and (self.resize or self.letterbox) is None:
            raise UsageError(
                "preprocessing: antialias=no has nothing to resize",
                hint="add resize=256 or letterbox=640",
            )
        if not self.antialias and self.interpolation not in POINTS:
            raise UsageError(
                f"preprocessing: antialias=no does nothing to interpolation={self.interpolation}",
                hint=f"it is for {' and '.join(POINTS)}: leave it out",
            )

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    @property
    def channels_first(self) -> bool:
        return self.layout not in {"nhwc", "hwc"}

    @property
    def batched(self) -> bool:
        """Whether the model takes several pictures at once."""
        return self.layout not in {"chw", "hwc"}

    @property
    def size(self) -> Sides | None:
        """The (height, width) that comes out; None where it depends on the image."""
        if self.letterbox is not None:
            return self.letterbox.sides
        if self.crop is not None:
            return pair(self.crop)
        if not isinstance(self.resize, tuple):
            return None
        return at_least(self.resize, self.pad)

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read a preset's name, a .json file of a model's own (`onnxq.data.configurations`), pairs
        "key=value" separated by commas, or one of the first two and pairs.

        The value "none" takes a preset's resize or crop away, and so does a letterbox. A preset's
        mean and std follow `color=bgr`. Raises `UsageError` naming the preset, key or value that
        is wrong.
        """
        return cls(**read_settings(text))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read a configuration of another tool's, see `onnxq.data.configurations`."""
        settings = settings_of(values, "given")
        return cls.parse(",".join(f"{key}={value}" for key, value in settings.items()))

    def __str__(self) -> str:
        """The canonical text: `Preprocessing.parse(str(p)) == p`.

        What has its default and was unknown to onnxq 0.1 is left out: its texts stay as they were.
        """
        parts = {
            "resize": self.resize and size_text(self.resize),
            "pad": self.pad and frame_text(self.pad),
            "crop": self.crop and size_text(self.crop),
            "letterbox": self.letterbox and frame_text(self.letterbox),
            "fill": self.fill and ":".join(map(str, self.fill)),
            "interpolation": self.interpolation if self.interpolation != "bilinear" else None,
            "antialias": None if self.antialias else "no",
            "orientation": None if self.orientation == "stored" else self.orientation,
            "scale": numbers_text((self.scale,)) if self.scale != 1 else None,
            "mean": numbers_text(self.mean),
            "std": numbers_text(self.std),
            "layout": self.layout,
            "color": self.color,
        }
        return ",".join(f"{key}={value}" for key, value in parts.items() if value)

    def geometry(self, picture: Sides) -> Geometry:
        """Where the pixels of a picture of this (height, width) go.

        Raises `ValueError` where it is too small to crop, or becomes larger than is sensible.
        """
        box = self.letterbox
        found = (
            Geometry.letterboxed(picture, box)
            if box is not None
            else Geometry.cropped(picture, self.resize, self.pad, self.crop)
        )
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and found.resized != picture and math.prod(found.resized) > limit:
            raise ValueError(f"resizing {by(picture)} pixels gives {by(found.resized)}")
        return found

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """The model input for one image: float32, without the batch axis.

        Raises `ValueError` for pixels that are not 8 or 16 bits, and images too small to crop.
        """
        image = self.turn(image)
        values = self._pixels(to_8_bits(image, gray=self.color == "gray")).astype(np.float32)
        if self.scale != WHITE:
            values /= np.float32(WHITE / self.scale)
        values -= np.asarray(self.mean, np.float32)
        values /= np.asarray(self.std, np.float32)
        if self.channels_first:
            return np.ascontiguousarray(values.transpose(2, 0, 1))
        return values

    def turn(self, image: Image.Image) -> Image.Image:
        """The image as it is to be seen; that again changes nothing."""
        return turned(image) if self.orientation == "exif" else image

    def sides(self, image: Image.Image) -> Sides:
        """(height, width) of an image that is to be preprocessed; its pixels are not read."""
        follows = self.orientation == "exif"
        return turned_sides(image) if follows else (image.height, image.width)

    def _pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Height×width×channels in the order of `color`, 0 to 255."""
        geometry = self.geometry((image.height, image.width))
        pixels = np.asarray(
            resize(image, geometry.resized, self.interpolation, antialias=self.antialias)
        )
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        if self.color == "bgr":
            pixels = pixels[..., ::-1]
        return geometry.lay(pixels, np.asarray(self.fill or 0, np.uint8))


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(
            f"preprocessing: {key}={value} is unknown",
            hint=suggest(value, choices, of=f"the values of {key}"),
        )


def _check_size(key: str, size: Size | None) -> None:
    if size is not None and not all(1 <= side <= MAX_SIDE for side in pair(size)):
        raise UsageError(f"preprocessing: {key}={size_text(size)} is out of range, 1 to {MAX_SIDE}")


def _check_frame(key: str, frame: Frame | None) -> None:
    if frame is not None:
        _check_size(key, frame.sides)
        _check_choice(key, frame.place, PLACES)


def _check_range(preprocessing: Preprocessing) -> None:
    """Raise `UsageError` for a mean and std that are meant for pixels of another scale.

    Means lie within the pixels' range and stds are not far from it. Of the two scales in use, 0…1
    and 0…255, ten times the range, or a hundredth of it, is the other one's.
    """
    mean, std, scale = preprocessing.mean, preprocessing.std, preprocessing.scale
    largest = max(*map(abs, mean), 0.0)
    if max(largest, *std) > 10 * max(scale, 1):
        raise UsageError(
            f"preprocessing: mean and std look like those of pixels of 0…{WHITE}, "
            f"the pixels here are 0…{scale:g}",
            hint=f"write mean={_divided(mean)},std={_divided(std)}, or add scale={WHITE}",
        )
    if scale >= WHITE / 2 and (0 < largest <= 1 or max(std) < 1):
        raise UsageError(
            "preprocessing: mean and std look like those of pixels of 0…1, "
            f"the pixels here are 0…{scale:g}",
            hint=f"leave scale={scale:g} out, or the preset pixels, which sets it",
        )


def _divided(values: tuple[float, ...]) -> str:
    return numbers_text(tuple(float(f"{value / WHITE:.4g}") for value in values))
