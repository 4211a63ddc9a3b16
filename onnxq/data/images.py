"""A folder of images, or of class folders of images."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from onnxq.data.checks import check_finite, check_shape, convert
from onnxq.data.fingerprint import combine
from onnxq.data.folders import ImageFile, find_images, spread
from onnxq.data.source import Array, Batch, Labels, Sample, collect, spans
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

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

_WORKERS = min(4, os.cpu_count() or 1)
_AHEAD = 4 * _WORKERS
"""How many images are decoded before they are asked for."""


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images by class and name; each is decoded when its batch comes near."""

    spec: str
    inputs: tuple[TensorSpec, ...]
    files: tuple[Path, ...]
    labels: Labels | None
    preprocessing: Preprocessing
    allow_nonfinite: bool = False
    note: str = ""

    @property
    def count(self) -> int:
        return len(self.files)

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @cached_property
    def fingerprint(self) -> str:
        return combine((_digest(file) for file in self.files), self.preprocessing)

    def sample_name(self, index: int) -> str:
        return str(self.files[index])

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        stop: int | None = None,
        first: int = 0,
        step: int = 1,
    ) -> Iterator[Batch]:
        ranges = spans(self.count, self.inputs, batch_size, start, stop, first, step)
        samples = self._samples([self.files[i] for begin, end in ranges for i in range(begin, end)])
        for batch in collect(samples, ranges, self.labels):
            check_finite(batch, self, allow=self.allow_nonfinite)
            yield batch

    def _samples(self, files: Sequence[Path]) -> Iterator[Sample]:
        """The decoded files in order, at most `_AHEAD` of them in memory."""
        (spec,) = self.inputs
        with ThreadPoolExecutor(_WORKERS, "decode") as pool:
            pending: deque[Future[Array]] = deque()
            try:
                for file in files:
                    pending.append(pool.submit(_load, file, self.preprocessing, spec))
                    if len(pending) > _AHEAD:
                        yield {spec.name: pending.popleft().result()}
                while pending:
                    yield {spec.name: pending.popleft().result()}
            finally:
                for future in pending:
                    future.cancel()


def open_images(
    folder: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    *,
    preprocessing: Preprocessing | None,
    samples: int | None = None,
    allow_nonfinite: bool = False,
) -> ImageSource:
    """The images `find_images` finds, or `samples` of them, spread over the classes.

    Raises `DataError` where it does, and where the preprocessing is missing or gives another
    shape than the model's one input.
    """
    if len(inputs) != 1:
        raise DataError(
            f"{spec}: images feed one input, the model has {len(inputs)}: "
            f"{', '.join(repr(item.name) for item in inputs)}",
            hint="give an .npz file with one array for each input",
        )
    found = find_images(folder)
    if preprocessing is None:
        raise DataError(
            f"{spec}: images need preprocessing",
            hint='pass --preprocess imagenet|tf|unit or "resize=96,crop=96,mean=0.5,std=0.5"',
        )
    _check_model(preprocessing, inputs[0], spec)
    chosen = found if samples is None else spread(found, samples)
    return ImageSource(
        spec,
        tuple(inputs),
        tuple(image.path for image in chosen),
        _labels(chosen),
        preprocessing,
        allow_nonfinite,
    )


def _labels(images: Sequence[ImageFile]) -> Labels | None:
    labels = [image.label for image in images if image.label is not None]
    return np.array(labels, np.int64) if labels else None


def _check_model(preprocessing: Preprocessing, spec: TensorSpec, where: str) -> None:
    """Raise `DataError` where the preprocessing cannot fit the model, whatever the images."""
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


def _load(file: Path, preprocessing: Preprocessing, spec: TensorSpec) -> Array:
    """One sample, without the batch axis."""
    try:
        values = preprocessing.apply(_decode(file))
    except ValueError as error:
        raise DataError(
            f"cannot preprocess {file}: {error}",
            hint="repair or remove the image, or pass other sizes to --preprocess",
        ) from error
    check_shape((1, *values.shape), spec, str(file), hint=_size_hint(preprocessing, spec))
    return convert(values, spec, str(file))


def _decode(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            # Beyond its limit Pillow at first only warns.
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ValueError(
                    f"{image.height}×{image.width} pixels are more than the {limit} allowed"
                )
            image.load()
            return image
    except _UNDECODABLE as error:
        # Pillow's messages may end in the path once more, or in an address.
        reason = re.split(r" ['<]", str(error))[0].rstrip(".") or type(error).__name__
        raise DataError(
            f"cannot decode {file}: {reason}", hint="repair or remove the image"
        ) from error


def _digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
