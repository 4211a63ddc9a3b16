"""Choose the scales: descend the convex noise objective, then round to powers of two.

σ is a natural logarithm of a scale, an exponent its log₂. Both count from the starting form of
the model (`starting_scales`), so the outcome does not depend on how the model is scaled now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.noise import NoiseModel
from onnxq.equalization.objective import Objective

Floats = NDArray[np.float64]

STEPS = 120
FIRST_STEP = 0.5
"""Length of the first step in log s; it decays to a hundredth of that."""

OFFSETS = 8
"""Offsets tried in rounding: multiples of 1/8 of an octave."""

RIDGE = 1e-4
"""Pull towards the starting form, for the directions in which the noise does not change."""

LEAST_GAIN = 0.01
"""dB of expected SQNR below which nothing is scaled."""

SAME = 1e-6
"""dB within which two noises are one."""

LIMIT = 16.0
"""Largest |log₂ s|: far more than any trained network needs, far less than float32 holds. It
also bounds by how much an activation that has no calibration can grow."""


@dataclass(frozen=True)
class UpperBounds:
    """σ[variable] ≤ slack: a channel that must stay below the bound of a scalar Clip."""

    variables: NDArray[np.int64]
    slack: Floats

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
    """Where the scales were and where they go.

    Attributes:
        start, exponents: log₂ s of each variable, now and once equalized.
        before, after: noise of every term at both.
    """

    start: Floats
    exponents: Floats
    before: Floats
    after: Floats

    @property
    def gain(self) -> float:
        """Expected gain in SQNR, dB."""
        return decibels(self.before.sum(), self.after.sum())

    @property
    def change(self) -> Floats:
        """log₂ of the factor each variable takes."""
        return self.exponents - self.start


def decibels(before: float, after: float) -> float:
    """How far the noise `after` lies below the noise `before`; 0 where there is none."""
    return 10 * math.log10(before / after) if after > 0 and before > 0 else 0.0


def solve(
    model: NoiseModel,
    start: Floats,
    bounds: UpperBounds = NO_BOUNDS,
    *,
    groups: Sequence[Sequence[int]] = (),
    real: bool = False,
) -> Solution:
    """Minimize the expected noise.

    Args:
        model: the objective, counted from the starting form.
        start: log₂ s of each variable as the model is now; satisfies the bounds.
        bounds: upper limits of variables.
        groups: variables of each scale class; a class that does not help is left where it is.
        real: keep real exponents instead of whole ones.

    Returns:
        Exponents that are never worse than leaving everything as it is.
    """
    before = model.evaluate(start * math.log(2))
    nothing = Solution(start, start, before, before)
    if model.variables == 1 or before.sum() == 0:
        return nothing
    exponents = np.clip(_descend(model, bounds) / math.log(2), -LIMIT, LIMIT)
    if not real:
        exponents = _round(model, bounds, exponents, groups)
    exponents = _stay_near(model, bounds, start, exponents, groups)
    solution = Solution(start, exponents, before, model.evaluate(exponents * math.log(2)))
    return solution if solution.gain >= LEAST_GAIN else nothing


def _descend(model: NoiseModel, bounds: UpperBounds) -> Floats:
    """Adam on the log of the objective, from the starting form, keeping the best point."""
    objective = Objective(model)
    sigma = bounds.clamp(np.zeros(model.variables))
    first, second = np.zeros_like(sigma), np.zeros_like(sigma)
    best, best_value = sigma, math.inf
    entries = objective.gather(sigma)
    for step in range(STEPS):
        if not objective.holds(entries, sigma):
            entries = objective.gather(sigma)
        value, gradient = objective.gradient(sigma, entries)
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


def _round(
    model: NoiseModel, bounds: UpperBounds, exponents: Floats, groups: Sequence[Sequence[int]]
) -> Floats:
    """Whole exponents: each class is rounded with the offset that suits its weights best.

    A weight's step is that of its widest row, so it matters where between two whole numbers the
    rows of one tensor are parted.
    """
    rounded = bounds.clamp_exponents(np.rint(exponents))
    for group, terms in zip(groups, model.terms_of(groups), strict=True):
        members = list(group)
        trials = []
        for offset in np.arange(OFFSETS) / OFFSETS:
            trial = rounded.copy()
            trial[members] = np.floor(exponents[members] + offset)
            trial = bounds.clamp_exponents(trial)
            trials.append((model.evaluate(trial * math.log(2), terms).sum(), trial))
        rounded = min(trials, key=lambda pair: pair[0])[1]
    return rounded


def _stay_near(
    model: NoiseModel,
    bounds: UpperBounds,
    start: Floats,
    exponents: Floats,
    groups: Sequence[Sequence[int]],
) -> Floats:
    """Move the classes no further than their noise asks for.

    A factor common to a whole class often changes nothing: it is taken out. A class whose own
    scales do not lower the noise of the terms they touch is put back.
    """
    for group, terms in zip(groups, model.terms_of(groups), strict=True):
        members = list(group)
        for offset in (np.median(exponents[members] - start[members]), None):
            trial = exponents.copy()
            trial[members] = start[members] if offset is None else trial[members] - np.rint(offset)
            trial = bounds.clamp_exponents(trial)
            if np.array_equal(trial, exponents):
                continue
            moved, near = (model.evaluate(e * math.log(2), terms).sum() for e in (exponents, trial))
            if decibels(near, moved) < (LEAST_GAIN / 10 if offset is None else SAME):
                exponents = trial
    return exponents


def exponents_of(variable_of: Mapping[int, int], change: Floats) -> dict[int, float]:
    """Class root → log₂ of its factor, for factors other than 1."""
    return {
        root: float(change[variable])
        for root, variable in variable_of.items()
        if change[variable] != 0
    }
