"""Accumulate one tensor's statistics batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.statistics import TensorStatistics

BUFFERED_PER_CELL = 2
"""Values to collect for each histogram cell before they are counted: scanning a histogram of
many channels costs as much as counting a value into each of its cells."""

BUFFER_LIMIT = 1 << 22
"""Values after which a buffer is counted in any case (2 bytes each)."""


class Accumulator:
    """Statistics of one tensor while it streams by; `finish` gives the frozen result.

    It keeps the extremes exactly and collects the leading half-words of the values, which are
    their bin numbers, until counting them is cheap.
    """

    def __init__(self, axis: int | None) -> None:
        self._axis = axis
        self._minimum: NDArray[np.float32] | None = None
        self._maximum: NDArray[np.float32] | None = None
        self._counts: NDArray[np.int64] | None = None
        self._top = bins.FLOOR + 1
        self._buffer: list[NDArray[np.uint16]] = []
        self._buffered = 0
        self._not_finite = 0

    def add(self, values: NDArray[Any]) -> bool:
        """Take one batch, float32 of any shape; whether all its values are finite."""
        shape = bins.split_shape(values.shape, self._axis)
        view = np.ascontiguousarray(values, np.float32).reshape(shape)
        if view.size == 0:
            return True
        minimum, maximum = view.min(axis=2).min(axis=0), view.max(axis=2).max(axis=0)
        finite = bool(np.isfinite(minimum).all() and np.isfinite(maximum).all())
        if not finite:
            good = np.isfinite(view)
            minimum = np.where(good, view, np.inf).min(axis=(0, 2)).astype(np.float32)
            maximum = np.where(good, view, -np.inf).max(axis=(0, 2)).astype(np.float32)
        if self._minimum is None or self._maximum is None:
            self._minimum, self._maximum = minimum, maximum
        else:
            self._minimum = np.minimum(self._minimum, minimum)
            self._maximum = np.maximum(self._maximum, maximum)
        self._buffer.append(bins.high_half(view))
        self._buffered += view.size
        cells = shape[1] * 2 * bins.magnitude_bins(self._needed_top())
        if self._buffered >= min(BUFFERED_PER_CELL * cells, BUFFER_LIMIT):
            self._flush()
        return finite

    def _needed_top(self) -> int:
        extremes = np.concatenate([self._minimum, self._maximum])
        return bins.top_of(float(np.abs(extremes[np.isfinite(extremes)]).max(initial=0.0)))

    def _flush(self) -> None:
        if not self._buffer:
            return
        top = max(self._top, self._needed_top())
        channels = self._buffer[0].shape[1]
        columns = np.zeros((channels, 2 + 2 * bins.magnitude_bins(top)), np.int64)
        index = np.arange(channels, dtype=np.intp)[None, :, None]
        if len({part.shape[2] for part in self._buffer}) == 1:
            columns = bins.count_columns(np.concatenate(self._buffer), index, channels, top)
        else:
            for part in self._buffer:
                columns += bins.count_columns(part, index, channels, top)
        if self._counts is None:
            self._counts = columns[:, :-1].copy()
        else:
            self._counts = bins.regrow(self._counts, self._top, top)
            self._counts += columns[:, :-1]
        self._not_finite += int(columns[:, -1].sum())
        self._top, self._buffer, self._buffered = top, [], 0

    def finish(self) -> TensorStatistics | None:
        """The statistics; None if no value was seen."""
        self._flush()
        if self._minimum is None or self._maximum is None or self._counts is None:
            return None
        return TensorStatistics(
            self._axis, self._minimum, self._maximum, self._counts, self._top, self._not_finite
        )
