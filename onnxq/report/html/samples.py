"""What the samples look like that came out worst: pictures as thumbnails, texts as text."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxq.data.around import SourceAround
from onnxq.data.source import DataSource
from onnxq.data.texts import TextSource
from onnxq.errors import OnnxqError
from onnxq.validation.by_sample import BySample

WORST = 6
"""Samples of each model."""

SIDE = 112
"""Pixels of a thumbnail's longer side."""

LONGEST = 400
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Sample:
    """One of the worst.

    Attributes:
        number: in the data, counted from 0.
        picture: a JPEG as a data address; "" for none.
        text: what was written; "" for none.
    """

    number: int
    name: str
    picture: str
    text: str


def worst_samples(source: DataSource, rows: Sequence[BySample]) -> tuple[Sample, ...]:
    """The worst of each model, each sample once, the worst of any first.

    Args:
        rows: of the quantized models.
    """
    errors: dict[int, float] = {}
    for row in rows:
        for number in row.worst(WORST):
            errors[number] = min(errors.get(number, np.inf), float(row.errors[number]))
    return tuple(_sample(source, number) for number in sorted(errors, key=errors.__getitem__))


def class_names(source: DataSource) -> Mapping[int, str]:
    """Class → the folder that its images lie in; {} for data without such folders."""
    inner = _inner(source)
    files, labels = getattr(inner, "files", ()), getattr(inner, "labels", None)
    if labels is None or not len(files):
        return {}
    pairs = zip(labels, files, strict=False)
    return {int(label): Path(file).parent.name for label, file in pairs}


def _inner(source: DataSource) -> DataSource:
    while isinstance(source, SourceAround):
        source = source.source
    return source


def _sample(source: DataSource, number: int) -> Sample:
    inner = _inner(source)
    name = source.sample_name(number)
    files = getattr(inner, "files", ())
    text = inner.text(number)[:LONGEST] if isinstance(inner, TextSource) else ""
    if number < len(files):
        with Image.open(files[number]) as image:
            return Sample(number, name, _thumbnail(image), text)
    return Sample(number, name, "" if text else _fed(source, number), text)


def _fed(source: DataSource, number: int) -> str:
    """What the model is fed, where that looks like a picture; "" where it does not."""
    if source.axes.fixed not in {None, 1}:
        return ""
    try:
        batch = next(iter(source.batches(1, start=number, stop=number + 1)))
    except (OnnxqError, StopIteration):
        return ""
    for values in batch.feeds.sample(0).values():
        pixels = _pixels(np.asarray(values))
        if pixels is not None:
            return _thumbnail(Image.fromarray(pixels))
    return ""


def _pixels(values: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Channels × height × width, or height × width × channels, stretched to 0…255."""
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        return None
    if values.shape[0] in {1, 3}:
        values = values.transpose(1, 2, 0)
    if values.shape[2] not in {1, 3} or min(values.shape[:2]) < 8:
        return None
    low, high = float(values.min()), float(values.max())
    stretched = (values.astype(np.float64) - low) * (255 / ((high - low) or 1.0))
    pixels: NDArray[np.uint8] = np.rint(stretched).astype(np.uint8)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _thumbnail(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
