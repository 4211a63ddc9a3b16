"""From the bytes of an image, or of an array, to what a model is fed."""

from __future__ import annotations

import io
import re
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from onnxq.data.batching import Array
from onnxq.data.checks import check_shape, convert
from onnxq.data.image_input import batched, sample_shape, size_hint
from onnxq.data.resample import PixelError
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.data.geometry import Geometry
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


Picture = Path | bytes | Image.Image
"""A path, the content of an image file, or an image."""


def decode_image(file: Picture, preprocessing: Preprocessing, spec: TensorSpec, name: str) -> Array:
    """One sample, without the batch axis.

    Args:
        file: a path, the content of an image file, or an image of Pillow's.
        name: what to call the image in messages.

    Raises:
        DataError: the image cannot be decoded, or does not fit.
    """
    wanted = batched(preprocessing, spec)
    hint = size_hint(preprocessing, spec)
    with opened(file, name) as image:
        # Decoding a large image takes seconds: what cannot fit is not even read.
        size = _geometry(image, preprocessing, name).input
        check_shape((1, *sample_shape(preprocessing, size)), wanted, name, hint=hint)
        with _refusing(name):
            image.load()
            seen = preprocessing.turn(image)
        with _unfit(name):
            values = preprocessing.apply(seen)
    if spec.dtype.kind in "iu":
        # The pixels themselves, see `onnxq.data.image_input`: whole numbers that the type holds.
        return values.astype(spec.dtype)
    return convert(values, wanted, name)


def loaded(file: Picture, name: str) -> Image.Image:
    """An image in RGB, read whole, for a function of the user's. Raises as `decode_image`."""
    with opened(file, name) as image, _refusing(name):
        return image.convert("RGB")


def decode_array(content: bytes, name: str) -> Array:
    """The array in the content of an .npy file. Raises `DataError` where it holds none."""
    try:
        values: Array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise DataError(f"cannot read {name}: {error}", hint="expected an .npy array") from error
    return values


def image_geometry(file: Picture, preprocessing: Preprocessing, name: str) -> Geometry:
    """Where the pixels of an image go; only its header is read. Raises as `decode_image`."""
    with opened(file, name) as image:
        return _geometry(image, preprocessing, name)


def _geometry(image: Image.Image, preprocessing: Preprocessing, name: str) -> Geometry:
    with _refusing(name):
        sides = preprocessing.sides(image)
    with _unfit(name):
        return preprocessing.geometry(sides)


@contextmanager
def _unfit(name: str) -> Iterator[None]:
    """Turn what `Preprocessing` raises for an image into a `DataError` that names it."""
    try:
        yield
    except PixelError as error:
        raise DataError(
            f"cannot preprocess {name}: {error}",
            hint="save it with 8 or 16 bits, or give arrays, such as an .npz file",
        ) from error
    except ValueError as error:
        raise DataError(
            f"cannot preprocess {name}: {error}",
            hint="repair or remove the image, or pass other sizes to --preprocess",
        ) from error


@contextmanager
def opened(file: Picture, name: str) -> Iterator[Image.Image]:
    """An image whose header is read and whose number of pixels is sensible."""
    if isinstance(file, Image.Image):
        yield file
        return
    with _refusing(name):
        image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS)
    with image:
        # Beyond its limit Pillow at first only warns.
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise _undecodable(
                f"{image.height}×{image.width} pixels are more than the {limit} allowed", name
            )
        yield image


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn the many ways a damaged image shows into a `DataError` that names it."""
    try:
        yield
    except _UNDECODABLE as error:
        # Pillow's messages may end in the path once more, or in an address.
        reason = re.split(r" ['<]", str(error))[0].rstrip(".") or type(error).__name__
        raise _undecodable(reason, name) from error


def _undecodable(reason: str, name: str) -> DataError:
    return DataError(f"cannot decode {name}: {reason}", hint="repair or remove the image")
