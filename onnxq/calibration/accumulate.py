"""Accumulate one tensor's statistics batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.count import add_counts
from onnxq.calibration.statistics import NotFinite, TensorStatistics

ROW = 2048
"""Codes of each channel to collect before they are counted: counting has a cost for each occupied
bin, which many values should share."""

LARGEST = (1 << 32) - 1
"""Values a channel can have while its counts are 32 bits wide."""

BLOCK = 1 << 17
"""Values to treat at once, so that they and what is made of them stay in the cache."""


class Accumulator:
    """Statistics of one tensor while it streams by; `finish` gives the frozen result.

    It keeps the extremes exactly and collects the leading bits of the values, which are their
    bin numbers, until counting them is cheap. Its memory is fixed by the first batch.
    """

    def __init__(self, axis: int | None) -> None:
        self.axis = axis
        self._minimum: NDArray[np.float32] | None = None
        self._maximum: NDArray[np.float32] | None = None
        self._counts: NDArray[Any] = np.zeros((0, 0), np.uint32)
        self._counted = 0
        self._top = bins.FLOOR + 1
        self._codes = np.zeros((0, 0), np.uint16)
        self._filled = 0
        self._halves = np.array([[np.inf, -np.inf]] * 2, np.float32)
        self._first: NotFinite | None = None

    @classmethod
    def of(cls, axis: int | None, found: TensorStatistics | None) -> Accumulator:
        """One that goes on where another, which found this, had stopped."""
        self = cls(axis)
        if found is not None:
            self._start(found.channels, 0)
            self._minimum, self._maximum = found.minimum.copy(), found.maximum.copy()
            # Only the sum of the last column is kept, so any row may hold it.
            self._counts = np.pad(found.counts, ((0, 0), (0, 1)))
            self._counts[0, -1] = found.not_finite
            self._counted = int(self._counts.sum(axis=1).max())
            if self._counted <= LARGEST:
                self._counts = self._counts.astype(np.uint32)
            self._top, self._first = found.top, found.first_not_finite
            self._halves = self._halves if found.halves is None else found.halves.copy()
        return self

    def add(self, values: NDArray[Any], *, half: int = 0) -> bool:
        """Take one batch, of any shape; whether all its values are finite.

        Args:
            half: 0 or 1, whichever half of the data the batch belongs to.
        """
        shape = bins.split_shape(values.shape, self.axis)
        view = np.ascontiguousarray(values, np.float32).reshape(shape)
        if view.size == 0:
            return True
        outer, channels, inner = shape
        if self._minimum is None:
            self._start(channels, outer * inner)
        if outer * inner > self._codes.shape[1] - self._filled:
            self._flush()
        if outer * inner > self._codes.shape[1]:
            self._codes = np.zeros((channels, outer * inner), np.uint16)
        finite = True
        step = max(1, BLOCK // (outer * inner))
        for first in range(0, channels, step):
            finite &= self._take(view[:, first : first + step], first, self._halves[half])
        self._filled += outer * inner
        if not self._counted:
            # Rows for the counts exist from the first batch on, not only when codes fill up.
            self._flush()
        return finite

    @property
    def is_empty(self) -> bool:
        """Whether it has seen no value."""
        return self._minimum is None

    def _start(self, channels: int, row: int) -> None:
        self._minimum = np.full(channels, np.inf, np.float32)
        self._maximum = np.full(channels, -np.inf, np.float32)
        self._counts = np.zeros((channels, 2 + 2 * bins.magnitude_bins(self._top)), np.uint32)
        # Written to, not just reserved: memory is the same from the first batch on.
        self._codes = np.full((channels, max(row, ROW)), 0, np.uint16)

    def note(self, found: NotFinite) -> None:
        """Keep the first of the places where a value is not finite."""
        self._first = min(filter(None, (self._first, found)))

    def _take(self, block: NDArray[np.float32], first: int, half: NDArray[np.float32]) -> bool:
        """Extremes and codes of some channels, (outer, channels, inner)."""
        assert self._minimum is not None  # noqa: S101
        assert self._maximum is not None  # noqa: S101
        outer, channels, inner = block.shape
        # Over the samples first: numpy is slow along a short last axis.
        minimum, maximum = block.min(axis=0).min(axis=1), block.max(axis=0).max(axis=1)
        finite = bool(np.isfinite(minimum).all() and np.isfinite(maximum).all())
        if not finite:
            good = np.isfinite(block)
            minimum = np.where(good, block, np.float32(np.inf)).min(axis=(0, 2))
            maximum = np.where(good, block, np.float32(-np.inf)).max(axis=(0, 2))
        here = slice(first, first + channels)
        np.minimum(self._minimum[here], minimum, out=self._minimum[here])
        np.maximum(self._maximum[here], maximum, out=self._maximum[here])
        half[0], half[1] = min(half[0], minimum.min()), max(half[1], maximum.max())
        place = self._codes[here, self._filled : self._filled + outer * inner]
        bins.write_codes(block, place.reshape(channels, outer, inner).transpose(1, 0, 2))
        return finite

    def _flush(self) -> None:
        """Count the collected codes."""
        if not self._filled or self._minimum is None or self._maximum is None:
            return
        extremes = np.concatenate([self._minimum, self._maximum])
        largest = float(np.abs(extremes[np.isfinite(extremes)]).max(initial=0.0))
        top = max(self._top, bins.top_of(largest))
        self._counted += self._filled
        if self._counted > LARGEST and self._counts.dtype == np.uint32:
            self._counts = self._counts.astype(np.int64)
        if top != self._top:
            self._counts = bins.regrow(self._counts, self._top, top)
            # Written to, so that memory does not creep up as rarer values find their bins.
            self._counts |= self._counts.dtype.type(0)
        self._top = top
        step = max(1, BLOCK // self._filled)
        for first in range(0, len(self._codes), step):
            here = slice(first, first + step)
            add_counts(self._codes[here, : self._filled], self._counts[here], top)
        self._filled = 0

    def finish(self) -> TensorStatistics | None:
        """The statistics so far; None if no value was seen."""
        self._flush()
        if self._minimum is None or self._maximum is None:
            return None
        return TensorStatistics(
            self.axis, self._minimum.copy(), self._maximum.copy(),
            self._counts[:, :-1].astype(np.int64), self._top, int(self._counts[:, -1].sum()),
            self._first, self._halves.copy(),
        )  # fmt: skip
