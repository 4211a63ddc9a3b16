"""Second moments of what goes into a layer and of what should come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

ROWS = 512
"""Rows of a matrix of products that are changed at a time."""

ROUNDING = 2.0**-20
"""Relative error of a float32 sum of many products."""


@dataclass(frozen=True)
class Moments:
    """Moments of inputs x and targets t over positions, in each group of a layer.

    Where they are centered, x and t may be counted from any origin. Few positions of many columns
    span few directions: then x stands for its coordinates in a basis of those.

    Attributes:
        gram: (groups, columns + 1, columns + 1), Σ [x; 1]·[x; 1]ᵀ; float64, or of very many
            columns float32.
        cross: (groups, outputs per group, columns + 1), Σ t·[x; 1]ᵀ.
        squares: (groups, outputs per group), Σ t².
        centered: whether the means do not matter, because a bias makes up for them.
        basis: (groups, columns of the layer, columns), orthonormal; None for all directions.
    """

    gram: Floats | Singles
    cross: Floats
    squares: Floats
    centered: bool
    basis: Floats | None = None

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.gram + other.gram, self.cross + other.cross, self.squares + other.squares,
            self.centered, self.basis,
        )  # fmt: skip

    @property
    def count(self) -> float:
        """Number of positions."""
        return float(self.gram[0, -1, -1])

    @property
    def is_finite(self) -> bool:
        return all(bool(np.isfinite(v).all()) for v in (self.gram, self.cross, self.squares))

    @property
    def inputs(self) -> Floats:
        """H = E[x·xᵀ], or the covariance: (groups, columns, columns).

        Made anew each time, for the caller to change: of thousands of columns it takes hundreds of
        megabytes, and what it is multiplied by takes longer.
        """
        raw: Floats = np.divide(self.gram[:, :-1, :-1], self.count, dtype=np.float64)
        if self.centered:
            mean = self._mean
            for start in range(0, raw.shape[1], ROWS):
                rows = slice(start, start + ROWS)
                raw[:, rows] -= mean[:, rows, None] * mean[:, None, :]
        return raw

    @property
    def _mean(self) -> Floats:
        """E[x]: (groups, columns)."""
        return np.asarray(np.divide(self.gram[:, :-1, -1], self.count, dtype=np.float64))

    @property
    def columns(self) -> int:
        """Columns of the layer."""
        columns: int = self.gram.shape[1] - 1 if self.basis is None else self.basis.shape[1]
        return columns

    @property
    def metric(self) -> Floats:
        """H in all directions: (groups, columns of the layer, columns of the layer)."""
        if self.basis is None:
            return self.inputs
        return np.asarray(self.basis @ self.inputs @ self.basis.swapaxes(1, 2))

    @property
    def power_of_input(self) -> Floats:
        """Mean of H's diagonal: (groups,)."""
        diagonal = self._squares / self.count
        if self.centered:
            diagonal = diagonal - np.square(self._mean)
        return np.asarray(np.maximum(diagonal.sum(axis=1) / self.columns, 0))

    @property
    def noise(self) -> Floats:
        """What of H's diagonal may be rounding of the float32 sums: (groups,)."""
        squares = self._squares.sum(axis=1)
        return np.asarray(ROUNDING * squares / self.columns / self.count)

    @property
    def _squares(self) -> Floats:
        """Σ x²: (groups, columns)."""
        diagonal: Array = np.einsum("gii->gi", self.gram)[:, :-1]
        return diagonal.astype(np.float64)

    @cached_property
    def targets(self) -> Floats:
        """T = E[t·xᵀ], or the covariance: (groups, outputs per group, columns)."""
        raw: Floats = self.cross[:, :, :-1] / self.count
        if self.centered:
            raw -= (self.cross[:, :, -1:] / self.count) * self._mean[:, None, :]
        return raw

    @cached_property
    def power(self) -> Floats:
        """P = E[t²], or the variance: (groups, outputs per group)."""
        raw: Floats = self.squares / self.count
        if self.centered:
            raw -= np.square(self.cross[:, :, -1] / self.count)
        return raw

    def missing(self, weight: Floats) -> Floats:
        """T − W·H, the part of T that a weight leaves: (groups, outputs per group, columns)."""
        return self.targets - self.project(weight) @ self.inputs

    def project(self, weight: Floats) -> Floats:
        """What of a weight (groups, outputs per group, columns of the layer) meets the inputs."""
        return weight if self.basis is None else np.asarray(weight @ self.basis)

    def error(self, weight: Floats) -> float:
        """Mean squared error of the outputs of a weight of the layer."""
        weight = self.project(weight)
        linear = 2 * (self.targets * weight).sum(axis=2)
        quadratic = ((weight @ self.inputs) * weight).sum(axis=2)
        return max(float((self.power - linear + quadratic).mean()), 0.0)
