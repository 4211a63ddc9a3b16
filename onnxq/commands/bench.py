"""Time models side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.commands.inputs import source_of
from onnxq.data.batching import Feeds, samples_in
from onnxq.data.budget import GROUP
from onnxq.data.source import DataSource
from onnxq.errors import DataError, ResourceError, UsageError
from onnxq.model.memory import free_memory
from onnxq.model.model import Model
from onnxq.options.bench import BenchOptions
from onnxq.progress import Progress
from onnxq.shown import Shown
from onnxq.validation.latency import Latency, measure, open_contender
from onnxq.validation.profile import OperatorTime, profile

BATCHES = 8
"""Runs that models take turns at, as texts differ in length."""


@dataclass(frozen=True, repr=False)
class Timing(Shown):
    """Latencies, the first model's first, each provider after the other.

    Attributes:
        profiles: time by operator, of each row; () where nobody asked.
        note: what a reader must know of the data.
    """

    rows: tuple[Latency, ...]
    profiles: tuple[tuple[OperatorTime, ...], ...] = ()
    note: str = ""


def bench(models: Sequence[Model], options: BenchOptions, progress: Progress) -> Timing:
    """Time the models; see `onnxq.api.bench`."""
    if not models:
        raise UsageError("bench has no model to time", hint="name one")
    source = _source(models[0], options)
    feeds = [_feeds(source, options)] * len(models)
    for number, model in enumerate(models[1:], start=1):
        if _takes(model) != _takes(models[0]):
            feeds[number] = _feeds(_source(model, options), options)
    return time_models(models, feeds, options, progress, note=source.note)


def time_models(
    models: Sequence[Model],
    feeds: Sequence[Sequence[Feeds]],
    options: BenchOptions,
    progress: Progress,
    *,
    note: str = "",
) -> Timing:
    """Time each of the models on its feeds."""
    rows: list[Latency] = []
    profiles = []
    for place in options.providers:
        ready = []
        with progress.track("load the models", len(models)) as advance:
            for model, given in zip(models, feeds, strict=True):
                ready.append(
                    open_contender(model, given, provider=place.value, threads=options.threads)
                )
                advance(1)
        rows += measure(ready, seconds=options.seconds, progress=progress)
        del ready
        for model, given in zip(models if options.profile else (), feeds, strict=False):
            with progress.track(f"profile {model.name}", None):
                profiles.append(
                    profile(model, given, provider=place.value, threads=options.threads)
                )
    return Timing(tuple(rows), tuple(profiles), note)


def _source(model: Model, options: BenchOptions) -> DataSource:
    # A batch has only what there is: so many random samples as fill one.
    return source_of(options, model, data=options.data or f"random:{options.batch_size}")


def _feeds(source: DataSource, options: BenchOptions) -> list[Feeds]:
    """The first batches that are full; a shorter one where there are no others."""
    _require_room(source, options.batch_size)
    batches = itertools.islice(source.batches(options.batch_size), BATCHES)
    found = [batch.feeds for batch in batches]
    if not found:
        raise DataError(f"{source.spec}: no samples")
    full = max(each.samples for each in found)
    return [each for each in found if each.samples == full]


def _require_room(source: DataSource, batch_size: int) -> None:
    """Raise `ResourceError` where a batch is more than there is memory: random ones have no end."""
    free = free_memory()
    if batch_size <= GROUP or free is None or source.count is None:
        return
    count = min(batch_size, source.count)
    first = next(iter(source.batches(1, stop=source.axes.fixed or 1))).feeds
    size = count * sum(each.nbytes for each in first.values()) // samples_in(first)
    if size > free:
        raise ResourceError(
            f"a batch of {count:,} samples takes {size / 1e9:,.1f} GB, "
            f"and {free / 1e9:,.1f} GB are free"
        )


def _takes(model: Model) -> list[tuple[str, str]]:
    return [(spec.name, spec.dtype.name) for spec in model.inputs]
