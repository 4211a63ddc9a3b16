"""From the bytes of an image, or of an array, to what a model is fed."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from onnxq.data.batching import Array
from onnxq.data.checks import check_shape, convert
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""Nothing else is tried: Pillow also opens PostScript, by running Ghostscript."""

_UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for files that are damaged or of another kind."""


def decode_image(
    file: Path | bytes, preprocessing: Preprocessing, spec: TensorSpec, name: str
) -> Array:
    """One sample, without the batch axis.

    Args:
        file: a path, or the content of an image file.
        name: what to call the image in messages.

    Raises:
        DataError: the image cannot be decoded, or does not fit.
    """

    def check_size(width: int, height: int) -> None:
        if preprocessing.resize is None and preprocessing.crop is None:
            channels, first = preprocessing.channels, preprocessing.layout == "nchw"
            shape = (channels, height, width) if first else (height, width, channels)
            check_shape((1, *shape), spec, name, hint=_size_hint(preprocessing, spec))

    try:
        values = preprocessing.apply(_open(file, name, check_size))
    except ValueError as error:
        raise DataError(
            f"cannot preprocess {name}: {error}",
            hint="repair or remove the image, or pass other sizes to --preprocess",
        ) from error
    check_shape((1, *values.shape), spec, name, hint=_size_hint(preprocessing, spec))
    return convert(values, spec, name)


def decode_array(content: bytes, name: str) -> Array:
    """The array in the content of an .npy file. Raises `DataError` where it holds none."""
    try:
        values: Array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise DataError(f"cannot read {name}: {error}", hint="expected an .npy array") from error
    return values


def require_one_input(inputs: Sequence[TensorSpec], where: str) -> None:
    """Raise `DataError` for a model that images alone cannot feed."""
    if len(inputs) != 1:
        raise DataError(
            f"{where}: images feed one input, the model has {len(inputs)}: "
            f"{', '.join(repr(item.name) for item in inputs)}",
            hint="give an .npz file with one array for each input",
        )


def check_images(
    preprocessing: Preprocessing | None, spec: TensorSpec, where: str
) -> Preprocessing:
    """The preprocessing; `DataError` where it is missing or cannot fit, whatever the images."""
    if preprocessing is None:
        raise DataError(
            f"{where}: images need preprocessing",
            hint='pass --preprocess imagenet|tf|unit or "resize=96,crop=96,mean=0.5,std=0.5"',
        )
    _check_fit(preprocessing, spec, where)
    return preprocessing


def _check_fit(preprocessing: Preprocessing, spec: TensorSpec, where: str) -> None:
    if spec.dtype.kind in "biu":
        raise DataError(
            f"{where}: images become float32, the model takes {spec}",
            hint=f"give the pixels as an .npz file of {spec.dtype.name}",
        )
    if spec.shape is None:
        return
    if len(spec.shape) != 4:
        raise DataError(
            f"{where}: images have four axes, {preprocessing.layout}, the model takes {spec}",
            hint="give an .npz file",
        )
    first = preprocessing.layout == "nchw"
    channels = spec.shape[1 if first else 3]
    if isinstance(channels, int) and channels != preprocessing.channels:
        raise DataError(
            f"{where}: preprocessing gives {preprocessing.channels} channels in layout "
            f"{preprocessing.layout}, the model takes {spec}",
            hint=_channel_hint(preprocessing, spec.shape[3 if first else 1], channels),
        )
    size = preprocessing.size
    wanted = spec.shape[2:] if first else spec.shape[1:3]
    if size and any(
        isinstance(want, int) and got != want for got, want in zip(size, wanted, strict=True)
    ):
        raise DataError(
            f"{where}: preprocessing gives {size[0]}×{size[1]} pixels, the model takes {spec}",
            hint=_size_hint(preprocessing, spec),
        )


def _size_hint(preprocessing: Preprocessing, spec: TensorSpec) -> str:
    axes = slice(2, 4) if preprocessing.layout == "nchw" else slice(1, 3)
    sides = (spec.shape or ())[axes]
    wanted = "x".join(str(side) if isinstance(side, int) else "?" for side in sides)
    key = "resize" if preprocessing.crop is None else "crop"
    return f"pass --preprocess with {key}={wanted}"


def _channel_hint(preprocessing: Preprocessing, other: object, channels: int) -> str:
    if other == preprocessing.channels:
        return "pass layout=nhwc" if preprocessing.layout == "nchw" else "pass layout=nchw"
    if channels == 1:
        return "pass color=gray"
    return "pass color=rgb" if channels == 3 else "give an .npz file instead of images"


def _open(file: Path | bytes, name: str, check_size: Callable[[int, int], None]) -> Image.Image:
    """The pixels of an image whose width and height pass: decoding a large one takes seconds."""
    stream = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with Image.open(stream, formats=_FORMATS) as image:
            # Beyond its limit Pillow at first only warns.
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ValueError(
                    f"{image.height}×{image.width} pixels are more than the {limit} allowed"
                )
            check_size(image.width, image.height)
            image.load()
            return image
    except _UNDECODABLE as error:
        # Pillow's messages may end in the path once more, or in an address.
        reason = re.split(r" ['<]", str(error))[0].rstrip(".") or type(error).__name__
        raise DataError(
            f"cannot decode {name}: {reason}", hint="repair or remove the image"
        ) from error
