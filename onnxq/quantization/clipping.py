"""Ranges that clip values which matter: what an estimator saved, and what that costs the tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onnxq.calibration.ranges import distribution, estimate, noise
from onnxq.calibration.statistics import TensorStatistics
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.shares import Gains

WORSE = 1.0
"""dB by which a range has more error than the whole range, from which on it is worth telling."""


@dataclass(frozen=True)
class Clipped:
    """A tensor whose range leaves out values that matter.

    Attributes:
        low, high: what does not saturate.
        smallest, largest: the values that calibration saw.
        loss_db: expected squared error over that of a range that holds them all, dB.
    """

    tensor: str
    low: float
    high: float
    smallest: float
    largest: float
    loss_db: float


def harmful_clips(
    plan: QuantizationPlan, tensors: Mapping[str, TensorStatistics], gains: Gains
) -> tuple[Clipped, ...]:
    """Those tensors of a plan, the worst first; of several that share a range all together."""
    spec, activations = plan.scheme.static, plan.static
    found: list[Clipped] = []
    for leader, names in plan.sharing.items():
        parts = [(tensors[name], gains.get(name)) for name in names if name in tensors]
        if spec is None or not parts:
            continue
        parameters = activations[leader].parameters
        data, (low, high) = distribution(parts), parameters.range
        if parameters.format != spec.format:
            continue
        whole = estimate(data, "minmax", levels=spec.levels, symmetric=spec.symmetric)
        # One step is lost of functions whose steps are fixed.
        slack = 0.0 if spec.clipping_pays else float(parameters.scale)
        if low - slack <= data.low and high + slack >= data.high:
            continue
        errors = [
            noise(data.values, data.counts, each, spec.levels) for each in (whole, (low, high))
        ]
        loss = 10 * math.log10(errors[1] / errors[0]) if min(errors) > 0 else 0.0
        if loss > WORSE:
            found.append(Clipped(leader, low, high, data.low, data.high, loss))
    return tuple(sorted(found, key=lambda each: -each.loss_db))
