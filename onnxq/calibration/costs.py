"""What errors of a tensor cost at the outputs, to first order.

With g the gradient of an element and e its error, outputs are wrong by Σ g·e (Taylor). Rounding
errors are independent of each other, so their squares add: Σ g²·e². What a range cuts off is not:
values of one sign all become smaller, so of each sample the sum is squared, (Σ g·e)².

Gradients are in units of the outputs' own standard deviations, so a cost of 1 is an error as large
as what one element of an output varies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins, compiled
from onnxq.refusal import Refusal

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

STEPS = (1, 2, 4, 4)
"""Bins from one end to the next in the octaves below the largest magnitude, in their order; below
them the next end is 0."""


def ends_of(largest: float) -> Floats:
    """Magnitudes (ends,) ascending, at which a side of a tensor may be cut off, edges of bins.

    The last one is not below `largest`; only 0 where a side has no values.
    """
    if not largest > 2.0**bins.FLOOR:
        return np.zeros(1)
    edges = bins.edges(bins.top_of(largest))
    last = int(np.searchsorted(edges, largest))
    steps = np.repeat(STEPS, [bins.BINS_PER_OCTAVE // step for step in STEPS])
    places = last - np.concatenate([[0], np.cumsum(steps)])
    return np.concatenate([[0.0], edges[places[places > 0]][::-1]])


@dataclass(frozen=True)
class TensorCosts:
    """What errors of one tensor cost, summed over samples.

    Attributes:
        samples: how many; one counts as often as signs of outputs were drawn for it.
        top: exponent above every magnitude that was calibrated.
        power: (1 + 2·magnitude_bins(top),): Σ g² of the elements in each bin, see `bins`.
        below, above: magnitudes (ends,) at which negative and positive values are cut off, see
            `ends_of`.
        products: (ends, ends), those below and then those above: Σ over samples of a·aᵀ, with
            a = Σ g·(x − end) of the elements beyond each end.
    """

    samples: int
    top: int
    power: Floats
    below: Floats
    above: Floats
    products: Floats

    @cached_property
    def _weighed(self) -> tuple[Floats, Floats, Floats]:
        """Values, their squares and Σ g² of the bins in which there is any."""
        used = self.power > 0
        values = bins.column_values(self.top)[used]
        return values, np.square(values), self.power[used]

    def rounding(self, step: float) -> float:
        """Cost of values rounded to multiples of a step: an even error, none above the value."""
        _, squares, power = self._weighed
        return float(power @ np.minimum(step * step / 12, squares))

    def clipping(self, low: Any, high: Any) -> Floats:
        """Cost of cutting values off at low ≤ 0 and at high ≥ 0: numbers or arrays of them.

        Between two ends the sums are interpolated.
        """
        low, high = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
        one, share = _between(self.below, -low)
        other, part = _between(self.above, high)
        first = len(self.below)
        places = np.stack([one, np.minimum(one + 1, first - 1), first + other,
                           np.minimum(first + other + 1, len(self.products) - 1)])  # fmt: skip
        weights = np.stack([1 - share, share, 1 - part, part])
        found = self.products[places[:, None], places[None, :]]
        cost: Floats = np.maximum((weights[:, None] * weights[None, :] * found).sum((0, 1)), 0.0)
        return cost

    def spread_clipping(self, low: float, high: float) -> float:
        """The same as if what is cut off were independent: Σ g²·(x − end)²."""
        values, _, power = self._weighed
        return float(power @ np.square(values - np.clip(values, low, high)))


def _between(ends: Floats, values: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The end before each value, and how much of the way to the next one it is."""
    place = np.clip(np.searchsorted(ends, values, side="right") - 1, 0, max(len(ends) - 2, 0))
    if len(ends) == 1:
        return place, np.zeros(values.shape)
    before, after = ends[place], ends[place + 1]
    return place, np.clip((values - before) / (after - before), 0.0, 1.0)


@dataclass(frozen=True)
class Costs:
    """What errors of a model's tensors cost at its outputs.

    Attributes:
        samples: on how many it was measured.
        tensors: tensor → its costs.
        refused: tensor → why nothing is known of it.
    """

    samples: int
    tensors: Mapping[str, TensorCosts]
    refused: Mapping[str, Refusal]


class CostSums:
    """Sums over the samples of one tensor while they come by.

    The result does not depend on the order of the samples.

    Args:
        top: exponent above every magnitude that was calibrated.
        low, high: smallest and largest value that was.
    """

    def __init__(self, top: int, low: float, high: float) -> None:
        self.top = top
        self._below, self._above = (_Side.of(largest, top) for largest in (-low, high))
        self._power = _Sum(1 + 2 * bins.magnitude_bins(self.top))
        self._beyond: list[list[float]] = []

    def of_sample(self, values: Singles, gradient: Singles) -> Floats:
        """(2, columns): Σ g² and Σ g of the elements in each bin, without those that are no number.

        Any thread may call it.
        """
        return bins.by_column(sums_by_code(values.ravel(), gradient.ravel()), self.top)

    def add(self, sums: Floats) -> None:
        """Take what `of_sample` gave."""
        positive, negative = np.split(sums[1, 1:], 2)
        beyond = np.concatenate([-self._below.beyond(negative), self._above.beyond(positive)])
        self._power.add(sums[0])
        self._beyond.append(beyond.tolist())

    def finish(self) -> TensorCosts:
        # In an order of their own.
        ends = len(self._below.ends) + len(self._above.ends)
        rows = np.array(sorted(self._beyond)).reshape(-1, ends)
        return TensorCosts(
            len(rows), self.top, self._power.total, self._below.ends,
            self._above.ends, np.einsum("si,sj->ij", rows, rows),
        )  # fmt: skip


BLOCK = 1 << 17
"""Elements at a time: what is computed of them stays in the cache."""


def sums_by_code(values: Singles, gradient: Singles) -> Floats:
    """(2, bins.CODES): Σ g² and Σ g of the elements with each code."""
    values, gradient = np.ascontiguousarray(values), np.ascontiguousarray(gradient)
    weigh = _weigh if (loops := compiled.loops()) is None else loops.weigh
    sums = np.zeros((2, bins.CODES))
    weigh(values[:BLOCK], gradient[:BLOCK], sums)
    for first in range(BLOCK, values.size, BLOCK):
        part = np.zeros_like(sums)
        weigh(values[first : first + BLOCK], gradient[first : first + BLOCK], part)
        sums += part
    return sums


def _weigh(values: Singles, gradient: Singles, sums: Floats) -> None:
    """What `compiled.Loops.weigh` does, to the same bits."""
    codes = np.empty(values.size, np.uint16)
    bins.write_codes(values, codes)
    places, slopes = codes.astype(np.intp), gradient.astype(np.float64)
    sums[1] += np.bincount(places, slopes, bins.CODES)
    sums[0] += np.bincount(places, np.square(slopes, out=slopes), bins.CODES)


@dataclass(frozen=True)
class _Side:
    """One side of a histogram: its ends, the bin that begins at each, and the bins' centers."""

    ends: Floats
    places: NDArray[np.intp]
    centers: Floats

    @classmethod
    def of(cls, largest: float, top: int) -> _Side:
        ends = ends_of(largest)
        return cls(ends, np.searchsorted(bins.edges(top), ends), bins.centers(top))

    def beyond(self, gradients: Floats) -> Floats:
        """Σ g·(|x| − end) of the elements beyond each end, from Σ g of each bin; 0 of the last."""
        sums = np.stack([gradients, gradients * self.centers])
        # What lies beyond the last end was not there when the tensor was calibrated.
        parts = (
            np.add.reduceat(sums, self.places[:-1], axis=1) if len(self.ends) > 1 else sums[:, :0]
        )
        outer = np.cumsum(parts[:, ::-1], axis=1)[:, ::-1]
        return np.append(outer[1] - self.ends[:-1] * outer[0], 0.0)


class _Sum:
    """A sum of arrays in twice the precision of a float64 (Knuth's two-sum), so in any order."""

    def __init__(self, size: int) -> None:
        self._high, self._low = np.zeros(size), np.zeros(size)

    def add(self, values: Floats) -> None:
        total = self._high + values
        part = total - self._high
        self._low += (self._high - (total - part)) + (values - part)
        self._high = total

    @property
    def total(self) -> Floats:
        return self._high + self._low
