"""Numbers to what charts show: heights, quartiles, curves; how they are drawn is the scripts' part.

Places are whole numbers on a scale of `FULL`, so that pages stay small and the same numbers give
the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.statistics import TensorStatistics
from onnxq.formats.parameters import Parameters

Floats = NDArray[np.float64]

FULL = 1000
"""Places from one end of a chart to the other."""

COLUMNS = 80
"""Columns of a histogram."""


@dataclass(frozen=True)
class Histogram:
    """One tensor's values.

    Attributes:
        columns: heights of the columns, logarithms of counts, the highest of them `FULL`.
        low, high: where the first begins and the last ends.
    """

    columns: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Seen:
    """A tensor's values: `statistics` less one offset for all, which moves bins without loss."""

    statistics: TensorStatistics
    offset: float = 0.0

    @property
    def low(self) -> float:
        return self.statistics.low - self.offset

    @property
    def high(self) -> float:
        return self.statistics.high - self.offset

    def bins(self) -> tuple[Floats, Floats, Floats]:
        """Lower ends, upper ends and counts of the bins in use, within the exact extremes.

        So what saturates at a bound lies at it, and not half a bin beyond.
        """
        edges = bins.edges(self.statistics.top)
        below, above = edges[:-1], edges[1:]
        counts = self.statistics.pooled.astype(np.float64)
        used = counts > 0
        low = np.concatenate([[0.0], below, -above])[used]
        high = np.concatenate([[0.0], above, -below])[used]
        ends = (self.statistics.low, self.statistics.high)
        return np.clip(low, *ends) - self.offset, np.clip(high, *ends) - self.offset, counts[used]


def histogram(seen: Seen, parameters: Parameters | None) -> Histogram:
    """Draw a tensor's pooled histogram over linear columns."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if parameters is not None:
        start, end = parameters.range
        low, high = min(low, start), max(high, end)
    span = (high - low) or 1.0
    edges = low + span * np.arange(COLUMNS + 1) / COLUMNS
    columns = _spread(*seen.bins(), edges)
    heights = np.log1p(columns) / max(float(np.log1p(columns.max())), 1e-9)
    return Histogram(tuple(np.rint(FULL * heights).astype(int).tolist()), low, high)


def clipped_share(seen: Seen, parameters: Parameters) -> float:
    """Values beyond the range by more than half a step, %, to the width of a histogram bin."""
    low, high, counts = seen.bins()
    step = 0.501 * float(parameters.scale)
    start, end = parameters.range[0] - step, parameters.range[1] + step
    inside = np.minimum(high, end) - np.maximum(low, start)
    width = high - low
    spike = (low >= start) & (low <= end)
    share = np.where(width > 0, np.clip(inside / np.where(width > 0, width, 1), 0, 1), spike)
    beyond = float((counts * (1 - share)).sum())
    return 100 * beyond / max(float(counts.sum()), 1.0)


def _spread(low: Floats, high: Floats, counts: Floats, edges: Floats) -> Floats:
    """Counts by column; a bin wider than a column gives each its part."""
    total = np.zeros(len(edges) - 1)
    for start, end, count in zip(low, high, counts, strict=True):
        if end <= start:
            index = int(np.clip(np.searchsorted(edges, start, "right") - 1, 0, len(total) - 1))
            total[index] += count
            continue
        overlap = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
        total += count * np.maximum(overlap, 0) / (end - start)
    return total


@dataclass(frozen=True)
class Boxes:
    """Boxplots side by side on one axis.

    Attributes:
        quartiles: of each channel least, first quartile, median, third quartile and largest value,
            in places from −`limit` to `limit`.
    """

    quartiles: tuple[tuple[int, ...], ...]
    limit: float


def boxplots(channels: Sequence[Floats], limit: float) -> Boxes:
    """One boxplot for each channel's weights, on an axis from −limit to limit."""
    limit = limit or 1.0
    found = [np.quantile(weights, [0, 0.25, 0.5, 0.75, 1]) for weights in channels]
    places = [np.rint(FULL * (1 + each / limit) / 2).astype(int).tolist() for each in found]
    return Boxes(tuple(map(tuple, places)), limit)


@dataclass(frozen=True)
class Quartiles:
    """The channels of a weight by their largest value, against the widest channel.

    Attributes:
        places: least, first quartile, median, third quartile and largest, on a logarithmic axis of
            `OCTAVES` octaves that ends at the widest.
        median: that of the median channel, % of the widest.
    """

    places: tuple[int, ...]
    median: float


OCTAVES = 8
"""Octaves below the widest channel that the row of quartiles shows."""


def channel_spread(magnitudes: Floats) -> Quartiles | None:
    """The largest weights of the channels against the widest; None where all are 0."""
    used = magnitudes[magnitudes > 0]
    if not used.size:
        return None
    share = used / used.max()
    points = np.quantile(share, [0, 0.25, 0.5, 0.75, 1])
    places = np.rint(FULL * np.clip(1 + np.log2(points) / OCTAVES, 0, 1)).astype(int)
    return Quartiles(tuple(places.tolist()), 100 * float(points[2]))


def sensitivity_curve(shares: Sequence[float], whole: float) -> tuple[float, ...]:
    """SQNR to expect if the first k layers stayed in float, were their errors independent, dB.

    Args:
        shares: of the output error, %, the largest first.
        whole: SQNR of all layers together, dB.

    Returns:
        One value for each k from 0 on, as long as there is any error left; () for none.
    """
    if not shares or not math.isfinite(whole):
        return ()
    left = 100.0 - np.concatenate([[0.0], np.cumsum(shares)])
    values = whole - 10 * np.log10(left[left > 0.05] / 100)
    return tuple(map(float, values))
