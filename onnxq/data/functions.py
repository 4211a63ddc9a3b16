"""Samples as dicts that the user's code yields, such as `file.py:function`, which the user named.

Each is a dict: an array for each model input, and perhaps an integer `label`. The arrays are one
sample, without the axis that counts samples, or what the model is fed at once, with it; rank and
shape tell. A list of dicts is a sequence of steps. The same samples must come each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.batching import Array, BatchAxes, Sample, stack
from onnxq.data.checks import convert
from onnxq.data.fingerprint import combine, sample_digest, sample_digests
from onnxq.data.layouts import Arrangement, Holds, SampleColumn, arrange
from onnxq.data.records import as_labels
from onnxq.data.source import Batch, Labels, chosen, collect, spans
from onnxq.data.storage import MemoryColumn
from onnxq.errors import DataError, OnnxqError
from onnxq.python_files import RAISED, brief, load_callable
from onnxq.refusal import Refusal
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

LABEL = "label"
Items = Callable[[], Iterable[Any]]
"""Begins anew what yields the samples, each time it is called."""

_PATTERN = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


def parse_function(text: str) -> tuple[Path, str] | None:
    """File and function that a `--data` names; None where it names something else."""
    found = _PATTERN.fullmatch(text)
    return (Path(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class FileFunction:
    """A function in a file, called anew each time."""

    path: Path
    name: str

    def __call__(self) -> Iterable[Any]:
        function = load_callable(self.path, self.name)
        if isinstance(function, Refusal):
            raise DataError(function.reason)
        return function()  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class FunctionSource:
    """The samples that `items` yields; it is called anew for each reading.

    Attributes:
        doubt: why the labels cannot be class indices of the model's; None where they can.
    """

    spec: str
    inputs: tuple[TensorSpec, ...]
    declared: BatchAxes
    items: Items
    limit: int | None = None
    optional: Collection[str] = ()
    note: str = ""
    preprocessing: Preprocessing | None = None
    doubt: Refusal | None = None

    @property
    def count(self) -> int:
        return self._scan.count

    @property
    def labels(self) -> Labels | None:
        return self._scan.labels

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @property
    def fingerprint(self) -> str:
        return self._scan.fingerprint

    @property
    def starts(self) -> tuple[int, ...]:
        """The first sample of each sequence, that is, list; of dicts there is one sequence."""
        return self._scan.starts

    @cached_property
    def first(self) -> Any:
        """The first dict, or what is yielded in its place."""
        for steps, _ in self._items():
            if steps:
                return steps[0]
        raise DataError(f"{self.spec} yields no samples")

    @cached_property
    def axes(self) -> BatchAxes:
        """Those that the declared shapes and the first item tell."""
        return self._arranged(self.first, self.sample_name(0), self.declared)[1].axes

    @cached_property
    def _scan(self) -> _Scan:
        """What only a pass over all samples tells."""
        labels: list[int | None] = []
        starts: list[int] = []

        def batches() -> Iterator[Batch]:
            for index, (sample, label, begins) in enumerate(self._samples()):
                labels.append(label)
                if begins:
                    starts.append(index)
                yield Batch(index, stack([sample], self.axes))

        digests = list(sample_digests(batches()))
        found = as_labels(labels, self.spec)
        return _Scan(len(labels), found, combine(digests), tuple(starts), tuple(digests))

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
        ranges = spans(self.count, self.axes, batch_size, start, stop, first, step)
        yield from collect(self._chosen(ranges), ranges, self.axes, self.labels)

    def _chosen(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Sample]:
        missing = f"{self.spec} yields fewer samples than when it was first called"
        wanted = (index for begin, end in ranges for index in range(begin, end))
        for index, (sample, *_) in zip(
            wanted, chosen(self._samples(), ranges, missing), strict=False
        ):
            if sample_digest(sample) != self._scan.digests[index]:
                raise DataError(
                    f"{self.sample_name(index)} is another sample than when it was first read",
                    hint="yield the same samples in the same order each time, without random "
                    "changes or with a fixed seed",
                )
            yield sample

    def _samples(self) -> Iterator[tuple[Sample, int | None, bool]]:
        """Each sample, its label, and whether a sequence begins with it."""
        index = 0
        for steps, is_sequence in self._items():
            begins = is_sequence or index == 0
            for step in steps:
                for sample, label in self._checked(step, self.sample_name(index)):
                    yield sample, label, begins
                    index, begins = index + 1, False
                    if index == self.limit:
                        return

    def _items(self) -> Iterator[tuple[Sequence[Any], bool]]:
        """What the function yields, as lists, and whether it was one."""
        yielded = iter(self._begun())
        number = 0
        while True:
            try:
                item = next(yielded)
            except StopIteration:
                return
            except OnnxqError:
                raise
            except RAISED as error:
                raise DataError(f"{self.spec} failed at sample {number}: {brief(error)}") from error
            yield (item, True) if isinstance(item, (list, tuple)) else ([item], False)
            number += 1

    def _begun(self) -> Iterable[Any]:
        try:
            found = self.items()
            iter(found)
        except OnnxqError:
            raise
        except RAISED as error:
            raise DataError(f"{self.spec} failed: {brief(error)}") from error
        return found

    def _checked(self, item: Any, name: str) -> Iterator[tuple[Sample, int | None]]:
        """The samples of a dict: one, or those of a whole feed."""
        arrays, arranged = self._arranged(item, name, self.axes)
        if arranged.axes != self.axes:
            raise DataError(
                f"{name}: other axes count its samples than those of {self.sample_name(0)}",
                hint="yield feeds of one kind",
            )
        columns = {
            spec: SampleColumn(MemoryColumn(arrays[spec.name]), arranged.layouts[spec.name])
            for spec in self.inputs
            if spec.name in arrays
        }
        labels = _labels_of(item, arranged.count, name)
        for row, label in enumerate(labels):
            yield (
                {
                    # Its own: what yields it may fill the same array again for the next one.
                    spec.name: convert(next(column.rows([(row, row + 1)]))[0], spec, name).copy()
                    for spec, column in columns.items()
                },
                label,
            )

    def _arranged(
        self, item: Any, name: str, axes: BatchAxes
    ) -> tuple[Mapping[str, Array], Arrangement]:
        """The arrays of a dict, and how they hold its samples."""
        if not isinstance(item, Mapping):
            raise DataError(f"{name} is a {type(item).__name__}, a dict expected")
        for spec in self.inputs:
            if spec.name not in item and spec.name not in self.optional:
                raise DataError(
                    f"{name} has no array for input {spec.name!r}",
                    hint=suggest(spec.name, map(str, item), of="its keys"),
                )
        arrays = {s.name: _array(item[s.name], s, name) for s in self.inputs if s.name in item}
        shapes = {key: values.shape for key, values in arrays.items()}
        return arrays, arrange(shapes, self.inputs, axes, name, holds=Holds.ITEM)


def _labels_of(item: Mapping[str, Any], count: int, name: str) -> list[int | None]:
    """The label of each sample of a dict; None where there are none."""
    if item.get(LABEL) is None:
        return [None] * count
    try:
        labels = np.ravel(as_array(item[LABEL]))
    except ValueError as error:
        raise DataError(f"{name}: its {LABEL!r} is no array: {error}") from error
    if len(labels) != count:
        raise DataError(f"{name} holds {count} samples and {len(labels)} labels")
    if labels.dtype.kind not in "biu":
        raise DataError(
            f"{name}: the {LABEL} {labels.tolist()[0]!r} is no class index",
            hint="labels are integers; leave them out where there are none",
        )
    return [int(label) for label in labels]


def _array(value: Any, spec: TensorSpec, name: str) -> Array:
    try:
        return as_array(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name}: input {spec.name!r} is no array: {error}") from error


def as_array(value: Any) -> Array:
    """Anything NumPy reads, and tensors of PyTorch's that need gradients or lie on a device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


@dataclass(frozen=True)
class _Scan:
    """What a pass over all samples told.

    Attributes:
        digests: of each sample, to know it again.
    """

    count: int
    labels: Labels | None
    fingerprint: str
    starts: tuple[int, ...]
    digests: tuple[bytes, ...]
