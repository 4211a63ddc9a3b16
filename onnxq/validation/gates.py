"""Gates: bounds on a metric that decide the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.validation.compare import Row


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
    rows: Sequence[Row], *, max_drop: float | None, min_accuracy: float | None
) -> tuple[Gate, ...]:
    """Check the first metric of every row.

    Args:
        rows: the float model's first.
        max_drop: how far a quantized model may fall below the float model, in the metric's unit.
        min_accuracy: the least value any model may have.
    """
    gates = []
    reference = rows[0]
    metric = next(iter(reference.values))
    unit = reference.units[metric]
    for row in rows:
        value = row.values[metric]
        if max_drop is not None and row is not reference:
            drop = reference.values[metric] - value
            gates.append(
                Gate("max-drop", row.model, row.execution, max_drop, drop, unit, drop <= max_drop)
            )
        if min_accuracy is not None:
            passed = value >= min_accuracy
            gates.append(
                Gate("min-accuracy", row.model, row.execution, min_accuracy, value, unit, passed)
            )
    return tuple(gates)
