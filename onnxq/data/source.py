"""What every data source offers: samples in batches, each with a name, and a fingerprint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import BatchAxes, Feeds, Sample, alike, as_feeds, stack
from onnxq.errors import DataError, UsageError

Labels = NDArray[np.int64]
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Batch:
    """Consecutive samples, ready to feed.

    Attributes:
        start: index of the first sample in its source.
        feeds: for each model input an array of its element type, and which axis counts samples.
        labels: class indices, int64, one for each sample; None where the data have none.
    """

    start: int
    feeds: Feeds
    labels: Labels | None = None

    def __post_init__(self) -> None:
        # Plain arrays, from a source of the user's, are counted along axis 0.
        object.__setattr__(self, "feeds", as_feeds(self.feeds))

    def __len__(self) -> int:
        return self.feeds.samples


class DataSource(Protocol):
    """Samples that fit one model. It can be read any number of times, each time the same."""

    @property
    def spec(self) -> str:
        """The source as the user named it."""
        ...

    @property
    def count(self) -> int | None:
        """Number of samples, None where only reading them all would tell."""
        ...

    @property
    def axes(self) -> BatchAxes:
        """Which axis of each input counts samples."""
        ...

    @property
    def has_labels(self) -> bool:
        """Whether the batches carry labels."""
        ...

    @property
    def note(self) -> str:
        """What a record has to say about these data ("random samples"), else empty."""
        ...

    @property
    def preprocessing(self) -> object | None:
        """What was done to images or texts, whose `str` tells; None for data fed as they are."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 as 64 hexadecimal digits over what the model is fed.

        It depends neither on the order of the samples nor on where they lie nor on their labels.
        """
        ...

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        stop: int | None = None,
        first: int = 0,
        step: int = 1,
    ) -> Iterator[Batch]:
        """Yield samples `start` to `stop` (as a slice takes them) in order.

        Where the model fixes its batch size that size wins over `batch_size`. Of the spans of so
        many samples only number `first`, `first` + `step`, … are read. A batch can be shorter: the
        last one, and one whose next sample has another shape; all lie within their span.

        Raises `DataError` for samples that cannot be read, do not fit the model or are not finite.
        """
        ...

    def sample_name(self, index: int) -> str:
        """What to call a sample in messages: its file, or "x.npz[17]"."""
        ...


def span_of(batch: Batch, batch_size: int) -> int:
    """The number of the span that a batch of `DataSource.batches` lies in, counted from 0."""
    return batch.start // (batch.feeds.axes.fixed or batch_size)


def spans(
    count: int,
    axes: BatchAxes,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    first: int = 0,
    step: int = 1,
) -> list[tuple[int, int]]:
    """The half-open index ranges of the batches of samples `start` to `stop` out of `count`.

    Of these only number `first`, `first` + `step`, …
    """
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    fixed = axes.fixed
    size = fixed or batch_size
    begin, end, _ = slice(start, stop).indices(count)
    if fixed and (end - begin) % fixed:
        raise DataError(
            f"{end - begin} samples do not fill batches of {fixed}, which the model's input fixes",
            hint="give a multiple of it, or export the model with a dynamic batch",
        )
    return [(at, min(at + size, end)) for at in range(begin, end, size)][first::step]


def chosen(
    items: Iterable[Item], ranges: Sequence[tuple[int, int]], missing: str
) -> Iterator[Item]:
    """Of what is read from its beginning, the items whose numbers lie in the ranges.

    Raises:
        DataError: there are fewer; `missing` says so.
    """
    wanted = (index for begin, end in ranges for index in range(begin, end))
    target = next(wanted, None)
    for index, item in enumerate(items):
        if target is None:
            return
        if index == target:
            yield item
            target = next(wanted, None)
    if target is not None:
        raise DataError(missing)


def collect(
    samples: Iterable[Sample],
    ranges: Sequence[tuple[int, int]],
    axes: BatchAxes,
    labels: Labels | None = None,
) -> Iterator[Batch]:
    """Stack samples, those of `ranges` one after the other, into batches of samples alike.

    `labels` are those of the whole source.
    """
    stream = iter(samples)
    for begin, end in ranges:
        pending: list[Sample] = []
        for index in range(begin, end):
            sample = next(stream)
            if pending and not alike(pending[0], sample, axes):
                yield _batch(pending, index - len(pending), axes, labels)
                pending = []
            pending.append(sample)
        yield _batch(pending, end - len(pending), axes, labels)


def _batch(samples: Sequence[Sample], start: int, axes: BatchAxes, labels: Labels | None) -> Batch:
    chosen = None if labels is None else labels[start : start + len(samples)]
    return Batch(start, stack(samples, axes), chosen)
