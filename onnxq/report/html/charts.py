"""Numbers to SVG path data and positions; what is written or colored is the template's business.

Each function returns coordinates in a box of fixed size, rounded to a tenth, so that pages stay
small and the same numbers give the same bytes.
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

WIDTH, HEIGHT = 240, 64
"""Box of a histogram."""

COLUMNS = 80
"""Columns of a histogram."""

BOX_HEIGHT = 90
"""Height of a row of boxplots."""

BOX_STEP = 8
"""Width that one boxplot takes."""


def _c(value: float) -> str:
    """A coordinate."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


@dataclass(frozen=True)
class Histogram:
    """One tensor's values with the range that its format covers.

    Attributes:
        path: outline of the columns, whose heights are logarithms of counts.
        low, high: the ends of the picture.
        left, right: where the range begins and ends in it; None without a range.
        zero: where 0 lies.
    """

    path: str
    low: float
    high: float
    left: float | None
    right: float | None
    zero: float


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
    step = WIDTH / COLUMNS
    parts = [f"M0 {HEIGHT}"]
    for index, height in enumerate(heights):
        parts.append(f"V{_c(HEIGHT - height * (HEIGHT - 4))}H{_c((index + 1) * step)}")
    path = "".join(parts) + f"V{HEIGHT}Z"

    def place(value: float) -> float:
        return round(WIDTH * (value - low) / span, 1)

    left, right = (None, None) if parameters is None else map(place, parameters.range)
    return Histogram(path, low, high, left, right, place(0.0))


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
    """Boxplots side by side: whiskers, boxes and medians as one path each."""

    whiskers: str
    boxes: str
    medians: str
    width: int
    low: float
    high: float
    zero: float


def boxplots(channels: Sequence[Floats], limit: float) -> Boxes:
    """One boxplot for each channel's weights, on an axis from −limit to limit."""
    limit = limit or 1.0

    def place(value: float) -> str:
        return _c(BOX_HEIGHT / 2 * (1 - value / limit))

    whiskers, boxes, medians = [], [], []
    for index, weights in enumerate(channels):
        low, first, middle, third, high = np.quantile(weights, [0, 0.25, 0.5, 0.75, 1])
        left, x = index * BOX_STEP + 1, _c(index * BOX_STEP + BOX_STEP / 2)
        right = left + BOX_STEP - 2
        whiskers.append(f"M{x} {place(low)}V{place(high)}")
        boxes.append(f"M{left} {place(third)}H{right}V{place(first)}H{left}Z")
        medians.append(f"M{left} {place(middle)}H{right}")
    width = max(len(channels), 1) * BOX_STEP
    return Boxes(
        "".join(whiskers), "".join(boxes), "".join(medians), width, -limit, limit, BOX_HEIGHT / 2
    )


@dataclass(frozen=True)
class Quartiles:
    """Five positions of a horizontal boxplot in a box of `WIDTH`, and the median itself."""

    low: float
    first: float
    middle: float
    third: float
    high: float
    median: float


OCTAVES = 8
"""Octaves below the widest channel that the row of quartiles shows."""


def channel_spread(magnitudes: Floats) -> Quartiles | None:
    """The largest weights of the channels against the widest, on a logarithmic axis."""
    used = magnitudes[magnitudes > 0]
    if not used.size:
        return None
    share = used / used.max()
    points = np.quantile(share, [0, 0.25, 0.5, 0.75, 1])
    places = np.round(WIDTH * np.clip(1 + np.log2(points) / OCTAVES, 0, 1), 1)
    low, first, middle, third, high = map(float, places)
    return Quartiles(low, first, middle, third, high, 100 * float(points[2]))


@dataclass(frozen=True)
class Curve:
    """A polyline and its points, for hovering: (x, y, number of layers, value)."""

    path: str
    points: tuple[tuple[float, float, int, float], ...]
    low: float
    high: float


CURVE_WIDTH, CURVE_HEIGHT = 640, 180


def sensitivity_curve(shares: Sequence[float], whole: float) -> Curve | None:
    """SQNR to expect if the first k layers stayed in float, were their errors independent.

    Args:
        shares: of the output error, %, the largest first.
        whole: SQNR of all layers together, dB.
    """
    if not shares or not math.isfinite(whole):
        return None
    left = 100.0 - np.concatenate([[0.0], np.cumsum(shares)])
    known = left > 0.05
    values = whole - 10 * np.log10(left[known] / 100)
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    points = []
    for index, value in enumerate(values):
        x = CURVE_WIDTH * index / max(len(values) - 1, 1)
        y = CURVE_HEIGHT * (1 - (float(value) - low) / span)
        points.append((round(x, 1), round(y, 1), index, float(value)))
    path = "M" + "L".join(f"{_c(x)} {_c(y)}" for x, y, _, _ in points)
    return Curve(path, tuple(points), low, high)
