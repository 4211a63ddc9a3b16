"""Parquet files, and Hugging Face datasets on disk (`save_to_disk`), through pyarrow.

A column holds the images of a one-input model, as bytes or as the struct {bytes, path} of Hugging
Face; or there is a column for each input, of numbers or of nested lists of one shape. A column
`label` or `labels` of integers holds class indices.
"""

from __future__ import annotations

import bisect
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.extras import require
from onnxq.data.records import Record, RecordSource, as_labels
from onnxq.errors import DataError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.batching import BatchAxes
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

EXTRA = "parquet"
LABELS = ("label", "labels")
STATE = "state.json"
"""The file by which a Hugging Face dataset on disk is known."""


@dataclass(frozen=True)
class TableReader:
    """Rows of parquet or arrow files.

    Attributes:
        starts: index of the first row of each chunk, and at last the number of rows.
        chunks: for each chunk its file and its number there.
        columns: input name → column and kind, "image" or "npy".
    """

    spec: str
    starts: tuple[int, ...]
    chunks: tuple[tuple[Path, int], ...]
    columns: dict[str, tuple[str, str]]

    def name(self, index: int) -> str:
        return f"{self.spec}[{index}]"

    def read(self, indices: Iterable[int]) -> Iterator[Record]:
        # Ascending, so that each chunk is read once and only one is in memory.
        by_chunk = itertools.groupby(indices, lambda i: bisect.bisect_right(self.starts, i) - 1)
        names = [column for column, _ in self.columns.values()]
        for number, group in by_chunk:
            file, chunk = self.chunks[number]
            table = _read_chunk(file, chunk, names)
            for index in group:
                row = index - self.starts[number]
                fields = {
                    name: (
                        kind,
                        _content(table.column(column)[row].as_py(), kind, self.name(index)),
                    )
                    for name, (column, kind) in self.columns.items()
                }
                yield Record(self.name(index), fields)


def is_dataset(folder: Path) -> bool:
    """Whether the folder is a Hugging Face dataset on disk."""
    return (folder / STATE).is_file() and (folder / "dataset_info.json").is_file()


def open_table(
    path: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
) -> RecordSource:
    """The rows of a parquet file or of a dataset folder, the first `samples` of them.

    Raises `DataError` where it is damaged or a column for an input is missing.
    """
    files = _dataset_files(path) if path.is_dir() else [path]
    chunks = [chunk for file in files for chunk in _chunks(file)]
    starts = tuple(itertools.accumulate((rows for *_, rows in chunks), initial=0))
    if not starts[-1]:
        raise DataError(f"{spec} holds no samples")
    count = min(samples or starts[-1], starts[-1])
    schema = _schema(files[0])
    columns = _match(schema, inputs, spec)
    if any(kind == "image" for _, kind in columns.values()):
        from onnxq.data.image_input import for_input, picture_axes, require_one_input

        require_one_input(inputs, spec)
        preprocessing = for_input(preprocessing, inputs[0], spec)
        axes = picture_axes(preprocessing, inputs[0], axes)
    else:
        preprocessing = None
    places = tuple((file, number) for file, number, _ in chunks)
    reader = TableReader(spec, starts, places, columns)
    labels = _labels(places, schema, count, spec)
    return RecordSource(spec, tuple(inputs), axes, count, labels, reader, preprocessing)


def _dataset_files(folder: Path) -> list[Path]:
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {folder / STATE}: {error}") from error
    if state.get("_indices_files") or not names:
        raise DataError(
            f"{folder} is a selection of a dataset", hint="call flatten_indices() before saving it"
        )
    if any(Path(name).name != name for name in names):
        raise DataError(f"{folder} names files outside of it")
    return [folder / name for name in names]


def _chunks(file: Path) -> list[tuple[Path, int, int]]:
    """File, number and rows of each chunk."""
    with _refusing(file):
        if _is_arrow(file):
            with _arrow(file) as stream:
                return [(file, i, batch.num_rows) for i, batch in enumerate(stream)]
        meta = require("pyarrow.parquet", EXTRA).ParquetFile(file).metadata
        return [(file, i, meta.row_group(i).num_rows) for i in range(meta.num_row_groups)]


def _read_chunk(file: Path, number: int, columns: list[str]) -> Any:
    with _refusing(file):
        if _is_arrow(file):
            with _arrow(file) as stream:
                batch = next(itertools.islice(stream, number, None))
                return batch.select(columns)
        parquet = require("pyarrow.parquet", EXTRA).ParquetFile(file)
        return parquet.read_row_group(number, columns=columns)


def _schema(file: Path) -> Any:
    with _refusing(file):
        if _is_arrow(file):
            with _arrow(file) as stream:
                return stream.schema
        return require("pyarrow.parquet", EXTRA).ParquetFile(file).schema_arrow


def _is_arrow(file: Path) -> bool:
    return file.suffix == ".arrow"


def _arrow(file: Path) -> Any:
    """The batches of an arrow stream, mapped, not read."""
    pyarrow = require("pyarrow", EXTRA)
    return require("pyarrow.ipc", EXTRA).open_stream(pyarrow.memory_map(str(file)))


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Turn pyarrow's errors into a `DataError` that names the file."""
    errors = (require("pyarrow", EXTRA).ArrowException, OSError, StopIteration)
    try:
        yield
    except errors as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"cannot read {file}: {reason}") from error


def _match(schema: Any, inputs: Sequence[TensorSpec], spec: str) -> dict[str, tuple[str, str]]:
    names = [name for name in schema.names if name not in LABELS]
    result = {}
    for item in inputs:
        column = item.name if item.name in names else None
        images = [name for name in names if _is_image(schema.field(name).type)]
        if column is None and len(inputs) == 1:
            column = next(iter(images or names), None) if len(images or names) == 1 else None
        if column is None:
            raise DataError(
                f"{spec} has no column for input {item.name!r}",
                hint=suggest(item.name, names, of="its columns"),
            )
        result[item.name] = column, "image" if column in images else "npy"
    return result


def _is_image(kind: Any) -> bool:
    types = require("pyarrow.types", EXTRA)
    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _content(value: Any, kind: str, name: str) -> bytes:
    """A cell as the content of an image file or of an .npy file."""
    if kind == "image":
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(
                f"{name} holds no image bytes", hint="save the images in the dataset, not paths"
            )
        return content
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} is no array: {error}") from error
    if array.dtype.kind not in "biufU":
        raise DataError(f"{name} holds {array.dtype} values, numbers or text expected")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def _labels(places: Sequence[tuple[Path, int]], schema: Any, count: int, spec: str) -> Any:
    types = require("pyarrow.types", EXTRA)
    found = [n for n in LABELS if n in schema.names and types.is_integer(schema.field(n).type)]
    if not found:
        return None
    values: list[int | None] = []
    for file, number in places:
        if len(values) >= count:
            break
        values += _read_chunk(file, number, found[:1]).column(found[0]).to_pylist()
    return as_labels(values[:count], spec)
