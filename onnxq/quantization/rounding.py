"""Adaptive weight rounding: the weights that keep a layer's output, not those nearest.

With x the inputs that the quantized model gives a layer and t the outputs of the float model, the
mean squared error of rounded weights V is a quadratic, P − 2⟨T, V⟩ + ⟨V·H, V⟩ with H = E[x·xᵀ] and
T = E[t·xᵀ]. Two closed-form steps lower it:

- *refit*: the real weights V = W + (T − W·H)·(H + λI)⁻¹, which make up for what quantization did
  to the inputs (as GPTAQ, Li et al., 2025, and Qronos, arXiv:2505.11695, aim at);
- *rounding one input after another*: each rounding error is made up for by the weights still to be
  rounded (GPTQ, Frantar et al., 2022), here in the form of Babai's nearest plane, which is the
  same and needs no inverse (arXiv:2507.18553).

Which strength of the refit is best, and whether any beats rounding to nearest, is decided on
samples that the candidates were not fitted to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.granularity import Blocks
from onnxq.formats.parameters import Integers, Parameters, quantize
from onnxq.formats.table import Floating, Uniform
from onnxq.model.weights import WeightLayout
from onnxq.quantization.factor import damping_of, factor_in_order, solve
from onnxq.quantization.moments import Moments
from onnxq.refusal import Refusal

Array = NDArray[Any]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""λ of the refit to try, as shares of the mean of H's diagonal."""

DAMPING = 0.01
"""Added to H's diagonal while rounding, as a share of its mean."""

DAMPING_NARROW = 0.1
"""The same for numbers narrower than a byte, whose errors are too large to chase every accident."""

TOGETHER = 16
"""Columns rounded before their errors are passed on to those near them."""

FAR = 128
"""Columns rounded before their errors are passed on to all the rest. A large weight fits no cache,
and each time all of what is left of it is read and written."""

AMPLE = 2
"""Positions are ample where a half of the samples has so many times as many as a layer has inputs:
then what is better for them is better for others too, and is rounded but once."""


@dataclass(frozen=True, eq=False)
class Limits:
    """Whole numbers that weights may become: (groups, outputs per group, columns) each."""

    lowest: Floats | Singles
    highest: Floats | Singles


@dataclass(frozen=True)
class Rounding:
    """How the weight of one layer was rounded.

    Attributes:
        adaptive: whether that is better than rounding to nearest, which is kept otherwise: fitted
            to all samples on all and, where those are not ample, on some not fitted to.
        error_nearest, error_adaptive: mean squared error of the layer's output, before its
            activation, on samples not fitted to, or where those fitted to are ample on all; NaN
            where adaptive rounding was not tried.
        reason: why it was not tried, else "".
    """

    node: str
    adaptive: bool
    error_nearest: float
    error_adaptive: float
    reason: str = ""


def keep_nearest(
    node: str, weight: Array, parameters: Parameters, refusal: Refusal
) -> tuple[Integers, Rounding]:
    """Round to nearest, for a reason."""
    record = Rounding(node, False, math.nan, math.nan, refusal.reason)
    return quantize(weight, parameters), record


def round_weight(
    node: str,
    layout: WeightLayout,
    weight: Array,
    parameters: Parameters,
    fitted: Moments,
    unseen: Moments,
) -> tuple[Integers, Rounding]:
    """Round a weight adaptively if that is better than to nearest on samples not fitted to.

    Args:
        weight: float32 in stored layout.
        parameters: its scales and zero points, which stay; of a uniform format.
        fitted, unseen: moments of two disjoint sets of samples.

    Returns:
        Numbers of the format in stored layout, fitted to all samples where adaptive; the record.
    """
    shape = layout.groups, layout.outputs // layout.groups, layout.columns

    def by_output(values: Array) -> Floats:
        return layout.to_output_major(np.asarray(values, np.float64)).reshape(shape)

    step = by_output(parameters.scale_of_each(layout.shape))
    if not isinstance(parameters.granularity, Blocks):
        step = step[:, :, :1]
    zero = by_output(parameters.zero_of_each(layout.shape)) if parameters.zero_point.any() else 0.0
    integers, adaptive, nearest_error, adaptive_error = choose_rounding(
        by_output(weight), step, fitted, unseen, limits_of(parameters, zero),
        DAMPING_NARROW if parameters.format.narrow else DAMPING,
    )  # fmt: skip
    whole = integers + zero
    stored = layout.from_output_major(whole.reshape(layout.outputs, -1, layout.taps))
    return stored.astype(parameters.format.dtype), Rounding(
        node, adaptive, nearest_error, adaptive_error
    )


def limits_of(parameters: Parameters, zero: Floats | float = 0.0) -> Uniform | Limits:
    """The whole numbers that a weight may become, counted from its zero points.

    Raises:
        TypeError: they are no whole numbers.
    """
    numbers = parameters.numbers
    if isinstance(numbers, Floating):
        raise TypeError(f"weights in {parameters.format} are not rounded in order")
    if isinstance(zero, float):
        return numbers
    return Limits(numbers.lowest - zero, numbers.highest - zero)


def choose_rounding(
    weight: Floats,
    step: Floats,
    fitted: Moments,
    unseen: Moments,
    limits: Uniform | Limits,
    damping: float = DAMPING,
) -> tuple[Floats, bool, float, float]:
    """The same for a weight (groups, outputs per group, columns) of floats in output-major form.

    Args:
        step: (groups, outputs per group, columns), or 1 column where an output has one scale.
        limits: the numbers that weights may become.
        damping: added to H's diagonal while rounding, as a share of its mean.

    Returns:
        Whole numbers, whether they are adaptive, and the errors of nearest and adaptive
        rounding on the unseen samples, or on all where those are `AMPLE`. Adaptive weights have the
        lower error on all samples, fitted to all, and else on the unseen, fitted to the others.
    """
    nearest = _nearest(weight / step, limits)
    strength = best_strength(weight, fitted, unseen)

    unit = step[:, :, :1]

    def adapt(moments: Moments) -> Floats:
        values = refit(weight, moments, strength) / unit
        return round_in_order(values, moments.metric, limits, moments.noise, step / unit, damping)

    def error(integers: Floats, moments: Moments) -> float:
        return moments.error(integers * step)

    everything = fitted + unseen
    ample = min(fitted.count, unseen.count) >= AMPLE * fitted.columns
    judged, others = (everything, everything) if ample else (fitted, unseen)
    found = adapt(judged)
    errors = error(nearest, others), error(found, others)
    if errors[1] < errors[0]:
        adaptive = found if ample else adapt(everything)
        if ample or error(adaptive, everything) < error(nearest, everything):
            return adaptive, True, *errors
    return nearest, False, *errors


def best_strength(weight: Floats, fitted: Moments, unseen: Moments) -> float:
    """The strength of the refit with the lowest error on the unseen samples, before rounding.

    The weaker the pull towards the old weight, the better the fit, up to where it fits accidents.
    """
    best, lowest = math.inf, unseen.error(weight)
    missing = fitted.missing(weight)
    for strength in STRENGTHS:
        error = unseen.error(refit(weight, fitted, strength, missing))
        if error >= lowest:
            break
        best, lowest = strength, error
    return best


def _nearest(values: Array, limits: Uniform | Limits) -> Array:
    rounded: Array = np.rint(values)
    np.minimum(rounded, limits.highest, out=rounded)
    np.maximum(rounded, limits.lowest, out=rounded)
    return rounded


def refit(
    weight: Floats, moments: Moments, strength: float, missing: Floats | None = None
) -> Floats:
    """The real weights V that best turn the inputs into the targets, drawn towards `weight`.

    They minimize the error plus λ·‖V − W‖², λ = `strength` times the mean of H's diagonal; with
    infinite strength V = W.

    Args:
        missing: `moments.missing(weight)`, where it is known already.
    """
    if math.isinf(strength):
        return weight
    missing = moments.missing(weight) if missing is None else missing
    # Both sides are symmetric, so the solution is taken from the left.
    change = _damped_solution(moments, strength, missing.swapaxes(1, 2))
    if moments.basis is not None:
        change = moments.basis @ change
    return np.asarray(weight + change.swapaxes(1, 2))


def _damped_solution(moments: Moments, strength: float, right: Floats) -> Floats:
    """X with (H + λI)·X = `right`; what float32 sums leave of H below 0 is damped away."""
    growth = 1.0
    while True:
        damped = moments.inputs
        np.einsum("gii->gi", damped)[...] += damping_of(
            growth * (strength * moments.power_of_input + moments.noise)
        )
        try:
            return solve(damped, right)
        except np.linalg.LinAlgError:
            growth *= 10


def round_in_order(
    values: Floats,
    gram: Floats,
    limits: Uniform | Limits,
    noise: Floats | float = 0.0,
    step: Floats | float = 1.0,
    damping: float = DAMPING,
) -> Floats:
    """Whole numbers of steps near `values`, in the metric of `gram` (groups, columns, columns).

    Args:
        values: (groups, outputs per group, columns).
        limits: of the whole numbers.
        noise: how much of the diagonal may be rounding, for each group.
        step: in units of the values, broadcastable to them.
        damping: see `choose_rounding`.

    With gram = Rᵀ·R the error is ‖R·(values − q)‖². R is triangular, so from the last column on
    each q is the nearest to its value plus what the errors made so far add to it. Columns with the
    most power come first: the later ones make up for their errors.
    """
    columns = values.shape[2]
    order = np.argsort(np.einsum("gii->gi", gram), axis=1, kind="stable")
    each = np.arange(len(order))[:, None]
    factor = factor_in_order(gram, order, noise, damping)

    # One column after the other, so that each lies in one piece.
    def in_order(array: Array | float) -> Singles:
        ordered = np.broadcast_to(array, values.shape).swapaxes(1, 2)[each, order]
        return ordered.astype(np.float32)

    exact, steps = in_order(values), in_order(step)
    if isinstance(limits, Limits):
        limits = Limits(in_order(limits.lowest), in_order(limits.highest))
    target, result = exact.copy(), np.empty_like(exact)

    def pass_on(start: int, stop: int, first: int) -> None:
        """What the errors of columns start to stop add to those before them, from `first` on."""
        errors = exact[:, start:stop] - result[:, start:stop] * steps[:, start:stop]
        target[:, first:start] += factor[:, start:stop, first:start].swapaxes(1, 2) @ errors

    for end in range(columns, 0, -FAR):
        first = max(0, end - FAR)
        for stop in range(end, first, -TOGETHER):
            start = max(first, stop - TOGETHER)
            for column in range(stop - 1, start - 1, -1):
                rounded = _nearest(target[:, column] / steps[:, column], _at(limits, column))
                result[:, column] = rounded
                error = exact[:, column] - rounded * steps[:, column]
                target[:, start:column] += factor[:, column, start:column, None] * error[:, None]
            pass_on(start, stop, first)
        pass_on(first, end, 0)
    return result[each, np.argsort(order, axis=1)].swapaxes(1, 2).astype(np.float64)


def _at(limits: Uniform | Limits, column: int) -> Uniform | Limits:
    """The limits of one column, of those that lie column by column."""
    if isinstance(limits, Limits):
        return Limits(limits.lowest[:, column], limits.highest[:, column])
    return limits
