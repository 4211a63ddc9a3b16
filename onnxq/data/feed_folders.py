"""Folders of whole feeds: `.npz` files, or `test_data_set_*` of serialized tensors `input_*.pb`.

Each file, or set of the ONNX model zoo, holds what the model is fed at once, batch axes included.
An `.npz` file may hold several feeds one after the other, along a first axis: a sequence of steps.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from onnxq.data.arrays import ArraySource, open_arrays
from onnxq.data.batching import Array, BatchAxes, Sample
from onnxq.data.fingerprint import combine, sample_digests
from onnxq.data.layouts import Holds
from onnxq.data.source import Batch, collect, spans
from onnxq.data.storage import Column, MemoryColumn, npz_columns
from onnxq.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

Read = Callable[["Path", Sequence["TensorSpec"]], Mapping[str, Column]]
"""Reads one file or set: an array for each input, by name."""


@dataclass(frozen=True, eq=False)
class FeedFolder:
    """The samples of all files or sets, in the order of their names and numbers.

    Attributes:
        paths: the files or sets.
        ends: for each of them the index after its last sample.
        read: reads one of them.
        optional: inputs that may be missing.
    """

    spec: str
    count: int
    inputs: tuple[TensorSpec, ...]
    axes: BatchAxes
    paths: tuple[Path, ...]
    ends: tuple[int, ...]
    read: Read
    optional: Collection[str] = ()
    note: str = ""
    has_labels: bool = False
    preprocessing: Preprocessing | None = None

    @cached_property
    def fingerprint(self) -> str:
        ranges = spans(self.count, replace(self.axes, fixed=None), 1)
        return combine(sample_digests(collect(self._samples(ranges), ranges, self.axes)))

    @property
    def starts(self) -> tuple[int, ...]:
        """The first sample of each file: each is a sequence of its own."""
        return (0, *(end for end in self.ends[:-1] if end < self.count))

    def sample_name(self, index: int) -> str:
        position, row = self._locate(index)
        first = self.ends[position - 1] if position else 0
        name = str(self.paths[position])
        return name if self.ends[position] - first == 1 else f"{name}[{row}]"

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
        yield from collect(self._samples(ranges), ranges, self.axes)

    def _locate(self, index: int) -> tuple[int, int]:
        """The file or set a sample is in, and its place there."""
        position = bisect.bisect_right(self.ends, index)
        return position, index - (self.ends[position - 1] if position else 0)

    def _samples(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Sample]:
        opened, samples = -1, list[Sample]()
        for index in (index for begin, end in ranges for index in range(begin, end)):
            position, row = self._locate(index)
            if position != opened:
                # Each file alone need not fill a batch.
                axes = replace(self.axes, fixed=None)
                path = self.paths[position]
                source = _open(path, self.read, self.inputs, axes, self.optional)
                opened = position
                samples = [batch.feeds.sample(0) for batch in source.batches(1)]
            yield samples[row]


def npz_files(folder: Path) -> tuple[Path, ...]:
    """The `.npz` files of a folder, by name."""
    return tuple(sorted(path for path in folder.glob("*.npz") if not path.name.startswith(".")))


def is_model_zoo(folder: Path) -> bool:
    """Whether the folder holds test data sets, or is one."""
    return bool(_sets(folder))


def open_feeds(
    folder: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    samples: int | None = None,
    optional: Collection[str] = (),
) -> FeedFolder:
    """The `.npz` files or test data sets in `folder`, or `folder` itself where it is a set.

    They tell which axes count samples, as far as the model leaves that open: the first one does,
    or one whose sizes show that none do.

    Raises `DataError` where a file is missing, unreadable or does not fit the model.
    """
    sets = _sets(folder)
    paths, read = (sets, _read_set) if sets else (npz_files(folder), _read_npz)

    def told(path: Path, axes: BatchAxes) -> tuple[BatchAxes, int]:
        opened = _open(path, read, inputs, axes, optional)
        return opened.axes, opened.count

    each = [told(path, axes) for path in paths]
    settled = next((its for its, _ in each if set(its.inputs.values()) == {None}), each[0][0])
    counts = [
        count if its == settled else told(path, settled)[1]
        for path, (its, count) in zip(paths, each, strict=True)
    ]
    ends = tuple(accumulate(counts))
    count = ends[-1] if samples is None else min(samples, ends[-1])
    return FeedFolder(spec, count, tuple(inputs), settled, paths, ends, read, optional)


def _open(
    path: Path,
    read: Read,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    optional: Collection[str],
) -> ArraySource:
    columns = read(path, inputs)
    return open_arrays(columns, str(path), inputs, axes, optional=optional, holds=Holds.FEED)


def _read_npz(path: Path, _inputs: Sequence[TensorSpec]) -> Mapping[str, Column]:
    return npz_columns(path)


def _sets(folder: Path) -> tuple[Path, ...]:
    if next(folder.glob("input_*.pb"), None):
        return (folder,)
    return tuple(
        sorted(
            (each for each in folder.glob("test_data_set_*") if each.is_dir()),
            key=lambda each: [int(part) for part in re.findall(r"[0-9]+", each.name)],
        )
    )


def _read_set(folder: Path, inputs: Sequence[TensorSpec]) -> Mapping[str, Column]:
    """The tensors of one set by input name."""
    expected = [f"input_{index}.pb" for index in range(len(inputs))]
    present = {path.name for path in folder.glob("input_*.pb")}
    if set(expected) != present:
        raise DataError(
            f"{folder} holds {len(present)} inputs ({', '.join(sorted(present))}), "
            f"the model has {len(inputs)}",
            hint=f"expected {', '.join(expected)}",
        )
    return {
        spec.name: MemoryColumn(_read_tensor(folder / name))
        for name, spec in zip(expected, inputs, strict=True)
    }


def _read_tensor(path: Path) -> Array:
    try:
        tensor: TensorProto = onnx.load_tensor(str(path))
        if tensor.data_location == TensorProto.EXTERNAL:
            raise DataError(f"{path} keeps its values in another file, which onnxq does not follow")
        return numpy_helper.to_array(tensor)
    except (OSError, DecodeError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"cannot read {path}: {reason}", hint="expected a serialized ONNX TensorProto"
        ) from error
