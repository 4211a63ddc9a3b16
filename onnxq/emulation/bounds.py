"""How large sums of products can get, proved from the weights.

A float32 adds integers exactly as long as no partial sum exceeds 2^24 in magnitude, in whatever
order a kernel adds them. Every partial sum is the sum of some of the terms, so it lies between the
sum of the smallest values that are negative and the sum of the largest that are positive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

EXACT_FLOAT32 = 1 << 24
"""Largest magnitude up to which float32 holds every integer."""

LARGEST_INT32 = (1 << 31) - 1


@dataclass(frozen=True)
class Reach:
    """Interval that no partial sum leaves.

    Attributes:
        low, high: at most 0 and at least 0; infinite where the number of terms is unknown.
    """

    low: float
    high: float

    @property
    def largest(self) -> float:
        return max(-self.low, self.high)

    @property
    def fits_int32(self) -> bool:
        return self.largest <= LARGEST_INT32

    @property
    def fits_float32(self) -> bool:
        return self.largest <= EXACT_FLOAT32


def reach(weight: Array, interval: tuple[int, int], bias: Array | None = None) -> Reach:
    """Reach of Σ w·x + b.

    Args:
        weight: integers, (outputs, terms).
        interval: smallest and largest x; it contains 0.
        bias: integers, (outputs,).
    """
    low, high = _sums(weight, interval)
    lowest, highest = low.sum(axis=1), high.sum(axis=1)
    if bias is not None:
        lowest = lowest + np.minimum(bias, 0)
        highest = highest + np.maximum(bias, 0)
    return Reach(float(lowest.min(initial=0)), float(highest.max(initial=0)))


def _sums(weight: Array, interval: tuple[int, int]) -> tuple[Array, Array]:
    """Smallest and largest value of each term, at most 0 and at least 0, as int64."""
    weight = weight.astype(np.int64)
    ends = weight * interval[0], weight * interval[1]
    return np.minimum(*ends), np.maximum(*ends)


def product_reach(count: float, first: tuple[int, int], second: tuple[int, int]) -> Reach:
    """Reach of Σ a·b over `count` terms (infinite where unknown) of which nothing is constant."""
    products = [a * b for a in first for b in second]
    low, high = min(products), max(products)
    return Reach(count * low if low else 0.0, count * high if high else 0.0)


def exact_parts(weight: Array, interval: tuple[int, int]) -> Iterator[slice]:
    """Cut the terms into the fewest runs whose sums float32 holds exactly.

    Args:
        weight: integers, (outputs, terms).
        interval: as in `reach`.
    """
    low, high = _sums(weight, interval)
    start, terms = 0, weight.shape[1]
    while start < terms:
        lowest, highest = low[:, start:].cumsum(axis=1), high[:, start:].cumsum(axis=1)
        magnitude = np.maximum(-lowest, highest).max(axis=0, initial=0)
        stop = start + int(np.searchsorted(magnitude, EXACT_FLOAT32, side="right"))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop
