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


def best_of(variants: Sequence[Variant], measure: Callable[[Prepared], float]) -> Prepared:
    """The variant that measures best, of which each must be worth what it adds to those before.

    Args:
        variants: from the plainest on.
        measure: SQNR of a prepared model once it is quantized, dB.
    """
    best, level = None, -math.inf
    trials: list[Trial] = []
    for variant in variants:
        prepared = variant.prepare()
        sqnr = measure(prepared)
        trials.append(Trial(variant.name, sqnr))
        if best is None or sqnr >= level + variant.worth:
            best, level = prepared, sqnr
    if best is None:
        raise ValueError("there is no variant")
    return replace(best, trials=tuple(trials))
