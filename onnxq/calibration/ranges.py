"""Range estimators: from a histogram to the interval that a format will cover.

All of them read the same calibration file and none sees the data again. The functions take a
`Distribution` and return (low, high) with low ≤ 0 ≤ high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.statistics import TensorStatistics

Range = tuple[float, float]
Floats = NDArray[np.float64]

AUTO = "auto"
"""Name of the estimator that looks at what an error costs behind the readers of a tensor."""

PERCENTILE = 99.999
"""Share of the values, in percent, that the percentile estimator keeps."""

ENTROPY_BINS = 2048
"""Linear bins the entropy estimator compares distributions on."""

FAR_MORE = 2.0
"""Times: by how much one end of a range gains more than the other to be set first."""

COARSE = 7
"""Candidates from one to the next in the first round of a fast search."""

_CANDIDATES = np.linspace(0.3, 1.0, 141)
"""Shares of the largest magnitude that mse and entropy try."""

_SMALLER = np.concatenate(
    [np.geomspace(_CANDIDATES[0] / 256, _CANDIDATES[0], 112, endpoint=False), _CANDIDATES]
)
"""Those of a search for what an error costs: behind a SiLU negative values are worth nothing,
however far they reach."""


@dataclass(frozen=True)
class Distribution:
    """A weighted histogram: bin values, half-widths and weights, and the exact extremes."""

    values: Floats
    half: Floats
    counts: Floats
    low: float
    high: float


def distribution(
    parts: Sequence[tuple[TensorStatistics, NDArray[np.float64] | None]],
) -> Distribution:
    """Pool tensors that will share a range.

    Args:
        parts: statistics, and how much an error in each channel matters (channels,), None for
            all alike.
    """
    top = max(statistics.top for statistics, _ in parts)
    values, width = bins.column_values(top), np.diff(bins.edges(top)) / 2
    counts = np.zeros(len(values))
    for statistics, gain in parts:
        counts += bins.regrow(_row(statistics, gain)[None, :], statistics.top, top)[0]
    used = counts > 0
    return Distribution(
        values[used],
        np.concatenate([[0.0], width, width])[used], counts[used],
        min(0.0, *(s.low for s, _ in parts)), max(0.0, *(s.high for s, _ in parts)),
    )  # fmt: skip


def _row(statistics: TensorStatistics, gain: NDArray[np.float64] | None) -> Floats:
    """The histogram row of a tensor whose channels count by their gains."""
    if gain is None or len(gain) != statistics.channels or not gain.any():
        return statistics.pooled.astype(np.float64)
    return np.asarray(gain @ statistics.counts * (len(gain) / gain.sum()))


def bounds_of(low: float, high: float, *, symmetric: bool) -> Range:
    """The interval of all values; (0, 0) where it is empty or has no end."""
    if symmetric:
        bound = max(-low, high)
        low, high = (-bound, bound)
    if not low < high or not math.isfinite(high - low):
        return 0.0, 0.0
    return low, high


def estimate(data: Distribution, method: str, *, levels: int, symmetric: bool) -> Range:
    """The range of a tensor, or of several that share one.

    Args:
        data: their values.
        method: a key of `ESTIMATORS`.
        levels: number of quantization levels.
        symmetric: whether the interval will be centred on zero.
    """
    bounds = bounds_of(data.low, data.high, symmetric=symmetric)
    return ESTIMATORS[method](data, bounds, levels) if any(bounds) else bounds


def _minmax(_data: Distribution, bounds: Range, _levels: int) -> Range:
    return bounds


def _percentile(data: Distribution, bounds: Range, _levels: int) -> Range:
    values, half, counts = data.values, data.half, data.counts
    low, high = bounds
    tail = counts.sum() * (1 - PERCENTILE / 100)
    if -low == high:
        order = np.argsort(np.abs(values))
        outer = np.abs(values[order]) + half[order]
        kept = outer[: _kept(counts[order], tail)].max()
        return -min(kept, high), min(kept, high)
    order = np.argsort(values)
    above = (values + half)[order][: _kept(counts[order], tail)].max()
    below = (values - half)[order][::-1][: _kept(counts[order][::-1], tail)].min()
    return max(min(below, 0.0), low), min(max(above, 0.0), high)


def _kept(counts: Floats, tail: float) -> int:
    """How many leading bins leave at most `tail` values behind them."""
    return int(np.searchsorted(np.cumsum(counts), counts.sum() - tail)) + 1


def noise(values: Floats, counts: Floats, candidate: Range, levels: int) -> float:
    """Expected squared error of quantizing the histogram to `levels` over `candidate`.

    Inside, the error is uniform over a step (Δ²/12) but never more than the value's own square;
    outside, it is the distance to the nearer end.
    """
    low, high = candidate
    step = (high - low) / (levels - 1)
    inside = np.minimum(step * step / 12, values * values)
    outside = np.maximum(np.maximum(values - high, low - values), 0.0)
    return float(counts @ (inside + outside * outside))


def search(bounds: Range, loss: Callable[[Range], float]) -> Range:
    """The shrunken interval of least loss; the widest among equals."""
    low, high = bounds
    if -low == high:
        return min(((-high * s, high * s) for s in _CANDIDATES[::-1]), key=loss)
    best = min(((low, high * s) for s in _CANDIDATES[::-1]), key=loss)
    return min(((low * s, best[1]) for s in _CANDIDATES[::-1]), key=loss)


def search_fast(bounds: Range, loss: Callable[[Range], float], inner: Range = (0.0, 0.0)) -> Range:
    """The interval of least loss, shrunken as far as it takes, where the loss has one valley, but
    for small ripples: each `COARSE`-th candidate first, then those around the best of them.

    The upper end is set first, unless the lower one gains `FAR_MORE` by itself. Not again beside
    the other: from turn to turn ranges become narrower, and what is clipped on other data costs
    more than this gains.

    Args:
        inner: what it must hold.
    """
    shares: list[float] = _SMALLER[::-1].tolist()

    def shrunken(below: float, above: float) -> Range:
        return min(low * below, inner[0]), max(high * above, inner[1])

    def best(made: Callable[[float], Range]) -> Range:
        first = min(range(0, len(shares), COARSE), key=lambda place: loss(made(shares[place])))
        near = range(max(0, first - COARSE + 1), min(len(shares), first + COARSE))
        return made(shares[min(near, key=lambda place: loss(made(shares[place])))])

    low, high = bounds
    if -low == high or not (low and high):
        return best(lambda share: shrunken(share, share))
    above, below = best(lambda share: shrunken(1, share)), best(lambda share: shrunken(share, 1))
    if loss(below) > loss(above) / FAR_MORE:
        return best(lambda share: (shrunken(share, 1)[0], above[1]))
    return best(lambda share: (below[0], shrunken(1, share)[1]))


def _mse(data: Distribution, bounds: Range, levels: int) -> Range:
    values, counts = data.values, data.counts
    return search(bounds, lambda candidate: noise(values, counts, candidate, levels))


def _entropy(data: Distribution, bounds: Range, levels: int) -> Range:
    """Least Kullback–Leibler divergence on 2,048 linear bins (Migacz, GTC 2017).

    Unlike its common form, the reference distribution keeps the clipped mass in its outer bins
    and every candidate is compared on the same bins. Shares of values do not tell how far the
    clipped ones are: where a few hold most of the power, as one channel behind a GELU does, it
    would cut them off for the sake of the many. So only ranges count whose expected squared error
    is no larger than that of the whole range.
    """
    values, half, counts = data.values, data.half, data.counts
    low, high = bounds
    reference = _linear_histogram(values, half, counts, bounds)
    centers = low + (np.arange(ENTROPY_BINS) + 0.5) * (high - low) / ENTROPY_BINS

    most = noise(values, counts, bounds, levels)

    def loss(candidate: Range) -> float:
        if noise(values, counts, candidate, levels) > most:
            return math.inf
        first, last = candidate
        clipped = np.clip(centers, first, last)
        step = (last - first) / (levels - 1)
        cell = np.rint((clipped - first) / step).astype(np.int64)
        inside = (centers >= first) & (centers <= last)
        folded = np.bincount(
            np.clip(np.searchsorted(centers, clipped), 0, ENTROPY_BINS - 1),
            reference, ENTROPY_BINS,
        )  # fmt: skip
        occupied = inside & (reference > 0)
        mass = np.bincount(cell[inside], reference[inside], levels)
        cells = np.bincount(cell[occupied], minlength=levels)
        model = np.where(occupied, (mass / np.maximum(cells, 1))[np.clip(cell, 0, levels - 1)], 0)
        p, q = folded / folded.sum(), model / max(model.sum(), 1e-30)
        used = p > 0
        return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))))

    return search(bounds, loss)


def _linear_histogram(values: Floats, half: Floats, counts: Floats, bounds: Range) -> Floats:
    """Spread each bin evenly over the linear bins it overlaps, through the cumulative count."""
    order = np.argsort(values)
    knots, mass = [], []
    total = 0.0
    for value, width, count in zip(values[order], half[order], counts[order], strict=True):
        knots += [value - width, value + width]
        mass += [total, total + count]
        total += count
    grid = np.linspace(bounds[0], bounds[1], ENTROPY_BINS + 1)
    cumulative = np.interp(grid, np.array(knots) + 0.0, mass, left=0.0, right=total)
    cumulative[0], cumulative[-1] = 0.0, total
    return np.diff(cumulative)


ESTIMATORS: Mapping[str, Callable[[Distribution, Range, int], Range]] = MappingProxyType(
    {
        "minmax": _minmax,
        "percentile": _percentile,
        "entropy": _entropy,
        "mse": _mse,
        AUTO: _mse,
    }
)
"""By name. `AUTO` is mse where nobody knows what reads the tensor, see `calibration.behind`."""
