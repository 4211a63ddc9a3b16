"""Test data of the ONNX model zoo: folders `test_data_set_*` of serialized tensors `input_*.pb`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from onnxq.data.checks import check_finite, check_shape, convert
from onnxq.data.fingerprint import combine, sample_digests
from onnxq.data.source import Array, Batch, Sample, collect, spans
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec


@dataclass(frozen=True, eq=False)
class ModelZooSource:
    """The samples of all sets, in the order of their numbers.

    A set holds one file for each model input, in the order of the inputs; axis 0 of its tensors
    counts samples. `ends` holds, for each set, the index after its last sample.
    """

    spec: str
    count: int
    inputs: tuple[TensorSpec, ...]
    folders: tuple[Path, ...]
    ends: tuple[int, ...]
    allow_nonfinite: bool = False
    note: str = ""
    has_labels: bool = False
    preprocessing: Preprocessing | None = None

    @cached_property
    def fingerprint(self) -> str:
        ranges = spans(self.count, self.inputs, 1)
        return combine(sample_digests(collect(self._samples(ranges), ranges)))

    def sample_name(self, index: int) -> str:
        position, row = self._locate(index)
        first = self.ends[position - 1] if position else 0
        name = str(self.folders[position])
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
        ranges = spans(self.count, self.inputs, batch_size, start, stop, first, step)
        for batch in collect(self._samples(ranges), ranges):
            check_finite(batch, self, allow=self.allow_nonfinite)
            yield batch

    def _locate(self, index: int) -> tuple[int, int]:
        """The set a sample is in, and its row there."""
        position = next(i for i, end in enumerate(self.ends) if index < end)
        return position, index - (self.ends[position - 1] if position else 0)

    def _samples(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Sample]:
        read, feeds = -1, dict[str, Array]()
        for index in (index for begin, end in ranges for index in range(begin, end)):
            position, row = self._locate(index)
            if position != read:
                read, feeds = position, _read_set(self.folders[position], self.inputs)
            yield {name: values[row] for name, values in feeds.items()}


def is_model_zoo(folder: Path) -> bool:
    """Whether the folder holds test data sets, or is one."""
    return bool(_sets(folder))


def open_model_zoo(
    folder: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    *,
    samples: int | None = None,
    allow_nonfinite: bool = False,
) -> ModelZooSource:
    """The test data sets in `folder`, or `folder` itself where it is one.

    Raises `DataError` where a file is missing, unreadable or does not fit its input.
    """
    folders = _sets(folder)
    counts = [len(next(iter(_read_set(each, inputs).values()))) for each in folders]
    ends = tuple(accumulate(counts))
    count = ends[-1] if samples is None else min(samples, ends[-1])
    if not count:
        raise DataError(f"{spec} holds no samples")
    return ModelZooSource(spec, count, tuple(inputs), folders, ends, allow_nonfinite)


def _sets(folder: Path) -> tuple[Path, ...]:
    if next(folder.glob("input_*.pb"), None):
        return (folder,)
    return tuple(
        sorted(
            (each for each in folder.glob("test_data_set_*") if each.is_dir()),
            key=lambda each: [int(part) for part in re.findall(r"[0-9]+", each.name)],
        )
    )


def _read_set(folder: Path, inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The tensors of one set by input name, in the model's element types."""
    expected = [f"input_{index}.pb" for index in range(len(inputs))]
    present = {path.name for path in folder.glob("input_*.pb")}
    if set(expected) != present:
        raise DataError(
            f"{folder} holds {len(present)} inputs ({', '.join(sorted(present))}), "
            f"the model has {len(inputs)}",
            hint=f"expected {', '.join(expected)}",
        )
    feeds = {}
    for name, spec in zip(expected, inputs, strict=True):
        values = _read_tensor(folder / name)
        check_shape(values.shape, spec, str(folder / name))
        feeds[spec.name] = convert(values, spec, str(folder / name))
    if len({len(values) for values in feeds.values()}) > 1:
        found = ", ".join(f"{name!r} has {len(values)}" for name, values in feeds.items())
        raise DataError(f"{folder}: the inputs disagree on the number of samples: {found}")
    return feeds


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
