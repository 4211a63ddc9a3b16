"""One streaming pass over the data: memory does not grow with the number of samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

from onnxq.calibration import compiled
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.checkpoint import Checkpoint, Cursor
from onnxq.calibration.counter import Counter
from onnxq.calibration.not_finite import harm
from onnxq.calibration.passes import batches_at_a_time, groups_within, with_group
from onnxq.calibration.statistics import Calibration, Provenance, TensorStatistics, join_notes
from onnxq.calibration.thinning import step_of
from onnxq.data.ahead import map_ahead
from onnxq.data.batching import Array, samples_in
from onnxq.data.fitted import REFUSES_BATCHES
from onnxq.data.gather import BATCH_SIZE, is_held_out, run_batch
from onnxq.data.source import Batch, DataSource, span_of
from onnxq.errors import DataError
from onnxq.model.blocked import Observed, open_observer
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import Runtime
from onnxq.progress import SILENT, Progress

SINGLY = REFUSES_BATCHES.reason
"""The note of a calibration where that was so."""


def batch_of(calibration: Calibration | None) -> int:
    """How many samples the calibrated model may be given at once."""
    if calibration is None:
        return BATCH_SIZE
    counted = calibration.provenance.batch_size
    return 1 if SINGLY in calibration.note else max(1, min(BATCH_SIZE, counted))


@dataclass(frozen=True)
class Request:
    """What to observe of a model; the same for all processes of a run.

    Attributes:
        tensors: tensor name → channel axis (None: one histogram for the whole tensor).
        fingerprint: of the model the user named, which the calibration is then tied to.
        shard: (i, n), the i-th of n equal parts of the batches, counted from 1.
        hold_out: leave out every so many-th batch, for the caller to measure on; 0 for none.
        allow_nonfinite: count NaN and infinite activations also where they do harm.
        memory: bytes that the activations collected from one pass may take at a time; where they
            take more there are several passes, each over some of the tensors. 0 for no limit.
        runtime: where the model runs.
    """

    tensors: Mapping[str, int | None]
    fingerprint: str
    batch_size: int = 8
    shard: tuple[int, int] = (1, 1)
    hold_out: int = 0
    allow_nonfinite: bool = False
    memory: int = 0
    runtime: Runtime = field(default_factory=Runtime)


def observe(
    model: Model,
    source: DataSource,
    tensors: Mapping[str, int | None],
    *,
    fingerprint: str,
    batch_size: int = 8,
    hold_out: int = 0,
    allow_nonfinite: bool = False,
    progress: Progress = SILENT,
) -> Calibration:
    """`calibrate` with the usual settings; the arguments are those of `Request`."""
    request = Request(
        tensors, fingerprint, batch_size, hold_out=hold_out, allow_nonfinite=allow_nonfinite
    )
    return calibrate(model, source, request, progress=progress)


def calibrate(
    model: Model,
    source: DataSource,
    request: Request,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
) -> Calibration:
    """Run the model over the data and collect statistics of the tensors named.

    Args:
        model: the normalized model.
        checkpoint: where to keep the state of the run, to go on from after it was killed.

    Raises:
        DataError: no samples, data that do not fit the model, or NaN or Inf that does harm, see
            `onnxq.calibration.not_finite`.
        ModelError: the model does not run.
    """
    calibration = _empty(source, request)
    key = _key(calibration, request)
    cursor, before = checkpoint.load(key) if checkpoint else (Cursor(), None)
    calibration = calibration if before is None else before
    graph = Graph(model)
    counter = Counter(
        {name: Accumulator.of(axis, calibration.tensors.get(name),
                              step_of(graph.shape(name), axis, source.count), compiled.loops())
         for name, axis in request.tensors.items()}, source,
        _no_harm if request.allow_nonfinite else partial(harm, graph),
    )  # fmt: skip
    calibration = replace(calibration, tensors={})
    singly = SINGLY in calibration.note

    def found(tensors: Mapping[str, TensorStatistics]) -> Calibration:
        notes = (calibration.note, SINGLY) if singly else (calibration.note,)
        return replace(calibration, note=join_notes(notes), samples=cursor.samples, tensors=tensors)

    groups, workers = _groups(model, source, request), _workers(model, source, request)
    total = None if source.count is None else math.ceil(source.count / request.shard[1])
    with progress.track("calibrate", total and total * len(groups)) as advance:
        advance(cursor.passes * (total or 0) + cursor.spans * request.batch_size)
        for number in range(cursor.passes, len(groups)):
            spans = _spans(source, request, cursor.spans)
            count = _count(model, request, groups[number], counter, workers)
            for first in spans:
                part = _before_due(first, spans, checkpoint)
                for read, counted, alone in map_ahead(count, part, workers=workers, ahead=1):
                    singly |= alone
                    seen = counted if number == 0 else 0
                    cursor = Cursor(number, cursor.spans + 1, cursor.samples + seen)
                    advance(read)
                # All spans begun are done: none is half counted.
                if checkpoint and checkpoint.is_due:
                    checkpoint.save(key, cursor, found(counter.so_far()))
            cursor = Cursor(number + 1, 0, cursor.samples)
    if cursor.samples == 0:
        raise DataError(f"{source.spec}: no samples in shard {request.shard[0]}/{request.shard[1]}")
    return found(counter.finish())


def _no_harm(_tensor: str, _kind: str) -> None:
    """What NaN and Inf spoil where they are allowed."""


def _workers(model: Model, source: DataSource, request: Request) -> int:
    """How many batches run at a time."""
    computed = [name for name in request.tensors if name not in _inputs(model)]
    size, memory = request.batch_size, request.memory
    workers = batches_at_a_time(
        model, computed, size, lambda: _first(source, request), request.runtime, memory
    )
    if source.count is None:
        return workers
    return max(1, min(workers, math.ceil(source.count / request.shard[1] / size)))


def _count(
    model: Model, request: Request, group: Sequence[str], counter: Counter, workers: int
) -> Callable[[Sequence[Batch]], tuple[int, int, bool]]:
    """How to run and count the batches of one span, in one pass; several threads may do so.

    The function returns the samples read and those counted, and whether they ran one by one.
    """
    computed = [name for name in request.tensors if name not in _inputs(model)]
    names = [name for name in computed if name in group]
    others = [name for name in computed if name not in group]
    runtime = request.runtime.share(workers)
    observer = open_observer(with_group(model, names, others), names, runtime)
    # A GPU has use for one batch at a time; while it runs the ones before are counted.
    turn = nullcontext() if runtime.provider == "cpu" else Lock()

    def run(feeds: Mapping[str, Array]) -> dict[str, Observed]:
        with turn:
            return observer.run(feeds)

    def count(span: Sequence[Batch]) -> tuple[int, int, bool]:
        kept = [batch for batch in span if not _is_held_out(batch, request)]
        singly = False
        for batch in kept:
            first = 0
            half = span_of(batch, request.batch_size) % 2
            for feeds, values in run_batch(run, batch.feeds):
                singly |= feeds is not batch.feeds
                inputs = {name: Observed(feeds[name]) for name in group if name in feeds}
                held = samples_in(feeds)
                counter.add(inputs | values, batch.start + first, held, half)
                first += held
        return sum(map(len, span)), sum(map(len, kept)), singly

    return count


def _empty(source: DataSource, request: Request) -> Calibration:
    preprocessing = str(source.preprocessing) if source.preprocessing else ""
    return Calibration(
        Provenance(request.fingerprint, preprocessing, request.batch_size), source.fingerprint,
        source.note, 0, (request.shard,), {},
    )  # fmt: skip


def _key(empty: Calibration, request: Request) -> dict[str, Any]:
    """What a run must have in common with the one whose state it goes on from."""
    return {
        "model": request.fingerprint, "preprocessing": empty.provenance.preprocessing,
        "batch size": request.batch_size, "bins": empty.provenance.schema, "data": empty.data,
        "shard": list(request.shard), "hold out": request.hold_out, "memory": request.memory,
        "tensors": sorted(request.tensors),
    }  # fmt: skip


def _inputs(model: Model) -> set[str]:
    return {spec.name for spec in model.inputs}


def _is_held_out(batch: Batch, request: Request) -> bool:
    return is_held_out(span_of(batch, request.batch_size), request.hold_out)


def _groups(model: Model, source: DataSource, request: Request) -> list[list[str]]:
    """The tensors of each pass; the inputs, which are there anyway, belong to the first."""
    names = list(request.tensors)
    if not request.memory:
        return [names]
    inputs = [name for name in names if name in _inputs(model)]
    computed = [name for name in names if name not in inputs]
    feeds = _first(source, request)
    groups = groups_within(model, computed, feeds, request.memory, request.runtime)
    return [inputs + groups[0], *groups[1:]] if groups else [inputs]


def _first(source: DataSource, request: Request) -> Mapping[str, Array]:
    """The feeds of the first batch. Raises `DataError` where there is none."""
    for batch in source.batches(request.batch_size):
        return batch.feeds
    raise DataError(f"{source.spec}: no samples")


def _spans(source: DataSource, request: Request, done: int) -> Iterator[Sequence[Batch]]:
    """The batches of each span of the shard, after the `done` first ones."""
    index, count = request.shard
    batches = source.batches(request.batch_size, first=index - 1 + done * count, step=count)
    for _, span in itertools.groupby(batches, lambda batch: span_of(batch, request.batch_size)):
        yield list(span)


def _before_due(
    first: Sequence[Batch], spans: Iterator[Sequence[Batch]], checkpoint: Checkpoint | None
) -> Iterator[Sequence[Batch]]:
    """The spans to begin before the next state is written, at least one."""
    yield first
    while not (checkpoint and checkpoint.is_due) and (span := next(spans, None)) is not None:
        yield span
