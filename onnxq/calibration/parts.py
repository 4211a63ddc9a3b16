"""The samples of a shard: spans of `GROUP` samples, and what of them runs at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxq.data.batching import Array, samples_in
from onnxq.data.budget import GROUP, Batching
from onnxq.data.gather import is_held_out
from onnxq.data.source import Batch, DataSource, span_of


@dataclass(frozen=True)
class Part:
    """Samples that run at once.

    Attributes:
        samples: how many.
        feeds: let go of once they were counted.
        held_out: whether they are left out.
        start: index of the first one.
        is_first: whether they begin a batch.
        is_last: whether they end a span.
    """

    samples: int
    feeds: Mapping[str, Array]
    start: int
    held_out: bool
    is_first: bool
    is_last: bool

    def __len__(self) -> int:
        return self.samples


def parts_of(spans: Iterable[Sequence[Batch]], hold_out: int, batching: Batching) -> Iterator[Part]:
    """What runs at once, in order."""
    for span in spans:
        for batch in span:
            number = span_of(batch, GROUP)
            held_out = is_held_out(number, hold_out)
            start, ends = batch.start, batch is span[-1]
            parts = [batch.feeds] if held_out else batching.parts(batch.feeds)
            for index, feeds in enumerate(parts):
                yield Part(
                    samples_in(feeds), feeds, start, held_out, index == 0,
                    ends and index == len(parts) - 1,
                )  # fmt: skip
                start += samples_in(feeds)


def spans_of(source: DataSource, shard: tuple[int, int], done: int) -> Iterator[Sequence[Batch]]:
    """The batches of each span of the shard, after the `done` first ones."""
    index, count = shard
    batches = source.batches(GROUP, first=index - 1 + done * count, step=count)
    for _, span in itertools.groupby(batches, lambda batch: span_of(batch, GROUP)):
        yield list(span)
