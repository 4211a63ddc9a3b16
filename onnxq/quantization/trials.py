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


HIDDEN = 1.5
"""dB by which equalization may look worse in a trial and be better in the end: weights rounded for
their layers lose most of the error that a trial shows of them, and what is left of it in the
activations is what equalization made smaller."""


def chosen(
    variants: Sequence[Variant], measure: Callable[[Prepared], float], *, hidden: float
) -> tuple[str, Prepared]:
    """The variant to quantize, its name first, with what the trials said.

    Each is expected to be better than those before. So one that adds nothing to the model is taken
    unless the trial says otherwise, one that does where the trial says so.

    Args:
        variants: from the plainest on.
        measure: SQNR of a prepared model once it is quantized, dB, about.
        hidden: dB that a trial may hide, see `HIDDEN`.

    Raises:
        ValueError: there is no variant.
    """
    if not variants:
        raise ValueError("there is no variant")
    made = [variant.prepare() for variant in variants]
    trials = tuple(
        Trial(variant.name, measure(prepared))
        for variant, prepared in zip(variants, made, strict=True)
    )
    levels = [-math.inf if math.isnan(trial.sqnr) else trial.sqnr for trial in trials]
    best = 0
    for number, variant in enumerate(variants[1:], 1):
        if levels[number] >= levels[best] + (variant.worth or -hidden):
            best = number
    return variants[best].name, replace(made[best], trials=trials)


def with_final(trials: Sequence[Trial], name: str, sqnr: float) -> tuple[Trial, ...]:
    """The trials, with what became of the one that was quantized."""
    return tuple(replace(each, final=sqnr) if each.name == name else each for each in trials)
