"""Samples taken into memory or held out to measure on, in batches that a model takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from onnx import ModelProto

from onnxq.data.ahead import WORKERS, map_ahead
from onnxq.data.batching import Array, Feeds, as_feeds, regroup
from onnxq.data.source import Batch, DataSource, span_of
from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.model.session import Runtime, run
from onnxq.options import shared

Result = TypeVar("Result")

BATCH_SIZE = shared.BATCH_SIZE
"""Samples run at once, where the caller does not say and the model does not fix it."""


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
    apart = max(1, math.ceil((source.count or count) / count))
    baskets = {False: _Basket(fixed, count, apart), True: _Basket(fixed, held, 1)}
    for batch in source.batches(BATCH_SIZE):
        if all(basket.is_full for basket in baskets.values()):
            break
        baskets[is_held_out(span_of(batch, BATCH_SIZE), hold_out)].offer(batch)
    spread, first = (regroup(basket.batches, fixed or size) for basket in baskets.values())
    return spread, first


class _Basket:
    """Takes samples out of batches, every so many-th one, until it has enough.

    Args:
        fixed: batch size that the model fixes; batches are then taken whole.
        count: samples wanted.
        apart: 1 to take all.
    """

    def __init__(self, fixed: int | None, count: int, apart: int) -> None:
        self._fixed, self._count, self._apart = fixed, count, apart
        self._taken = self._samples = self._seen = 0
        self.batches: list[Feeds] = []

    @property
    def is_full(self) -> bool:
        return self._taken >= self._count

    def offer(self, batch: Batch) -> None:
        if self.is_full:
            return
        if self._fixed:
            rows = list(range(len(batch))) if self._seen % self._apart == 0 else []
        else:
            rows = [i for i in range(len(batch)) if (self._samples + i) % self._apart == 0]
            rows = rows[: self._count - self._taken]
        self._samples += len(batch)
        self._seen += 1
        if rows:
            self.batches.append(batch.feeds.take(rows))
        self._taken += len(rows)


def run_batches(
    model: Model | ModelProto,
    names: Sequence[str] | None,
    batches: Sequence[Mapping[str, Array]],
    *,
    optimize: bool,
) -> list[list[Array]]:
    """The outputs named, None for all, for each of the batches, which run side by side.

    Threads that run batches of their own do not wait for each other. Raises `ModelError`.
    """
    workers = max(1, min(WORKERS, len(batches)))
    session = Runtime().share(workers).open(model, optimize=optimize)
    return list(map_ahead(lambda feeds: run(session, names, feeds), batches, workers=workers))


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
