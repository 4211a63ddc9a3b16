"""Arrays as data: .npz and .npy files, and arrays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.checks import check_dtype, check_finite, check_shape, convert, sizes
from onnxq.data.fingerprint import combine, sample_digests
from onnxq.data.source import Array, Batch, Labels, spans
from onnxq.data.storage import Column, MemoryColumn, npy_column, npz_columns
from onnxq.errors import DataError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

LABELS = "labels"
"""The array that holds the class indices."""

IN_MEMORY = "<memory>"
"""The `spec` of arrays that came from no file."""


@dataclass(frozen=True, eq=False)
class ArraySource:
    """One array for each model input; row i of all of them is sample i."""

    spec: str
    count: int
    inputs: tuple[TensorSpec, ...]
    columns: Mapping[str, Column]
    labels: Labels | None
    allow_nonfinite: bool = False
    note: str = ""
    preprocessing: Preprocessing | None = None

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @cached_property
    def fingerprint(self) -> str:
        return combine(sample_digests(self._read(spans(self.count, self.inputs, 16))))

    def sample_name(self, index: int) -> str:
        return f"{self.spec}[{index}]"

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
        for batch in self._read(ranges):
            check_finite(batch, self, allow=self.allow_nonfinite)
            yield batch

    def _read(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Batch]:
        streams = [self.columns[spec.name].rows(ranges) for spec in self.inputs]
        for (begin, end), *parts in zip(ranges, *streams, strict=True):
            feeds = {
                spec.name: convert(part, spec, self.spec)
                for spec, part in zip(self.inputs, parts, strict=True)
            }
            labels = None if self.labels is None else self.labels[begin:end]
            yield Batch(begin, feeds, labels)


def open_npz(
    path: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    *,
    samples: int | None = None,
    allow_nonfinite: bool = False,
) -> ArraySource:
    """The arrays of an .npz archive: one for each input by name, and perhaps `labels`.

    Raises `DataError` where an array is missing, unknown, unreadable or does not fit.
    """
    columns = npz_columns(path)
    return _open(columns, spec, inputs, samples=samples, allow_nonfinite=allow_nonfinite)


def open_npy(
    path: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    *,
    samples: int | None = None,
    allow_nonfinite: bool = False,
) -> ArraySource:
    """The array of an .npy file, for a model of one input. Raises `DataError` as `open_npz`."""
    columns = {path.stem: npy_column(path)}
    return _open(columns, spec, inputs, samples=samples, allow_nonfinite=allow_nonfinite)


def open_hdf5(
    path: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    *,
    samples: int | None = None,
    allow_nonfinite: bool = False,
) -> ArraySource:
    """The data sets of an HDF5 file, named as the arrays of an .npz. Raises as `open_npz`."""
    from onnxq.data.hdf5 import hdf5_columns

    columns = hdf5_columns(path)
    return _open(columns, spec, inputs, samples=samples, allow_nonfinite=allow_nonfinite)


def open_memory(
    data: Array | Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    *,
    samples: int | None = None,
    allow_nonfinite: bool = False,
) -> ArraySource:
    """Arrays in memory, named as in an .npz archive, or one for the model's only input."""
    arrays = data if isinstance(data, Mapping) else {inputs[0].name: data}
    columns = {name: MemoryColumn(np.asarray(array)) for name, array in arrays.items()}
    return _open(columns, IN_MEMORY, inputs, samples=samples, allow_nonfinite=allow_nonfinite)


def _open(
    columns: Mapping[str, Column],
    spec: str,
    inputs: Sequence[TensorSpec],
    *,
    samples: int | None,
    allow_nonfinite: bool,
) -> ArraySource:
    found = dict(columns)
    takes_labels = any(item.name == LABELS for item in inputs)
    label_column = None if takes_labels else found.pop(LABELS, None)
    matched = _match(found, spec, inputs)
    for item in inputs:
        check_dtype(matched[item.name].dtype, item, spec)
        check_shape(matched[item.name].shape, item, spec)
    total = _common_count(
        matched if label_column is None else matched | {LABELS: label_column}, spec
    )
    count = total if samples is None else min(samples, total)
    labels = None if label_column is None else _read_labels(label_column, spec)[:count]
    return ArraySource(spec, count, tuple(inputs), matched, labels, allow_nonfinite)


def _match(
    columns: dict[str, Column], spec: str, inputs: Sequence[TensorSpec]
) -> dict[str, Column]:
    """The columns by input name. A single one fits a one-input model whatever its name."""
    if len(inputs) == len(columns) == 1:
        return {inputs[0].name: next(iter(columns.values()))}
    wanted = [item.name for item in inputs]
    unknown = [name for name in columns if name not in wanted]
    for name in wanted:
        if name not in columns:
            raise DataError(
                f"{spec} has no array for input {name!r}",
                hint=suggest(name, unknown, of="its other arrays")
                or f"name one array for each input: {', '.join(wanted)}",
            )
    if unknown:
        raise DataError(
            f"{spec}: array {unknown[0]!r} is no input of the model",
            hint=suggest(unknown[0], [*wanted, LABELS], of="the names it can have"),
        )
    return columns


def _common_count(columns: Mapping[str, Column], spec: str) -> int:
    counts = {name: column.shape[0] for name, column in columns.items() if column.shape}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise DataError(
            f"{spec}: the arrays disagree on the number of samples: {found}",
            hint="the first axis of every array counts the samples",
        )
    count = next(iter(counts.values()))
    if not count:
        raise DataError(f"{spec} holds no samples")
    return count


def _read_labels(column: Column, spec: str) -> Labels:
    """The labels as int64[samples]; a column of them, samples×1, is accepted."""
    shape: tuple[int, ...] = column.shape
    if len(shape) != 1 and shape[1:] != (1,):
        raise DataError(
            f"{spec}: {LABELS!r} has shape {sizes(shape)}, expected one class index a sample",
            hint="turn one-hot labels into indices with .argmax(axis=1)",
        )
    if column.dtype.kind not in "iu":
        raise DataError(f"{spec}: {LABELS!r} is {column.dtype.name}, integers expected")
    (values,) = column.rows([(0, shape[0])])
    return _checked_labels(values.reshape(-1), spec)


def _checked_labels(values: np.ndarray[Any, np.dtype[Any]], spec: str) -> Labels:
    wrong = (values < 0) | (values > np.iinfo(np.int64).max)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{spec}[{row}]: the label {values[row]} is no class index")
    return values.astype(np.int64)
