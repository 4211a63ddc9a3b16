"""A folder of images, or of class folders of images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxq.data.ahead import map_ahead
from onnxq.data.batching import BatchAxes, Sample
from onnxq.data.decode import decode_image, image_geometry
from onnxq.data.fingerprint import combine
from onnxq.data.folders import ImageFile, find_images, spread
from onnxq.data.image_input import for_input, picture_axes, require_one_input
from onnxq.data.source import Batch, DataSource, Labels, collect, spans
from onnxq.errors import DataError
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnxq.data.classes import Classes
    from onnxq.data.geometry import Geometry
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images by class and name; each is decoded when its batch comes near.

    Attributes:
        doubt: why the labels cannot be class indices of the model's; None where they can.
    """

    spec: str
    inputs: tuple[TensorSpec, ...]
    axes: BatchAxes
    files: tuple[Path, ...]
    labels: Labels | None
    preprocessing: Preprocessing
    note: str = ""
    doubt: Refusal | None = None

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

    def geometry(self, index: int) -> Geometry:
        """Where the pixels of sample `index` went; only the header of its file is read."""
        file = self.files[index]
        return image_geometry(file, self.preprocessing, str(file))

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
    classes: Classes | None = None,
) -> ImageSource:
    """The images `find_images` finds, or `samples` of them, spread over the classes.

    Raises `DataError` where it does, and where the preprocessing is missing or gives another
    shape than the model's one input.
    """
    found, doubt = find_images(folder, classes)
    return images_of(
        found, spec, inputs, axes, preprocessing=preprocessing, samples=samples, doubt=doubt
    )


def images_of(
    found: list[ImageFile],
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    preprocessing: Preprocessing | None,
    samples: int | None = None,
    doubt: Refusal | None = None,
) -> ImageSource:
    """These images, or `samples` of them, spread over the classes; see `open_images`."""
    require_one_input(inputs, spec)
    preprocessing = for_input(preprocessing, inputs[0], spec)
    axes = picture_axes(preprocessing, inputs[0], axes)
    chosen = found if samples is None else spread(found, samples)
    return ImageSource(
        spec,
        tuple(inputs),
        axes,
        tuple(image.path for image in chosen),
        _labels(chosen),
        preprocessing,
        doubt=doubt,
    )


def require_labels(source: DataSource, purpose: str) -> None:
    """Raise `DataError` unless the data have labels that can be class indices of the model's.

    Args:
        purpose: what needs them, in messages: "top1".
    """
    if not source.has_labels:
        raise DataError(
            f"{source.spec}: {purpose} needs labels and the data have none",
            hint="use class folders or a labels array, or --metric sqnr",
        )
    doubt: Refusal | None = getattr(source, "doubt", None)
    if doubt is not None:
        raise DataError(
            f"{source.spec}: {purpose} needs labels: {doubt}",
            hint="begin each folder's name with its class index; onnxq validate also takes "
            "--classes FILE, the names of all classes in the model's order, or --metric sqnr",
        )


def _labels(images: Sequence[ImageFile]) -> Labels | None:
    labels = [image.label for image in images if image.label is not None]
    return np.array(labels, np.int64) if labels and len(labels) == len(images) else None


def _digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
