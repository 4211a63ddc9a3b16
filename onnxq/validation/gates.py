"""Gates: bounds on a metric that decide the exit code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.validation.compare import Row
from onnxq.validation.metrics import Metric


@dataclass(frozen=True)
class Gate:
    """One check: what was demanded, what was found, whether it holds."""

    name: str
    model: str
    execution: str
    limit: float
    value: float
    unit: str
    passed: bool


def check_gates(
    rows: Sequence[Row], metric: Metric, *, max_drop: float | None, min_accuracy: float | None
) -> tuple[Gate, ...]:
    """Check one metric of every row.

    A metric that compares with the float model has no value for the float model itself; its drop
    is what `Metric.drop` says: for the SQNR the error in % of the outputs.

    Args:
        rows: the float model's first.
        metric: the one to check.
        max_drop: how far a quantized model may fall below the float model.
        min_accuracy: the least value any model may have.
    """
    gates = []
    reference = rows[0]
    for row in rows:
        value = row.values[metric.name]
        if max_drop is not None and row is not reference:
            drop = metric.drop(reference.values[metric.name], value)
            gates.append(
                Gate("max-drop", row.model, row.execution, max_drop, drop, metric.drop_unit,
                     drop <= max_drop)
            )  # fmt: skip
        if min_accuracy is not None and not (math.isnan(value) and row is reference):
            gates.append(
                Gate("min-accuracy", row.model, row.execution, min_accuracy, value, metric.unit,
                     value >= min_accuracy)
            )  # fmt: skip
    return tuple(gates)
