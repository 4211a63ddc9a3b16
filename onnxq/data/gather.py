"""Samples taken into memory or held out to measure on, in batches that a model takes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from onnxq.data.batching import Array, Feeds, as_feeds, one_by_one, regroup
from onnxq.data.budget import GROUP, WHOLE, Batching
from onnxq.data.fingerprint import sample_digest
from onnxq.data.source import Batch, DataSource, span_of
from onnxq.errors import ModelError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import run

Result = TypeVar("Result")

BATCH_SIZE = GROUP
"""Samples run at once, where neither the caller nor the model nor memory says otherwise."""


def is_held_out(batch_number: int, hold_out: int) -> bool:
    """Whether a batch belongs to the samples held out; every `hold_out`-th one, none for 0."""
    return hold_out > 0 and batch_number % hold_out == hold_out - 1


def gather(source: DataSource, count: int, *, size: int = BATCH_SIZE) -> list[Mapping[str, Array]]:
    """Up to `count` samples spread evenly over the source, in batches that fit the model.

    Where the model fixes its batch size whole batches are taken, spread as evenly; else they have
    `size` samples.
    """
    return gather_both(source, count, 0, size=size)[0]


def gather_both(
    source: DataSource,
    count: int,
    held: int,
    *,
    size: int = BATCH_SIZE,
    hold_out: int = 0,
) -> tuple[list[Mapping[str, Array]], list[Mapping[str, Array]]]:
    """`gather`, and up to `held` of the samples held out, the first of them, in one pass.

    Args:
        hold_out: every so many-th batch is held out, see `is_held_out`; `gather` takes none of
            those.
    """
    fixed = source.axes.fixed
    total = source.count or count
    seen = total - _held_out(total, fixed or BATCH_SIZE, hold_out)
    baskets = {False: _Basket(fixed, count, seen), True: _Basket(fixed, held, held)}
    for batch in source.batches(BATCH_SIZE):
        if all(basket.is_full for basket in baskets.values()):
            break
        baskets[is_held_out(span_of(batch, BATCH_SIZE), hold_out)].offer(batch)
    spread, first = (regroup(basket.batches, fixed or size) for basket in baskets.values())
    return spread, first


def gather_any(source: DataSource, count: int) -> list[Mapping[str, Array]]:
    """Up to `count` samples, one in a batch, chosen by what they hold: by the SHA-256 of it.

    They are the same ones, in the same order, whatever the order of the source. Where the model
    fixes its batch size whole batches are taken.
    """
    chosen: list[tuple[int, int, Feeds]] = []
    places = itertools.count()
    for batch in source.batches(BATCH_SIZE):
        for feeds in one_by_one([batch.feeds]):
            item = -int.from_bytes(sample_digest(feeds), "big"), next(places), as_feeds(feeds)
            (heapq.heappush if len(chosen) < count else heapq.heappushpop)(chosen, item)
    return [feeds for _, _, feeds in sorted(chosen)]


def _held_out(total: int, size: int, hold_out: int) -> int:
    """How many samples of so many are held out, in batches of `size`."""
    if not hold_out:
        return 0
    rounds, rest = divmod(total, size * hold_out)
    return rounds * size + max(0, rest - size * (hold_out - 1))


class _Basket:
    """Takes samples out of batches, spread evenly over all that it is offered, until it has enough.

    Args:
        fixed: batch size that the model fixes; batches are then taken whole.
        count: samples wanted.
        total: samples that it will be offered; no more than `count` to take all.
    """

    def __init__(self, fixed: int | None, count: int, total: int) -> None:
        self._fixed, self._count, self._total = fixed, count, max(total, count, 1)
        self._taken = self._samples = self._seen = 0
        self.batches: list[Feeds] = []

    @property
    def is_full(self) -> bool:
        return self._taken >= self._count

    def offer(self, batch: Batch) -> None:
        if self.is_full:
            return
        if self._fixed:
            rows = list(range(len(batch))) if self._is_next(self._seen) else []
        else:
            rows = [i for i in range(len(batch)) if self._is_next(self._samples + i)]
            rows = rows[: self._count - self._taken]
        self._samples += len(batch)
        self._seen += 1
        if rows:
            self.batches.append(batch.feeds.take(rows))
        self._taken += len(rows)

    def _is_next(self, place: int) -> bool:
        """Whether the one at this place is taken: `count` of every `total` are, evenly spread."""
        return place * self._count % self._total < self._count


def run_batches(
    model: Model,
    names: Sequence[str] | None,
    batches: Sequence[Mapping[str, Array]],
    *,
    optimize: bool,
    batching: Batching = WHOLE,
) -> Iterator[list[Any]]:
    """The outputs named, None for all, for each of the batches, which run side by side.

    Threads that run batches of their own do not wait for each other. Raises `ModelError`.
    """
    batching = batching.of(Graph(model)) if batching.splits else batching
    parts = [part for batch in batches for part in batching.parts(batch)]
    workers = batching.workers(len(parts))
    session = batching.runtime(len(parts)).open(model, optimize=optimize)
    names = names if names is not None else [output.name for output in session.get_outputs()]
    results = batching.map(lambda feeds: run(session, names, feeds), parts, workers)
    for batch in batches:
        found = list(itertools.islice(results, len(batching.parts(batch))))
        yield [
            join_parts(values, batching.axes.get(name, 0))
            for name, values in zip(names, zip(*found, strict=True), strict=True)
        ]


def join_parts(parts: Sequence[Any], axis: int | None) -> Any:
    """What a model gave for the parts of a group, as if for the whole; a list where that is not
    known.

    Args:
        axis: along which it grows with the samples; None where it does not.
    """
    if len(parts) == 1:
        return parts[0]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    around = {part.shape[: axis or 0] + part.shape[(axis or 0) + 1 :] for part in arrays}
    if axis is None or len(arrays) < len(parts) or len(around) > 1 or not arrays[0].ndim:
        return list(parts)
    return np.concatenate(arrays, axis)


def in_parts(
    run_one: Callable[[Mapping[str, Array]], list[Any]], names: Sequence[str], batching: Batching
) -> Callable[[Mapping[str, Array]], list[Any]]:
    """What gives the outputs `names` of a group, as one that gives them part by part."""
    if not batching.splits:
        return run_one

    def run_parts(feeds: Mapping[str, Array]) -> list[Any]:
        found = [run_one(part) for part in batching.parts(feeds)]
        joined = [
            join_parts(values, batching.axes.get(name))
            for name, values in zip(names, zip(*found, strict=True), strict=True)
        ]
        # Where the parts do not tell what the whole is, only the whole does.
        return run_one(feeds) if any(isinstance(value, list) for value in joined) else joined

    return run_parts


def run_batch(
    run_one: Callable[[Mapping[str, Array]], Result], feeds: Mapping[str, Array]
) -> Iterator[tuple[Mapping[str, Array], Result]]:
    """Run a batch; sample by sample where the model takes only one, whatever its inputs say.

    Yields:
        What was fed, and the result.

    Raises:
        ModelError: the model does not run on single samples either; about the whole batch.
    """
    try:
        whole = run_one(feeds)
    except ModelError as error:
        refused, singles = error, as_feeds(feeds).singles()
        if len(singles) == 1:
            raise
    else:
        yield feeds, whole
        return
    for single in singles:
        try:
            result = run_one(single)
        except ModelError:
            # It is no matter of batches: the first complaint says what is wrong.
            raise refused from None
        yield single, result
