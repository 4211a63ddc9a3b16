"""Which float model to quantize: what equalization expects of itself is tried before it is kept.

The objective takes noises as independent and every layer as important as the next, so what it
expects is not always what a model has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onnxq.equalization.prepare import Prepared, Trial


@dataclass(frozen=True)
class Variant:
    """A way to prepare the float model.

    Attributes:
        name: what sets it apart.
        prepare: makes it.
        worth: dB by which it must be better than what is kept without it.
    """

    name: str
    prepare: Callable[[], Prepared]
    worth: float = 0.0


CLOSE = 1.5
"""dB between trials that decide nothing: so far have models whose weights are rounded for their
layers been from what such a trial said."""


def shortlist(
    variants: Sequence[Variant], measure: Callable[[Prepared], float]
) -> tuple[tuple[Variant, Prepared], ...]:
    """The variants that may be best in the end, prepared, in their order.

    Args:
        variants: from the plainest on.
        measure: SQNR of a prepared model once it is quantized, dB, about.

    Raises:
        ValueError: there is no variant.
    """
    if not variants:
        raise ValueError("there is no variant")
    made = [(variant, variant.prepare()) for variant in variants]
    trials = tuple(Trial(variant.name, measure(prepared)) for variant, prepared in made)
    levels = [-math.inf if math.isnan(trial.sqnr) else trial.sqnr for trial in trials]
    top = max(levels)
    kept = [pair for pair, level in zip(made, levels, strict=True) if level >= top - CLOSE]
    # Where nothing can be measured, expectations are all there is.
    kept = made[-1:] if math.isinf(top) and top < 0 else kept
    return tuple((variant, replace(prepared, trials=trials)) for variant, prepared in kept)


def best_of(finished: Sequence[tuple[Variant, float]]) -> int:
    """The number of the variant that is best, of which each must be worth what it adds to those
    before; the first of several that nobody measured.

    Args:
        finished: SQNR of each once it is quantized as it is going to be, dB.
    """
    best, level = 0, -math.inf
    for number, (variant, sqnr) in enumerate(finished):
        if number == 0 or sqnr >= level + variant.worth:
            best, level = number, sqnr
    return best


def with_finals(
    trials: Sequence[Trial], finished: Sequence[tuple[Variant, float]]
) -> tuple[Trial, ...]:
    """The trials, with what became of those that were finished."""
    final = {variant.name: sqnr for variant, sqnr in finished}
    return tuple(replace(trial, final=final.get(trial.name, math.nan)) for trial in trials)
