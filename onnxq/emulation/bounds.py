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

from onnxq.formats.accumulators import Accumulator

Array = NDArray[Any]

EXACT_FLOAT32 = 1 << 24
"""Largest magnitude up to which float32 holds every integer."""


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

    def fits(self, accumulator: Accumulator) -> bool:
        """Whether no partial sum leaves the accumulator."""
        return self.largest <= accumulator.highest

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
    positive = np.maximum(weight, 0).sum(axis=1, dtype=np.int64)
    negative = np.minimum(weight, 0).sum(axis=1, dtype=np.int64)
    low = positive * interval[0] + negative * interval[1]
    high = positive * interval[1] + negative * interval[0]
    if bias is not None:
        low, high = low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    return Reach(float(low.min(initial=0)), float(high.max(initial=0)))


def product_reach(count: float, first: tuple[int, int], second: tuple[int, int]) -> Reach:
    """Reach of Σ a·b over `count` terms (infinite where unknown) of which nothing is constant."""
    products = [a * b for a in first for b in second]
    low, high = min(products), max(products)
    return Reach(count * low if low else 0.0, count * high if high else 0.0)


def exact_parts(weight: Array, interval: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cut the terms into the fewest runs whose sums float32 holds exactly.

    Args:
        weight: integers, (outputs, terms).
        interval: as in `reach`.

    Yields:
        (start, stop) of each run.
    """
    terms = weight.shape[1]
    if reach(weight, interval).fits_float32:
        yield 0, terms
        return
    start = 0
    low = high = np.zeros(len(weight), np.int64)
    for term in range(terms):
        ends = [weight[:, term].astype(np.int64) * end for end in interval]
        lowest, highest = np.minimum(*ends), np.maximum(*ends)
        low, high = low + lowest, high + highest
        if max(-low.min(), high.max()) > EXACT_FLOAT32:
            yield start, term
            start, low, high = term, lowest, highest
    yield start, terms
