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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.statistics import TensorStatistics
from onnxq.refusal import Refusal

Floats = NDArray[np.float64]

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
        samples: how many.
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

    def rounding(self, step: float) -> float:
        """Cost of values rounded to multiples of a step: an even error, none above the value."""
        edges = bins.edges(self.top)
        center = (edges[:-1] + edges[1:]) / 2
        squares = np.concatenate([[0.0], center, center]) ** 2
        return float(self.power @ np.minimum(step * step / 12, squares))

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
        edges = bins.edges(self.top)
        center = (edges[:-1] + edges[1:]) / 2
        values = np.concatenate([[0.0], center, -center])
        return float(self.power @ np.square(values - np.clip(values, low, high)))


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

    What rounding takes from a sum is kept and added in the end, so that the result does not depend
    on the order of the samples.
    """

    def __init__(self, statistics: TensorStatistics) -> None:
        self.top = max(statistics.top, bins.FLOOR + 1)
        self.below, self.above = ends_of(-statistics.low), ends_of(statistics.high)
        ends = len(self.below) + len(self.above)
        self._power = _Sum(1 + 2 * bins.magnitude_bins(self.top))
        self._products = _Sum(ends, ends)
        self._samples = 0

    def of_sample(self, values: NDArray[np.float32], gradient: NDArray[np.float32]) -> Floats:
        """(3, columns): Σ g², Σ g and Σ g·x of the elements in each bin; NaN and infinite ones of
        the values do not count.
        """
        codes = np.empty(values.size, np.uint16)
        bins.write_codes(np.ascontiguousarray(values, np.float32).ravel(), codes)
        places, g = codes.astype(np.intp), gradient.ravel().astype(np.float64)
        x = values.ravel()
        rows = [np.bincount(places, each, CODES) for each in (g * g, g, g * x)]
        table = bins.code_table(self.top)
        columns = 2 + 2 * bins.magnitude_bins(self.top)
        return np.stack([np.bincount(table, row, columns)[:-1] for row in rows])

    def add(self, sums: Floats) -> None:
        """Take what `of_sample` gave."""
        width = bins.magnitude_bins(self.top)
        edges = bins.edges(self.top)
        one = np.concatenate([
            _beyond(sums[1:, 1 + width :], edges, self.below, -1.0),
            _beyond(sums[1:, 1 : 1 + width], edges, self.above, 1.0),
        ])  # fmt: skip
        self._power.add(sums[0])
        self._products.add(np.outer(one, one))
        self._samples += 1

    def finish(self) -> TensorCosts:
        return TensorCosts(
            self._samples, self.top, self._power.total, self.below, self.above,
            self._products.total,
        )  # fmt: skip


CODES = 1 << 14


def _beyond(sums: Floats, edges: Floats, ends: Floats, sign: float) -> Floats:
    """Σ g·(x − end) of the elements beyond each end, from Σ g and Σ g·x of each bin (2, bins)."""
    gradient, product = np.cumsum(sums[:, ::-1], axis=1)[:, ::-1]
    # The end is the lower edge of its bin; behind the last one, none is left.
    places = np.searchsorted(edges, ends)
    padded = np.pad(np.stack([gradient, product]), ((0, 0), (0, 1)))[
        :, np.minimum(places, len(edges) - 1)
    ]
    found: Floats = padded[1] - sign * ends * padded[0]
    return found


class _Sum:
    """A sum of arrays in twice the precision of a float64 (Knuth's two-sum)."""

    def __init__(self, *shape: int) -> None:
        self._high, self._low = np.zeros(shape), np.zeros(shape)

    def add(self, values: Floats) -> None:
        total = self._high + values
        part = total - self._high
        self._low += (self._high - (total - part)) + (values - part)
        self._high = total

    @property
    def total(self) -> Floats:
        return self._high + self._low
