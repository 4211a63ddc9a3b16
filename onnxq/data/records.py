"""Samples that lie as encoded records in one file: WebDataset tar, images in parquet or arrow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from onnxq.data.ahead import map_ahead
from onnxq.data.batching import BatchAxes, Sample
from onnxq.data.fingerprint import combine
from onnxq.data.layouts import sample_of
from onnxq.data.source import Batch, Labels, collect, spans
from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.geometry import Geometry
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec


class Record(NamedTuple):
    """One sample as it is stored.

    Attributes:
        name: what to call it in messages.
        fields: for each model input the kind of its content ("image" or "npy") and its bytes.
    """

    name: str
    fields: dict[str, tuple[str, bytes]]


class Reader(Protocol):
    """Where the records are. It is picklable and can be read any number of times."""

    def name(self, index: int) -> str: ...

    def read(self, indices: Iterable[int]) -> Iterator[Record]:
        """The records of these indices, which ascend."""
        ...


@dataclass(frozen=True, eq=False)
class RecordSource:
    """The samples of a `Reader`, decoded in threads."""

    spec: str
    inputs: tuple[TensorSpec, ...]
    axes: BatchAxes
    count: int
    labels: Labels | None
    reader: Reader
    preprocessing: Preprocessing | None
    note: str = ""

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @cached_property
    def fingerprint(self) -> str:
        """That of a folder of images where the records hold nothing else."""
        digests = (_digest(record) for record in self.reader.read(range(self.count)))
        return combine(digests, self.preprocessing)

    def sample_name(self, index: int) -> str:
        return self.reader.name(index)

    def geometry(self, index: int) -> Geometry | None:
        """Where the pixels of sample `index` went; None where it is no image."""
        if self.preprocessing is None:
            return None
        from onnxq.data.decode import image_geometry

        (record,) = self.reader.read([index])
        for kind, content in record.fields.values():
            if kind == "image":
                return image_geometry(content, self.preprocessing, record.name)
        return None

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
        indices = (index for begin, end in ranges for index in range(begin, end))
        samples = map_ahead(self._decode, self.reader.read(indices))
        yield from collect(samples, ranges, self.axes, self.labels)

    def _decode(self, record: Record) -> Sample:
        # Pillow is imported only where there are images.
        from onnxq.data.decode import decode_array, decode_image

        sample = {}
        for spec in self.inputs:
            kind, content = record.fields[spec.name]
            if kind == "image" and self.preprocessing is not None:
                sample[spec.name] = decode_image(content, self.preprocessing, spec, record.name)
            else:
                values = decode_array(content, record.name)
                sample[spec.name] = sample_of(values, spec, self.axes, record.name)
        return sample


def _digest(record: Record) -> bytes:
    """Of a single field its content's, as of a file."""
    if len(record.fields) == 1:
        ((_, content),) = record.fields.values()
        return hashlib.sha256(content).digest()
    digest = hashlib.sha256()
    for name in sorted(record.fields):
        content = record.fields[name][1]
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.digest()


def as_labels(values: Sequence[int | None], spec: str) -> Labels | None:
    """The labels, where every sample has one.

    Raises:
        DataError: one is too large for an index, as a number that names the sample may be.
    """
    import numpy as np

    largest = np.iinfo(np.int64).max
    for index, value in enumerate(values):
        if value is not None and value > largest:
            raise DataError(f"{spec}[{index}]: the label {value} is no class index")
    known = [value for value in values if value is not None]
    return np.array(known, np.int64) if known and len(known) == len(values) else None
