"""Streaming models: states that come out of one step and go into the next.

A *sequence* is a run of samples in order: a file of a folder of `.npz` files, a list that a
function yields, else all samples of the data. Its first step has the states that the data give, or
zeros; open axes of a state have size 0 then, as those of an empty cache.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from onnxq.data.around import SourceAround
from onnxq.data.batching import Array, BatchAxes, Feeds, Sample, stack
from onnxq.data.source import Batch, DataSource, collect, spans
from onnxq.errors import DataError, UsageError
from onnxq.model.portable import PortableModel
from onnxq.model.session import open_session, run
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import Model, TensorSpec

States = Mapping[str, str]
"""Input that holds a state → the output that gives it for the next step."""


Outputs = Mapping[str, Array]
RunStep = Callable[[Feeds], Outputs]


@runtime_checkable
class Sequences(Protocol):
    """A source that knows where its sequences begin."""

    @property
    def starts(self) -> tuple[int, ...]:
        """The index of the first sample of each, ascending from 0."""
        ...


def parse_states(texts: Sequence[str], model: Model) -> dict[str, str]:
    """States as users write them, "OUT=IN". Raises `UsageError` for names the model lacks."""
    inputs = {spec.name: spec for spec in model.inputs}
    outputs = {spec.name: spec for spec in model.outputs}
    found: dict[str, str] = {}
    for text in texts:
        output, equals, name = text.partition("=")
        if not equals:
            raise UsageError(f"{text!r} is no state", hint="write OUT=IN, an output and an input")
        for kind, given, known in (("output", output, outputs), ("input", name, inputs)):
            if given not in known:
                raise UsageError(
                    f"--state {text}: the model has no {kind} {given!r}",
                    hint=suggest(given, known, of=f"its {kind}s"),
                )
        if name in found:
            raise UsageError(f"--state: input {name!r} is given twice")
        if outputs[output].dtype != inputs[name].dtype:
            raise UsageError(
                f"--state {text}: {output!r} is {outputs[output].dtype.name}, "
                f"{name!r} takes {inputs[name].dtype.name}"
            )
        found[name] = output
    if found and len(found) == len(inputs):
        raise UsageError("--state: every input is a state, none is left to feed")
    return found


@dataclass(frozen=True, eq=False)
class StreamedSource(SourceAround):
    """Steps of sequences, each with the states that the model gave in the step before.

    Attributes:
        source: the steps, without states or with those of first steps.
        model: runs step by step.
    """

    model: PortableModel
    inputs: tuple[TensorSpec, ...]
    states: States
    has_labels: bool = False
    preprocessing: Preprocessing | None = None

    @cached_property
    def fingerprint(self) -> str:
        content = f"{self.source.fingerprint}\0{sorted(self.states.items())}"
        return hashlib.sha256(content.encode()).hexdigest()

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        stop: int | None = None,
        first: int = 0,
        step: int = 1,
    ) -> Iterator[Batch]:
        count = self.source.count or 0
        ranges = spans(count, self.axes, batch_size, start, stop, first, step)
        yield from collect(self._chosen(ranges), ranges, self.axes)

    def outputs_of(
        self, run_model: RunStep, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[Outputs]:
        """What a model gives for each sample of the ranges on its own states, as where it is used.

        Args:
            run_model: gives all outputs for one step.
        """
        for _, outputs in self._walk(ranges, run_model):
            yield outputs()

    def _chosen(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Sample]:
        """The samples of the ranges."""
        session, given = open_session(self.model.unpack()), list(self.states.values())

        def run_model(feeds: Feeds) -> Outputs:
            return dict(zip(given, run(session, given, feeds), strict=True))

        for sample, _ in self._walk(ranges, run_model):
            yield sample

    def _walk(
        self, ranges: Sequence[tuple[int, int]], run_model: RunStep
    ) -> Iterator[tuple[Sample, Callable[[], Outputs]]]:
        """The samples of the ranges, each with a function that gives the model's outputs for it.

        Sequences without any of the samples are read but not run.
        """
        wanted = {index for begin, end in ranges for index in range(begin, end)}
        if not wanted:
            return
        starts = self.source.starts if isinstance(self.source, Sequences) else (0,)
        of = [bisect.bisect_right(starts, index) - 1 for index in sorted(wanted)]
        running, firsts = set(of), set(starts)
        states: dict[str, Array] | None = None
        for batch in self.source.batches(1, start=starts[of[0]], stop=max(wanted) + 1):
            if bisect.bisect_right(starts, batch.start) - 1 not in running:
                continue
            sample = self._with_states(batch.feeds, None if batch.start in firsts else states)
            outputs = cache(partial(run_model, stack([sample], self.axes)))
            if batch.start in wanted:
                yield sample, outputs
            states = {name: outputs()[output] for name, output in self.states.items()}

    def _with_states(self, feeds: Feeds, states: Mapping[str, Array] | None) -> Sample:
        """One step with the states of the step before, None for the first of a sequence."""
        if states is not None:
            return Feeds({**feeds.arrays, **states}, self.axes).sample(0)
        specs = [spec for spec in self.inputs if spec.name in self.states]
        sizes = {
            size: feeds[spec.name].shape[axis]
            for spec in self.inputs if spec.name in feeds
            for axis, size in enumerate(spec.shape or ()) if isinstance(size, str)
        }  # fmt: skip
        arrays = {s.name: _empty(s, self.axes, sizes) for s in specs if s.name not in feeds}
        return Feeds({**feeds.arrays, **arrays}, self.axes).sample(0)


def streamed(source: DataSource) -> StreamedSource | None:
    """The source of steps that this one is, or is around; None for samples without states."""
    inner: object = source
    while isinstance(inner, SourceAround):
        if isinstance(inner, StreamedSource):
            return inner
        inner = inner.source
    return None


def _empty(spec: TensorSpec, axes: BatchAxes, sizes: Mapping[str, int]) -> Array:
    """The state before the first step, for one sample."""
    if spec.shape is None:
        raise DataError(
            f"the model does not say the shape of the state {spec.name!r}",
            hint="give it with the first step of each sequence",
        )
    counted = axes.inputs[spec.name]
    shape = [
        1 if axis == counted else size if isinstance(size, int) else sizes.get(size or "", 0)
        for axis, size in enumerate(spec.shape)
    ]
    return np.zeros(shape, spec.dtype)
