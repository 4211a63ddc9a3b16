"""One streaming pass over the data: memory does not grow with the number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

from onnxq.calibration import compiled
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.checkpoint import Checkpoint, Cursor
from onnxq.calibration.counter import Counter
from onnxq.calibration.halves import halves_of, without_padding
from onnxq.calibration.not_finite import harm
from onnxq.calibration.parts import Part, parts_of, spans_of
from onnxq.calibration.passes import groups_within, with_group
from onnxq.calibration.statistics import Calibration, Provenance, TensorStatistics, join_notes
from onnxq.calibration.thinning import step_of
from onnxq.data.ahead import MOST, map_ahead
from onnxq.data.batching import Array, Feeds, as_feeds
from onnxq.data.budget import GROUP, USUAL, Batching, Limits, OneSample, plan_batching
from onnxq.data.fitted import REFUSES_BATCHES
from onnxq.data.gather import run_batch
from onnxq.data.largest import largest_sample
from onnxq.data.masks import real_positions
from onnxq.data.source import Batch, DataSource
from onnxq.data.tokens import Tokens
from onnxq.errors import DataError
from onnxq.model.blocked import Observed, open_observer
from onnxq.model.graph import Graph
from onnxq.model.memory import hand_back
from onnxq.model.model import Model
from onnxq.model.session import Runtime
from onnxq.progress import SILENT, Progress

SINGLY = REFUSES_BATCHES.reason
"""The note of a calibration where that was so."""

MASKED = "only the positions that {!r} keeps"
"""The note of a calibration where there were any."""

WHOLE = (1, 1)
"""The shard that is all of the data."""


def batch_of(calibration: Calibration | None) -> int:
    """How many samples the calibrated model may be given at once."""
    return 1 if calibration is not None and SINGLY in calibration.note else GROUP


@dataclass(frozen=True)
class Request:
    """What to observe of a model; the same for all processes of a run.

    Attributes:
        tensors: tensor name → channel axis (None: one histogram for the whole tensor).
        fingerprint: of the model the user named, which the calibration is then tied to.
        limits: where activations take more, fewer samples run at once, then fewer batches, then
            there are several passes, each over some of the tensors. The result is the same.
        shard: (i, n), the i-th of n equal parts of the groups of samples, counted from 1.
        hold_out: leave out every so many-th group, for the caller to measure on; 0 for none.
        allow_nonfinite: count NaN and infinite activations also where they do harm.
        runtime: where the model runs.
        largest: the largest sample, if known.
    """

    tensors: Mapping[str, int | None]
    fingerprint: str
    limits: Limits = USUAL
    shard: tuple[int, int] = (1, 1)
    hold_out: int = 0
    allow_nonfinite: bool = False
    runtime: Runtime = field(default_factory=Runtime)
    largest: Feeds | None = None

    def sample(self, model: Model, source: DataSource) -> OneSample:
        """The largest sample of the data, looked for where it is not known."""
        if self.largest is None:
            return one_sample(model, source, self.runtime)
        found = self.largest
        return OneSample(model, lambda: found, self.runtime)


def observe(
    model: Model,
    source: DataSource,
    tensors: Mapping[str, int | None],
    *,
    fingerprint: str,
    limits: Limits = USUAL,
    hold_out: int = 0,
    allow_nonfinite: bool = False,
    sample: OneSample | None = None,
    progress: Progress = SILENT,
) -> Calibration:
    """`calibrate` where the sample runs; the arguments are those of it and of `Request`."""
    runtime = Runtime() if sample is None else sample.runtime
    request = Request(
        tensors, fingerprint, limits, hold_out=hold_out, allow_nonfinite=allow_nonfinite,
        runtime=runtime,
    )  # fmt: skip
    return calibrate(model, source, request, sample=sample, progress=progress)


def calibrate(
    model: Model,
    source: DataSource,
    request: Request,
    *,
    checkpoint: Checkpoint | None = None,
    sample: OneSample | None = None,
    progress: Progress = SILENT,
) -> Calibration:
    """Run the model over the data and collect statistics of the tensors named.

    Args:
        model: the normalized model.
        sample: one of that model, for the caller to go on with.
        checkpoint: where to keep the state of the run, to go on from after it was killed.

    Raises:
        DataError: no samples, data that do not fit the model, or NaN or Inf that does harm, see
            `onnxq.calibration.not_finite`.
        ModelError: the model does not run.
    """
    calibration = _empty(source, request)
    sample = sample or request.sample(model, source)
    batching, groups = _plan(sample, request)
    batching = replace(batching, axes={**batching.axes, **source.axes.inputs})
    key = _key(calibration, request, groups, source.axes.mask)
    cursor, before = checkpoint.load(key) if checkpoint else (Cursor(), None)
    calibration = calibration if before is None else before
    graph = Graph(model)
    number_of_parts = _number_of_parts(source, request, batching)
    workers = batching.workers(number_of_parts)
    # Where padding is left out, no pattern of positions is the same in all batches.
    thin = partial(step_of, samples=None if source.axes.mask else source.count)
    counter = Counter(
        {name: Accumulator.of(axis, calibration.tensors.get(name),
                              thin(graph.shape(name), axis), compiled.loops(),
                              apart=source.axes.fixed == 1 or batching.axes.get(name, 0) == 0)
         for name, axis in request.tensors.items()}, source,
        _no_harm if request.allow_nonfinite else partial(harm, graph),
        max(1, request.runtime.cores // workers),
    )  # fmt: skip
    calibration = replace(calibration, tensors={})
    notes = {calibration.note, SINGLY if batching.singly else ""}

    def found(tensors: Mapping[str, TensorStatistics]) -> Calibration:
        return replace(calibration, note=join_notes(notes), samples=cursor.samples, tensors=tensors)

    total = None if source.count is None else math.ceil(source.count / request.shard[1])
    with progress.track("calibrate", total and total * len(groups)) as advance:
        advance(cursor.passes * (total or 0) + cursor.spans * GROUP)
        for number in range(cursor.passes, len(groups)):
            spans = spans_of(source, request.shard, cursor.spans)
            count = _count(sample, request, batching, groups[number], counter, number_of_parts)
            for first in spans:
                some = _before_due(first, spans, checkpoint)
                parts = parts_of(some, request.hold_out, batching)
                for part, said in map_ahead(count, parts, workers=workers, ahead=1):
                    notes |= said
                    seen = len(part) if number == 0 and not part.held_out else 0
                    cursor = Cursor(number, cursor.spans + part.is_last, cursor.samples + seen)
                    advance(len(part))
                # All spans begun are done: none is half counted.
                if checkpoint and checkpoint.is_due:
                    checkpoint.save(key, cursor, found(counter.so_far()))
            cursor = Cursor(number + 1, 0, cursor.samples)
    if cursor.samples == 0:
        raise DataError(f"{source.spec}: no samples in shard {request.shard[0]}/{request.shard[1]}")
    if batching.large:
        hand_back()
    tensors = counter.finish()
    # Of a part of the data the others may have what is missing.
    if request.shard == WHOLE and MASKED.format(source.axes.mask) in notes:
        _require_real(source, sample.tokens, request.tensors, tensors)
    return found(tensors)


def _no_harm(_tensor: str, _kind: str) -> None:
    """What NaN and Inf spoil where they are allowed."""


def _number_of_parts(source: DataSource, request: Request, batching: Batching) -> int:
    """How many parts there are to run; as many as may run at a time where that is not known."""
    if source.count is None:
        return MOST
    return max(1, math.ceil(source.count / request.shard[1] / batching.size))


def _count(
    sample: OneSample,
    request: Request,
    batching: Batching,
    group: Sequence[str],
    counter: Counter,
    parts: int,
) -> Callable[[Part], tuple[Part, set[str]]]:
    """How to run and count samples in one pass; several threads may do so.

    The function returns what it was given, and what a reader must know of how it was counted.
    """
    model = sample.model
    computed = [name for name in request.tensors if name not in _inputs(model)]
    names = [name for name in computed if name in group]
    others = [name for name in computed if name not in group]
    runtime = batching.runtime(parts, request.runtime)
    observer = open_observer(with_group(model, names, others), names, runtime)
    # What is the same for every part of a batch counts once, as if the batch had run whole.
    once = {name for name in names if batching.axes.get(name, 0) is None}
    # A GPU has use for one batch at a time; while it runs the ones before are counted.
    turn = nullcontext() if runtime.provider == "cpu" else Lock()

    def run(feeds: Mapping[str, Array]) -> dict[str, Observed]:
        with turn:
            return observer.run(feeds)

    def count(part: Part) -> tuple[Part, set[str]]:
        notes, start = set[str](), part.start
        for feeds, values in () if part.held_out else run_batch(run, part.feeds):
            if feeds is not part.feeds:
                notes.add(SINGLY)
            seen = {name: Observed(feeds[name]) for name in group if name in feeds}
            seen |= {n: v for n, v in values.items() if part.is_first or n not in once}
            halves, real = halves_of(feeds), real_positions(feeds)
            places = range(start, start + len(halves))
            if real is None:
                counter.add(seen, places, halves)
            else:
                notes.add(MASKED.format(as_feeds(feeds).axes.mask))
                apart = without_padding(seen, halves, batching.axes, real, sample.tokens)
                for rows, kept in apart:
                    counter.add(kept, [places[row] for row in rows], halves[rows])
            start += len(halves)
        return replace(part, feeds={}), notes

    return count


def _require_real(
    source: DataSource, tokens: Tokens, wanted: Iterable[str], found: Collection[str]
) -> None:
    """Raise `DataError` where the mask left nothing to count."""
    counted = [name for name in wanted if name in tokens.axes]
    if counted and not any(name in found for name in counted):
        raise DataError(
            f"{source.spec}: the mask {source.axes.mask!r} keeps no position of any sample",
            hint="name another input with --mask, or none",
        )


def _empty(source: DataSource, request: Request) -> Calibration:
    preprocessing = str(source.preprocessing) if source.preprocessing else ""
    return Calibration(
        Provenance(request.fingerprint, preprocessing, GROUP), source.fingerprint,
        source.note, 0, (request.shard,), {},
    )  # fmt: skip


def _key(
    empty: Calibration, request: Request, groups: Sequence[Sequence[str]], mask: str
) -> dict[str, Any]:
    """What a run must have in common with the one whose state it goes on from."""
    return {
        "model": request.fingerprint, "preprocessing": empty.provenance.preprocessing,
        "bins": empty.provenance.schema, "data": empty.data, "shard": list(request.shard),
        "hold out": request.hold_out, "mask": mask, "memory": [len(group) for group in groups],
        "tensors": sorted(request.tensors),
    }  # fmt: skip


def _inputs(model: Model) -> set[str]:
    return {spec.name for spec in model.inputs}


def one_sample(model: Model, source: DataSource, runtime: Runtime | None = None) -> OneSample:
    """The largest sample of the data."""
    return OneSample(model, partial(largest_sample, model, source), runtime or Runtime())


def with_largest(request: Request, model: Model, source: DataSource) -> Request:
    """For several processes: one of them looks for the largest sample."""
    return replace(request, largest=largest_sample(model, source))


def _plan(sample: OneSample, request: Request) -> tuple[Batching, list[list[str]]]:
    """How the model runs, and the tensors of each pass.

    The inputs, which are there anyway, belong to the first.
    """
    model = sample.model
    inputs = [name for name in request.tensors if name in _inputs(model)]
    computed = [name for name in request.tensors if name not in inputs]
    batching = plan_batching(sample, request.limits, kept=computed)
    if batching.runs > 1 or not computed:
        return batching, [inputs + computed]
    samples = sample.fixed or batching.size
    groups = groups_within(Graph(model), computed, batching.footprint, batching.room, samples)
    return batching, [inputs + groups[0], *groups[1:]]


def _before_due(
    first: Sequence[Batch], spans: Iterator[Sequence[Batch]], checkpoint: Checkpoint | None
) -> Iterator[Sequence[Batch]]:
    """The spans to begin before the next state is written, at least one."""
    yield first
    while not (checkpoint and checkpoint.is_due) and (span := next(spans, None)) is not None:
        yield span
