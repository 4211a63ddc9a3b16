"""`file.py:function`: samples that a function of the user's yields, run because the user named it.

The function takes nothing and yields dicts: an array for each model input, without the batch axis,
and perhaps an integer `label`. It must yield the same samples each time it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.checks import check_finite, check_shape, convert
from onnxq.data.fingerprint import combine, sample_digests
from onnxq.data.records import as_labels
from onnxq.data.source import Batch, Labels, Sample, collect, spans
from onnxq.errors import DataError
from onnxq.python_files import load_callable
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

LABEL = "label"
_PATTERN = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


def parse_function(text: str) -> tuple[Path, str] | None:
    """File and function that a `--data` names; None where it names something else."""
    found = _PATTERN.fullmatch(text)
    return (Path(found[1]), found[2]) if found else None


@dataclass(frozen=True, eq=False)
class FunctionSource:
    """The samples a function yields; it is called anew for each reading."""

    spec: str
    inputs: tuple[TensorSpec, ...]
    path: Path
    function: str
    limit: int | None = None
    allow_nonfinite: bool = False
    note: str = ""
    preprocessing: Preprocessing | None = None

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
    def fingerprint(self) -> str:
        return self._scan[2]

    @cached_property
    def _scan(self) -> tuple[int, Labels | None, str]:
        """Number, labels and fingerprint of the samples: only a pass over them tells."""
        labels: list[int | None] = []

        def batches() -> Iterator[Batch]:
            for index, (sample, label) in enumerate(self._samples()):
                labels.append(label)
                yield Batch(index, {name: values[None] for name, values in sample.items()})

        fingerprint = combine(sample_digests(batches()))
        if not labels:
            raise DataError(f"{self.spec} yields no samples")
        return len(labels), as_labels(labels), fingerprint

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
        for batch in collect(self._chosen(ranges), ranges, self.labels):
            check_finite(batch, self, allow=self.allow_nonfinite)
            yield batch

    def _chosen(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Sample]:
        wanted = (index for begin, end in ranges for index in range(begin, end))
        target = next(wanted, None)
        for index, (sample, _) in enumerate(self._samples()):
            if target is None:
                return
            if index == target:
                yield sample
                target = next(wanted, None)
        if target is not None:
            raise DataError(f"{self.spec} yields fewer samples than when it was first called")

    def _samples(self) -> Iterator[tuple[Sample, int | None]]:
        yielded = iter(self._call())
        index = 0
        while self.limit is None or index < self.limit:
            try:
                item = next(yielded)
            except StopIteration:
                return
            except Exception as error:  # what a user's code raises
                raise DataError(
                    f"{self.spec} failed at sample {index}: {type(error).__name__}: {error}"
                ) from error
            yield self._checked(item, self.sample_name(index))
            index += 1

    def _call(self) -> Iterable[Any]:
        function = load_callable(self.path, self.function)
        if isinstance(function, Refusal):
            raise DataError(function.reason)
        try:
            found = function()
            iter(found)
        except Exception as error:
            raise DataError(f"{self.spec} failed: {type(error).__name__}: {error}") from error
        return found  # type: ignore[no-any-return]

    def _checked(self, item: Any, name: str) -> tuple[Sample, int | None]:
        if not isinstance(item, Mapping):
            raise DataError(f"{name} is a {type(item).__name__}, a dict expected")
        sample = {}
        for spec in self.inputs:
            if spec.name not in item:
                raise DataError(f"{name} has no array for input {spec.name!r}")
            values = np.asarray(item[spec.name])
            check_shape((1, *values.shape), spec, name, hint="leave the batch axis out")
            sample[spec.name] = convert(values, spec, name)
        label = item.get(LABEL)
        return sample, None if label is None else int(label)
