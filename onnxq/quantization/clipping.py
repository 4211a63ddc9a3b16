"""Ranges that clip values which matter: what an estimator saved, and what that costs the tensor."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.ranges import Ranges

WORSE = 1.0
"""dB by which a range has more error than the whole range, from which on it is worth telling."""

ROUNDED = 0.501
"""Steps by which values outside a range are still as near as rounding is: so far moves an end where
zero must be exact."""

FIXED = 1.0
"""Steps that are lost of functions whose steps are fixed."""


@dataclass(frozen=True)
class Clipped:
    """A tensor whose range leaves out values that matter.

    Attributes:
        low, high: what does not saturate.
        smallest, largest: the values that calibration saw.
        loss_db: expected squared error behind what reads the tensor, over that of a range that
            holds them all, dB.
    """

    tensor: str
    low: float
    high: float
    smallest: float
    largest: float
    loss_db: float


def harmful_clips(
    plan: QuantizationPlan, ranges: Ranges, known_to_gain: Collection[str] = ()
) -> tuple[Clipped, ...]:
    """Those tensors of a plan, the worst first; of several that share a range all together.

    Args:
        known_to_gain: tensors whose ranges were tried on samples.
    """
    activations = plan.static
    found: list[Clipped] = []
    for leader, names in plan.sharing.items():
        known = [name for name in names if name in ranges.tensors]
        if not known or leader in known_to_gain:
            continue
        parameters = activations[leader].parameters
        if parameters.format != ranges.spec.format:
            continue
        low, high = parameters.range
        smallest = min(0.0, *(ranges.tensors[name].low for name in known))
        largest = max(0.0, *(ranges.tensors[name].high for name in known))
        slack = float(parameters.scale) * (ROUNDED if ranges.spec.clipping_pays else FIXED)
        if low - slack <= smallest and high + slack >= largest:
            continue
        loss = ranges.loss(known)
        errors = loss(ranges.bounds(known)), loss((low, high))
        worse = 10 * math.log10(errors[1] / errors[0]) if min(errors) > 0 else 0.0
        if worse > WORSE:
            found.append(Clipped(leader, low, high, smallest, largest, worse))
    return tuple(sorted(found, key=lambda each: -each.loss_db))
