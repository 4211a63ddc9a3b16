"""Choose the scales: descend the convex noise objective, then round to powers of two.

Everything here is in octaves' logarithms: a variable is log s, an exponent is log₂ s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.noise import NoiseModel

Floats = NDArray[np.float64]

STEPS = 240
FIRST_STEP = 0.25
"""Length of the first step in log s; it decays to a hundredth of that."""

RIDGE = 1e-4
"""Pull towards s = 1, for the directions in which the noise does not change."""

ROUNDS = 8
LEAST_GAIN = 0.1
"""dB of expected SQNR that another round must bring."""

LIMIT = 16.0
"""Largest |log₂ s|: far more than any trained network needs, far less than float32 holds."""


@dataclass(frozen=True)
class UpperBounds:
    """σ[variable] ≤ slack: a channel that must stay below the bound of a scalar Clip."""

    variables: NDArray[np.int64]
    slack: Floats

    def shifted(self, sigma: Floats) -> UpperBounds:
        """The room left after the scales e^σ."""
        return UpperBounds(self.variables, self.slack - sigma[self.variables])

    def clamp(self, sigma: Floats) -> Floats:
        """The nearest point that satisfies the bounds."""
        sigma = sigma.copy()
        np.minimum.at(sigma, self.variables, self.slack)
        return sigma

    def clamp_exponents(self, exponents: Floats) -> Floats:
        """The same for log₂ s, kept whole by rounding down."""
        exponents = exponents.copy()
        np.minimum.at(exponents, self.variables, np.floor(self.slack / math.log(2) + 1e-9))
        return exponents


NO_BOUNDS = UpperBounds(np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class Solution:
    """Exponents of the variables and the noise of every term before and after."""

    exponents: Floats
    before: Floats
    after: Floats

    @property
    def gain(self) -> float:
        """Expected gain in SQNR, dB."""
        after = self.after.sum()
        return 10 * math.log10(self.before.sum() / after) if after > 0 else 0.0


def solve(
    model: NoiseModel,
    bounds: UpperBounds = NO_BOUNDS,
    *,
    groups: Sequence[Sequence[int]] = (),
    real: bool = False,
) -> Solution:
    """Minimize the expected noise.

    Each round starts where the one before ended and must gain `LEAST_GAIN`, so that solving an
    equalized model again changes nothing.

    Args:
        model: the objective.
        bounds: upper limits of variables.
        groups: variables of each scale class; a class that does not help is left alone.
        real: keep real exponents instead of whole ones.

    Returns:
        Exponents that are never worse than leaving everything alone.
    """
    before = after = model.evaluate(np.zeros(model.variables))
    exponents = np.zeros(model.variables)
    for _ in range(ROUNDS):
        reached = exponents * math.log(2)
        step = _round(model.shifted(reached), bounds.shifted(reached), groups, real=real)
        if step.gain < LEAST_GAIN or np.abs(exponents + step.exponents).max() > LIMIT:
            break
        exponents, after = exponents + step.exponents, step.after
    return Solution(exponents, before, after)


def _round(
    model: NoiseModel, bounds: UpperBounds, groups: Sequence[Sequence[int]], *, real: bool
) -> Solution:
    """Descend once, round, and leave alone what does not help."""
    nothing = np.zeros(model.variables)
    before = model.evaluate(nothing)
    if model.variables == 1 or before.sum() == 0:
        return Solution(nothing, before, before)
    exponents = np.clip(_descend(model, bounds) / math.log(2), -LIMIT, LIMIT)
    if not real:
        exponents = bounds.clamp_exponents(np.rint(exponents))
    after = model.evaluate(exponents * math.log(2))
    for group in groups:
        trial = exponents.copy()
        trial[list(group)] = 0.0
        if np.array_equal(trial, exponents):
            continue
        without = model.evaluate(trial * math.log(2))
        if without.sum() <= after.sum():
            exponents, after = trial, without
    if after.sum() >= before.sum():
        return Solution(nothing, before, before)
    return Solution(exponents, before, after)


def _descend(model: NoiseModel, bounds: UpperBounds) -> Floats:
    """Adam on the log of the objective, from s = 1, keeping the best point."""
    sigma = np.zeros(model.variables)
    first, second = np.zeros_like(sigma), np.zeros_like(sigma)
    best, best_value = sigma, math.inf
    for step in range(STEPS):
        value, gradient = model.gradient(sigma)
        if value < best_value:
            best, best_value = sigma, value
        gradient = gradient / value + RIDGE * sigma
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient * gradient
        direction = (first / (1 - 0.9 ** (step + 1))) / (
            np.sqrt(second / (1 - 0.99 ** (step + 1))) + 1e-12
        )
        length = FIRST_STEP * 0.01 ** (step / STEPS)
        sigma = bounds.clamp(sigma - length * direction)
        sigma[0] = 0.0
    return best


def exponents_of(variable_of: Mapping[int, int], solution: Solution) -> dict[int, float]:
    """Class root → log₂ s, for scales other than 1."""
    return {
        root: float(solution.exponents[variable])
        for root, variable in variable_of.items()
        if solution.exponents[variable] != 0
    }
