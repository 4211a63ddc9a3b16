"""Texts as data: lines of a .txt file, a field of a .jsonl file, a column of a parquet file.

Each is one sample of its own length; samples of one length that follow each other share a batch.
Files are read anew for each pass, so memory does not grow with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxq.data.extras import require
from onnxq.data.fingerprint import combine, sample_digests
from onnxq.data.records import as_labels
from onnxq.data.source import Batch, Labels, chosen, collect, spans
from onnxq.data.tokenizing import Tokenization, Tokenizer, open_tokenizer
from onnxq.errors import DataError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.batching import BatchAxes, Sample
    from onnxq.model.model import TensorSpec

FIELD = "text"
"""Field or column that holds the texts, where none is named."""

LABELS = ("label", "labels")

Row = tuple[str, int | None, str]
"""A text, its label if it has one, and where it stands."""

_NAMED = re.compile(r"(?P<path>.+\.(?:jsonl|parquet)):(?P<field>[^/\\:]+)", re.IGNORECASE)


def parse_texts(spec: str, *, tokenized: bool) -> tuple[Path, str] | None:
    """File and field that a `--data` names; None where it names no texts.

    Args:
        tokenized: whether there is a tokenizer: a table may hold other things than texts.
    """
    named = _NAMED.fullmatch(spec)
    path, field = (Path(spec), FIELD) if named is None else (Path(named["path"]), named["field"])
    suffix = path.suffix.lower()
    # A table's column can only be named for texts.
    known = suffix in READERS and (suffix != ".parquet" or tokenized or named is not None)
    return (path, field) if known and not path.is_dir() else None


@dataclass(frozen=True, eq=False)
class TextSource:
    """Texts as a tokenizer makes them samples."""

    spec: str
    inputs: tuple[TensorSpec, ...]
    axes: BatchAxes
    path: Path
    field: str
    tokenizer: Tokenizer
    limit: int | None = None
    note: str = ""

    @property
    def count(self) -> int:
        return self._scan[0]

    @property
    def labels(self) -> Labels | None:
        return self._scan[1]

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @property
    def preprocessing(self) -> Tokenization:
        """The tokenizer, on record."""
        return self.tokenizer.record

    @cached_property
    def fingerprint(self) -> str:
        return combine(sample_digests(self.batches(1)))

    @cached_property
    def _scan(self) -> tuple[int, Labels | None]:
        labels = [label for _, label, _ in self._rows()]
        if not labels:
            raise DataError(f"{self.spec} holds no texts")
        return len(labels), as_labels(labels, self.spec)

    def sample_name(self, index: int) -> str:
        return f"{self.spec}[{index}]"

    def text(self, index: int) -> str:
        """What sample `index` says."""
        return next(text for text, _, _ in islice(self._rows(), index, None))

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
        yield from collect(self._samples(ranges), ranges, self.axes, self.labels)

    def _samples(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Sample]:
        missing = f"{self.spec} holds fewer texts than when it was first read"
        for text, _, where in chosen(self._rows(), ranges, missing):
            yield self.tokenizer.sample(text, where)

    def _rows(self) -> Iterator[Row]:
        read = READERS[self.path.suffix.lower()]
        try:
            yield from islice(read(self.path, self.field), self.limit)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.spec} is no UTF-8 text: {error}") from error
        except OSError as error:
            raise DataError(f"cannot read {self.spec}: {error.strerror or error}") from error


def open_texts(
    found: tuple[Path, str],
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    tokenizer: Path | None,
    samples: int | None = None,
) -> TextSource:
    """The texts of a file, the first `samples` of them.

    Args:
        found: see `parse_texts`.

    Raises:
        UsageError, DataError: as `open_tokenizer`; the file cannot be read.
    """
    opened = open_tokenizer(tokenizer, spec, inputs)
    uncounted = any(axes.inputs.get(item.name) is None for item in inputs)
    if uncounted or (opened.length is None and axes.fixed not in {None, 1}):
        raise DataError(
            f"{spec}: the model takes a fixed number of samples at once, which texts of their own "
            "length cannot fill",
            hint="export the model with a dynamic batch, or with a fixed number of tokens",
        )
    return TextSource(spec, tuple(inputs), axes, *found, opened, samples)


# --- readers -------------------------------------------------------------------------------------


def _lines(path: Path, _field: str) -> Iterator[Row]:
    """The lines that are not blank."""
    for number, line in _numbered(path):
        yield line, None, f"{path}:{number}"


def _json_lines(path: Path, field: str) -> Iterator[Row]:
    """One field of the object in each line that is not blank; `label` may hold its class."""
    for number, line in _numbered(path):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # what is no JSON, or nobody can hold
            raise DataError(f"{where} is no JSON: {error}") from error
        if isinstance(row, str):
            row = {FIELD: row}
        if not isinstance(row, dict):
            raise DataError(f"{where} is a {type(row).__name__}, an object expected")
        yield _checked(row, field, where), _label(row), where


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line.strip()


def _table(path: Path, field: str) -> Iterator[Row]:
    """One column of a parquet file."""
    arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if field not in names:
            hint = suggest(field, names, of="its columns")
            raise DataError(f"{path} has no column {field!r}", hint=hint)
        columns = [field, *(name for name in LABELS if name in names)]
        rows = (row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist())
        for number, row in enumerate(rows):
            where = f"{path}[{number}]"
            yield _checked(row, field, where), _label(row), where
    except arrow.ArrowException as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"cannot read {path}: {reason}") from error


def _checked(row: Mapping[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise DataError(
            f"{where} has no field {field!r}",
            hint=suggest(field, row, of="its fields") or "name it: FILE.jsonl:field",
        )
    if not isinstance(row[field], str):
        raise DataError(f"{where}: {field!r} is {row[field]!r:.40}, a text expected")
    try:
        row[field].encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {field!r} is no Unicode text: {error}") from error
    return str(row[field])


def _label(row: Mapping[str, Any]) -> int | None:
    values = (row[name] for name in LABELS if name in row)
    return next((each for each in values if type(each) is int), None)


READERS: Mapping[str, Callable[[Path, str], Iterator[Row]]] = MappingProxyType(
    {".txt": _lines, ".jsonl": _json_lines, ".parquet": _table}
)
