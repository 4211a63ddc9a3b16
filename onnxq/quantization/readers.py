"""What the reader of a layer's output makes of it, value by value: a Clip, a SiLU, a GELU.

Behind a ReLU or a SiLU negative values are all but one number. Most positions of a map are such: a
mean error that counts them like the others moves the few that matter away from where they belong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxq.model.functions import Function

Array = NDArray[Any]
Singles = NDArray[np.float32]

POINTS = 1 << 16
"""Points at which a function is known: many more than 8-bit numbers tell apart."""


class Reader(Protocol):
    """What becomes of a layer's output."""

    def result(self, values: Array) -> Array:
        """What it makes of values; a new array."""

    def weights(self, exact: Array, other: Array) -> Array:
        """How much an error between the two counts in its result, squared."""


@dataclass(frozen=True)
class Clipping:
    """A fused activation that limits values to low ≤ x ≤ high."""

    low: float
    high: float

    def result(self, values: Array) -> Array:
        return np.clip(values, self.low, self.high)

    def weights(self, exact: Array, other: Array) -> Array:
        inside = (exact > self.low) & (exact < self.high)
        return np.asarray(inside | ((other > self.low) & (other < self.high)), np.float32)


@dataclass(frozen=True)
class Tabulated:
    """Any function, by its values at evenly spaced points.

    Attributes:
        low: the first point.
        density: points in a unit.
        results, squares: the function and its squared slope at each point (points,).
    """

    low: float
    density: float
    results: Singles
    squares: Singles

    def result(self, values: Array) -> Array:
        return self.results.take(self._places(values), mode="clip")

    def weights(self, exact: Array, other: Array) -> Array:
        return self.squares.take(self._places((exact + other) / 2), mode="clip")

    def _places(self, values: Array) -> NDArray[np.int32]:
        # What is no number is at the first point.
        places = np.clip((values - self.low) * self.density + 0.5, 0, len(self.results) - 1)
        return np.nan_to_num(places, copy=False).astype(np.int32)


def tabulated(function: Function, pairs: Iterator[tuple[Array, Array]]) -> Tabulated | None:
    """The function between the extremes of these values; None where it is no number there."""
    low, high = math.inf, -math.inf
    for pair in pairs:
        for values in pair:
            low = min(low, float(values.min(initial=math.inf)))
            high = max(high, float(values.max(initial=-math.inf)))
    if not low < high or not math.isfinite(high - low):
        return None
    points = np.linspace(low, high, POINTS)
    results = function.at(points)
    if results is None or not np.isfinite(results).all():
        return None
    squares = np.square(np.gradient(results, points))
    return Tabulated(
        low, (POINTS - 1) / (high - low), results.astype(np.float32), squares.astype(np.float32)
    )
