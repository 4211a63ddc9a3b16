"""A folder of images, or of class folders of images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxq.data.ahead import map_ahead
from onnxq.data.batching import BatchAxes, Sample
from onnxq.data.decode import check_images, decode_image, require_one_input
from onnxq.data.fingerprint import combine
from onnxq.data.folders import ImageFile, find_images, spread
from onnxq.data.source import Batch, Labels, collect, spans
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images by class and name; each is decoded when its batch comes near."""

    spec: str
    inputs: tuple[TensorSpec, ...]
    axes: BatchAxes
    files: tuple[Path, ...]
    labels: Labels | None
    preprocessing: Preprocessing
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
        ranges = spans(self.count, self.axes, batch_size, start, stop, first, step)
        files = (self.files[index] for begin, end in ranges for index in range(begin, end))
        samples = map_ahead(self._load, files)
        yield from collect(samples, ranges, self.axes, self.labels)

    def _load(self, file: Path) -> Sample:
        (spec,) = self.inputs
        return {spec.name: decode_image(file, self.preprocessing, spec, str(file))}


def open_images(
    folder: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    preprocessing: Preprocessing | None,
    samples: int | None = None,
) -> ImageSource:
    """The images `find_images` finds, or `samples` of them, spread over the classes.

    Raises `DataError` where it does, and where the preprocessing is missing or gives another
    shape than the model's one input.
    """
    require_one_input(inputs, spec)
    found = find_images(folder)
    preprocessing = check_images(preprocessing, inputs[0], spec)
    chosen = found if samples is None else spread(found, samples)
    return ImageSource(
        spec,
        tuple(inputs),
        axes,
        tuple(image.path for image in chosen),
        _labels(chosen),
        preprocessing,
    )


def _labels(images: Sequence[ImageFile]) -> Labels | None:
    labels = [image.label for image in images if image.label is not None]
    return np.array(labels, np.int64) if labels else None


def _digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
