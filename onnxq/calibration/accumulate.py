"""Accumulate one tensor's statistics batch by batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.compiled import Loops
from onnxq.calibration.count import BLOCK, add_counts
from onnxq.calibration.halves import BOTH, FIRST, Halves
from onnxq.calibration.statistics import NotFinite, TensorStatistics
from onnxq.model.blocked import Observed

ROW = 2048
"""Codes of each channel to collect before they are counted: counting has a cost for each occupied
bin, which many values should share."""

PASSING = 1 << 20
"""Elements of a sample, or codes of a batch, beyond which nothing as large is kept for each tensor:
codes are counted at once and extremes brought down to the channels."""

WIDTHS = (np.uint16, np.uint32, np.int64)
"""Types of counts; the first that holds all values of a channel is taken."""

Floats = NDArray[np.float32]


class Accumulator:
    """Statistics of one tensor while it streams by; `finish` gives the frozen result.

    It keeps the extremes exactly and collects the leading bits of the values, which are their
    bin numbers, until counting them is cheap. Its memory is fixed by the first batch.

    Extremes are kept for each element of a sample and brought down to the channels at the end:
    comparing whole arrays is several times faster than reducing short rows. Compiled loops, where
    they are given, do the same without that detour.

    Args:
        axis: the channel axis, None where the whole tensor is one channel.
        step: every so many-th position is counted.
        loops: the compiled loops, where there are some.
        apart: whether axis 0 tells the samples of a batch apart, of which there may be but one.
    """

    def __init__(
        self, axis: int | None, step: int = 1, loops: Loops | None = None, *, apart: bool = True
    ) -> None:
        self.axis = axis
        self.step = step
        self.apart = apart
        self._loops = loops
        self._minimum: Floats | None = None
        self._maximum: Floats | None = None
        self._low: Floats = np.zeros(0, np.float32)
        self._high: Floats = np.zeros(0, np.float32)
        self._sides: tuple[int, ...] = ()
        self._counts: NDArray[Any] = np.zeros((0, 0), WIDTHS[0])
        self._counted = 0
        self._top = bins.FLOOR + 1
        self._codes = np.zeros((0, 0, 0), np.uint16)
        self._filled = 0
        self._halves = np.array([[np.inf, -np.inf]] * 2, np.float32)
        self._not_finite = 0
        self._first: NotFinite | None = None

    @classmethod
    def of(
        cls, axis: int | None, found: TensorStatistics | None, step: int = 1,
        loops: Loops | None = None, *, apart: bool = True,
    ) -> Accumulator:  # fmt: skip
        """One that goes on where another, which found this, had stopped."""
        self = cls(axis, step, loops, apart=apart)
        if found is not None:
            self._start(found.channels)
            self._minimum, self._maximum = found.minimum.copy(), found.maximum.copy()
            self._counts = np.pad(found.counts, ((0, 0), (0, 1)))
            self._not_finite = found.not_finite
            self._counted = int(self._counts.sum(axis=1).max())
            self._counts = self._counts.astype(_wide_enough(self._counted))
            self._top, self._first = found.top, found.first_not_finite
            self._halves = self._halves if found.halves is None else found.halves.copy()
        return self

    def add(
        self,
        observed: Observed | NDArray[Any],
        halves: Halves = FIRST,
        *,
        batches: int | None = None,
    ) -> bool:
        """Take one batch, of any shape; whether all its values are finite.

        Args:
            halves: that of each sample of the batch. Where nothing tells them apart the values
                count for both.
            batches: how many such batches there are; None where unknown.
        """
        if not isinstance(observed, Observed):
            observed = Observed(observed)
        # What pads the last block is no activation.
        if observed.block and (self.axis != 1 or observed.channels % observed.block):
            observed = Observed(observed.plain)
        values = np.ascontiguousarray(observed.values, np.float32)
        sides = _sides(observed, self.axis)
        if values.size == 0:
            return True
        _, outer, _, inner = sides
        view = values.reshape(sides)
        thin = view[:, :, self.step // 2 :: self.step]
        if self._minimum is None:
            self._start(outer * inner)
        positions = len(thin) * thin.shape[2]
        self._reserve(outer, positions, inner, ROW if batches is None else positions * batches)
        if self._loops is None:
            here = self._codes[:, self._filled : self._filled + positions]
            place = here.reshape(outer, len(thin), thin.shape[2], inner)
            bins.write_codes(thin, place.swapaxes(0, 1))
        owners = self._owners(halves, sides[0])
        finite = self._take(view, owners) or self._compare(
            values.reshape(sides[0], -1), sides[1:], owners
        )
        self._filled += positions
        if not self._counted or self._codes.size > PASSING:
            # Rows for the counts exist from the first batch on, not only when codes fill up.
            self._flush()
        if self._codes.size > PASSING:
            self._codes = np.zeros((0, 0, 0), np.uint16)
        return finite

    @property
    def is_empty(self) -> bool:
        """Whether it has seen no value."""
        return self._minimum is None

    def _start(self, channels: int) -> None:
        self._minimum = np.full(channels, np.inf, np.float32)
        self._maximum = np.full(channels, -np.inf, np.float32)
        self._counts = np.zeros((channels, 2 + 2 * bins.magnitude_bins(self._top)), WIDTHS[0])

    def _reserve(self, outer: int, positions: int, inner: int, expected: int) -> None:
        """Make room for codes (outer, positions, inner), behind those that are there.

        Args:
            expected: positions in all the data: there need be no room for more.
        """
        blocks, room, lanes = self._codes.shape
        if (outer, inner) != (blocks, lanes) or positions > room - self._filled:
            self._flush()
        if (outer, inner) != (blocks, lanes) or positions > room:
            # Written to, not just reserved: memory is the same from the first batch on.
            room = max(positions, min(expected, ROW))
            self._codes = np.zeros((outer, room, inner), np.uint16)
            if self._codes.size <= PASSING:
                self._codes |= np.uint16(0)

    def note(self, found: NotFinite) -> None:
        """Keep the first of the places where a value is not finite."""
        self._first = min(filter(None, (self._first, found)))

    def _owners(self, halves: Halves, repeats: int) -> Halves:
        """The half that each of the repeats belongs to; BOTH where that is not known."""
        if self.apart and repeats % len(halves) == 0:
            return halves.repeat(repeats // len(halves))
        return np.full(repeats, BOTH)

    def _take(self, view: Floats, owners: Halves) -> bool:
        """Write codes and update the extremes by compiled loops; whether that was possible.

        It is not where there are none, nor, for the extremes, where a value is not finite.
        """
        if self._loops is None or self._minimum is None or self._maximum is None:
            return False
        return self._loops.take(
            view, self.step, self._codes, self._filled, self._minimum, self._maximum,
            owners, self._halves,
        )  # fmt: skip

    def _compare(self, rows: Floats, sides: tuple[int, ...], owners: Halves) -> bool:
        """Update the extremes with rows (repeats, elements); whether all are finite."""
        if self._sides != sides:
            self._settle()
            self._sides = sides
            self._low = np.full(rows.shape[1], np.inf, np.float32)
            self._high = np.full(rows.shape[1], -np.inf, np.float32)
        all_finite = True
        mixed = bool((owners != owners[0]).any())
        step = max(1, BLOCK // len(rows))
        for first in range(0, rows.shape[1], step):
            here = slice(first, first + step)
            small = large = rows[:, here]
            low, high = np.minimum.reduce(small, axis=0), np.maximum.reduce(large, axis=0)
            if not (math.isfinite(low.min()) and math.isfinite(high.max())):
                all_finite = False
                good = np.isfinite(small)
                self._not_finite += int(good.size - np.count_nonzero(good))
                small = np.where(good, small, np.float32(np.inf))
                large = np.where(good, large, np.float32(-np.inf))
                low, high = small.min(axis=0), large.max(axis=0)
            np.minimum(self._low[here], low, out=self._low[here])
            np.maximum(self._high[here], high, out=self._high[here])
            if mixed:
                self._halve(owners, small.min(axis=1), large.max(axis=1))
            else:
                self._halve(owners[:1], low.min(keepdims=True), high.max(keepdims=True))
        if rows.shape[1] > PASSING:
            self._settle()
            self._sides, self._low, self._high = (), self._low[:0].copy(), self._high[:0].copy()
        return all_finite

    def _halve(self, owners: Halves, least: Floats, most: Floats) -> None:
        """Update the extremes of the halves with those of rows (rows,)."""
        for number, half in enumerate(self._halves):
            mine = (owners == number) | (owners == BOTH)
            half[0] = min(half[0], least[mine].min(initial=np.inf))
            half[1] = max(half[1], most[mine].max(initial=-np.inf))

    def _settle(self) -> None:
        """Bring the extremes of the elements down to the channels."""
        if not self._sides or self._minimum is None or self._maximum is None:
            return
        low, high = self._low.reshape(self._sides), self._high.reshape(self._sides)
        # + 0: of −0 and +0 either may be the smaller one.
        low, high = low.min(axis=1).ravel(), high.max(axis=1).ravel()
        self._minimum = np.minimum(self._minimum, low) + np.float32(0)
        self._maximum = np.maximum(self._maximum, high) + np.float32(0)

    def _flush(self) -> None:
        """Count the collected codes."""
        if not self._filled:
            return
        seen = self._halves[np.isfinite(self._halves)]
        top = max(self._top, bins.top_of(float(np.abs(seen).max(initial=0.0))))
        self._counted += self._filled
        self._counts = self._counts.astype(_wide_enough(self._counted), copy=False)
        if top != self._top:
            self._counts = bins.regrow(self._counts, self._top, top)
            # Written to, so that memory does not creep up as rarer values find their bins.
            self._counts |= self._counts.dtype.type(0)
        self._top = top
        if self._loops:
            self._loops.count(self._codes, self._filled, self._counts, top)
        else:
            add_counts(self._codes[:, : self._filled], self._counts, top)
        self._filled = 0

    def finish(self) -> TensorStatistics | None:
        """The statistics so far; None if no value was seen.

        They share the counts, which fill the memory: let go of them before more values are added.
        """
        self._flush()
        self._settle()
        if self._minimum is None or self._maximum is None:
            return None
        counts = self._counts
        if counts.dtype == np.uint32 and self._counted <= np.iinfo(np.int32).max:
            counts = counts.view(np.int32)  # the same bits, so that no copy is made
        return TensorStatistics(
            self.axis, self._minimum.copy(), self._maximum.copy(), counts[:, :-1], self._top,
            self._not_finite, self._first, self._halves + np.float32(0), self.step,
        )  # fmt: skip


def _wide_enough(values: int) -> type[np.integer[Any]]:
    """The type of counts of a channel with so many values."""
    return next(width for width in WIDTHS if values <= np.iinfo(width).max)


def _sides(observed: Observed, axis: int | None) -> tuple[int, int, int, int]:
    """Sizes (repeats, outer, positions, inner): a channel is an (outer, inner).

    Repeats are samples, and positions of a sample before its channels where others come after.
    """
    shape, block = observed.values.shape, observed.block
    if axis is None or not shape:
        samples = shape[0] if shape else 1
        return samples, 1, math.prod(shape[1:]), 1
    # Of one position each, the channels of all blocks lie side by side.
    if block and math.prod(shape[2:]) == 1:
        return shape[0], 1, 1, shape[1]
    if block:
        return shape[0], shape[1] // block, math.prod(shape[2:]), block
    before, after = math.prod(shape[1:axis]), math.prod(shape[axis + 1 :])
    samples = shape[0] if axis else 1
    if after == 1:
        return samples, 1, before, shape[axis]
    return samples * before, shape[axis], after, 1
