"""Samples taken into memory or held out to measure on, in batches that a model takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from onnxq.data.source import Array, DataSource, fixed_batch, samples_in, span_of
from onnxq.errors import ModelError
from onnxq.model.model import TensorSpec

Result = TypeVar("Result")

BATCH_SIZE = 8
"""Samples run at once, where the caller does not say and the model does not fix it."""


def is_held_out(batch_number: int, hold_out: int) -> bool:
    """Whether a batch belongs to the samples held out; every `hold_out`-th one, none for 0."""
    return hold_out > 0 and batch_number % hold_out == hold_out - 1


def gather(
    source: DataSource,
    inputs: Sequence[TensorSpec],
    count: int,
    *,
    size: int = BATCH_SIZE,
    hold_out: int = 0,
    held: bool = False,
) -> list[Mapping[str, Array]]:
    """Up to `count` samples spread evenly over the source, in batches that fit the model.

    Where the model fixes its batch size whole batches are taken, spread as evenly; else they have
    `size` samples.

    Args:
        hold_out: every so many-th batch is held out, see `is_held_out`; with `held` only
            samples of those are taken, without it only the others'.
    """
    fixed = fixed_batch(inputs)
    wanted = max(1, math.ceil((source.count or count) / count))
    batches: list[Mapping[str, Array]] = []
    taken = position = seen = 0
    for batch in source.batches(BATCH_SIZE):
        if is_held_out(span_of(batch, inputs, BATCH_SIZE), hold_out) != held:
            continue
        if fixed:
            rows = list(range(len(batch))) if held or seen % wanted == 0 else []
        else:
            rows = [i for i in range(len(batch)) if held or (position + i) % wanted == 0]
            rows = rows[: count - taken]
        position += len(batch)
        seen += 1
        if rows:
            batches.append({name: values[rows] for name, values in batch.feeds.items()})
        taken += len(rows)
        if taken >= count:
            break
    return batches if fixed else regroup(batches, size)


def regroup(batches: Sequence[Mapping[str, Array]], size: int) -> list[Mapping[str, Array]]:
    """The same samples in batches of `size`, where their shapes allow."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Array]]] = {}
    for batch in batches:
        shapes = tuple((name, values.shape[1:]) for name, values in sorted(batch.items()))
        groups.setdefault(shapes, []).append(batch)
    result: list[Mapping[str, Array]] = []
    for group in groups.values():
        joined = {name: np.concatenate([batch[name] for batch in group]) for name in group[0]}
        result += [
            {name: values[start : start + size] for name, values in joined.items()}
            for start in range(0, samples_in(joined), size)
        ]
    return result


def run_batch(
    run: Callable[[Mapping[str, Array]], Result], feeds: Mapping[str, Array]
) -> Iterator[tuple[Mapping[str, Array], Result]]:
    """Run a batch; sample by sample where the model takes only one, whatever its inputs say.

    Yields:
        What was fed, and the result.

    Raises:
        ModelError: the model does not run on single samples either; about the whole batch.
    """
    try:
        whole = run(feeds)
    except ModelError as error:
        refused, samples = error, samples_in(feeds)
        if samples == 1:
            raise
    else:
        yield feeds, whole
        return
    for row in range(samples):
        single = {name: values[row : row + 1] for name, values in feeds.items()}
        try:
            result = run(single)
        except ModelError:
            # It is no matter of batches: the first complaint says what is wrong.
            raise refused from None
        yield single, result
