"""Arrays as data: in .npz, .npy and HDF5 files, and in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.batching import Array, BatchAxes
from onnxq.data.checks import check_dtype, convert, sizes
from onnxq.data.fingerprint import combine, sample_digests
from onnxq.data.layouts import Holds, SampleColumn, arrange
from onnxq.data.source import Batch, Labels, collect, spans
from onnxq.data.storage import Column, MemoryColumn
from onnxq.errors import DataError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

LABELS = "labels"
"""The array that holds the class indices."""

IN_MEMORY = "<memory>"
"""The `spec` of arrays that came from no file."""


@dataclass(frozen=True, eq=False)
class ArraySource:
    """One array for each model input; the samples lie along an axis of it."""

    spec: str
    count: int
    inputs: tuple[TensorSpec, ...]
    axes: BatchAxes
    columns: Mapping[str, SampleColumn]
    labels: Labels | None
    note: str = ""
    preprocessing: Preprocessing | None = None

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @cached_property
    def fingerprint(self) -> str:
        return combine(sample_digests(self._read(spans(self.count, self.axes, 16))))

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
        yield from self._read(spans(self.count, self.axes, batch_size, start, stop, first, step))

    def _read(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Batch]:
        specs = [spec for spec in self.inputs if spec.name in self.columns]
        streams = [self.columns[spec.name].rows(ranges) for spec in specs]
        for span, *parts in zip(ranges, *streams, strict=True):
            found = zip(specs, parts, strict=True)
            arrays = {spec.name: convert(part, spec, self.spec) for spec, part in found}
            rows = range(span[1] - span[0])
            samples = ({name: part[row] for name, part in arrays.items()} for row in rows)
            yield from collect(samples, [span], self.axes, self.labels)


def memory_columns(
    data: Array | Mapping[str, Array], inputs: Sequence[TensorSpec]
) -> dict[str, Column]:
    """Arrays in memory, named as in an .npz archive, or one for the model's only input."""
    arrays = data if isinstance(data, Mapping) else {inputs[0].name: data}
    return {name: MemoryColumn(np.asarray(array)) for name, array in arrays.items()}


def open_arrays(
    columns: Mapping[str, Column],
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    samples: int | None = None,
    optional: Collection[str] = (),
    holds: Holds = Holds.ROWS,
) -> ArraySource:
    """One array for each input by name, and perhaps `labels`.

    Args:
        optional: inputs that there may be no array for.

    Raises:
        DataError: an array is missing, unknown, unreadable, or does not fit.
    """
    found = dict(columns)
    takes_labels = any(item.name == LABELS for item in inputs)
    label_column = None if takes_labels else found.pop(LABELS, None)
    matched = _match(found, spec, inputs, optional)
    for item in inputs:
        if item.name in matched:
            check_dtype(matched[item.name].dtype, item, spec)
    labels = None if label_column is None else _read_labels(label_column, spec)
    arranged = arrange(
        {name: column.shape for name, column in matched.items()}, inputs, axes, spec,
        holds=holds, labels=None if labels is None else len(labels),
    )  # fmt: skip
    count = arranged.count if samples is None else min(samples, arranged.count)
    placed = {n: SampleColumn(column, arranged.layouts[n]) for n, column in matched.items()}
    chosen = None if labels is None else labels[:count]
    return ArraySource(spec, count, tuple(inputs), arranged.axes, placed, chosen)


def _match(
    columns: dict[str, Column],
    spec: str,
    inputs: Sequence[TensorSpec],
    optional: Collection[str],
) -> dict[str, Column]:
    """The columns by input name. A single one fits a one-input model whatever its name."""
    needed = [item for item in inputs if item.name not in optional]
    if len(needed) == len(columns) == 1 and next(iter(columns)) not in optional:
        return {needed[0].name: next(iter(columns.values()))}
    wanted = [item.name for item in inputs]
    unknown = [name for name in columns if name not in wanted]
    for name in (item.name for item in needed):
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
