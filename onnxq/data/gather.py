"""Take some samples of a source into memory, and hold others out to measure on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxq.data.source import Array, DataSource, fixed_batch, span_of
from onnxq.model.model import TensorSpec

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
    hold_out: int = 0,
    held: bool = False,
) -> list[Mapping[str, Array]]:
    """Up to `count` samples spread evenly over the source, in batches that fit the model.

    Where the model fixes its batch size whole batches are taken, spread as evenly.

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
    return batches if fixed else _joined(batches)


def _joined(batches: Sequence[Mapping[str, Array]]) -> list[Mapping[str, Array]]:
    """The same samples in as few batches: neighbours of one shape, `BATCH_SIZE` at most."""
    groups: list[list[Mapping[str, Array]]] = []
    for batch in batches:
        last = groups[-1] if groups else []
        if not last or _shapes(last[0]) != _shapes(batch) or _size([*last, batch]) > BATCH_SIZE:
            groups.append([])
        groups[-1].append(batch)
    return [
        {name: np.concatenate([batch[name] for batch in group]) for name in group[0]}
        for group in groups
    ]


def _shapes(batch: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: values.shape[1:] for name, values in batch.items()}


def _size(batches: Sequence[Mapping[str, Array]]) -> int:
    return sum(len(next(iter(batch.values()))) for batch in batches)
