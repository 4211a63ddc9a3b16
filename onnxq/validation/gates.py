"""Gates: bounds on a metric that decide the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.validation.compare import Row
from onnxq.validation.metrics import AnyMetric, Closeness


@dataclass(frozen=True)
class Gate:
    """One check: what was demanded, what was found, whether it holds.

    Attributes:
        decisive: the output, or group of slices of it, that the value is of; "" where it is of
            the whole model.
    """

    name: str
    model: str
    execution: str
    limit: float
    value: float
    unit: str
    passed: bool
    decisive: str = ""


def check_gates(
    rows: Sequence[Row], metric: AnyMetric, *, max_drop: float | None, min_accuracy: float | None
) -> tuple[Gate, ...]:
    """Check one metric of every row.

    A metric of closeness has no value for the float model itself; its drop is how far the worst
    output is off, in %. So is the share of samples in which an output has another shape.

    Args:
        rows: the float model's first.
        metric: the one to check.
        max_drop: how far a quantized model may fall below the float model.
        min_accuracy: the worst value any model may have.
    """
    gates = []
    reference = rows[0]
    for row in rows:
        value = row.values[metric.name]
        decisive = row.decisive.get(metric.name, "")
        if max_drop is not None and row is not reference:
            drop, where = _drop(reference, row, metric)
            gates.append(
                Gate("max-drop", row.model, row.execution, max_drop, drop, metric.drop_unit,
                     drop <= max_drop, where)
            )  # fmt: skip
        if min_accuracy is not None and not (isinstance(metric, Closeness) and row is reference):
            gates.append(
                Gate("min-accuracy", row.model, row.execution, min_accuracy, value, metric.unit,
                     metric.reaches(value, min_accuracy), decisive)
            )  # fmt: skip
    return tuple(gates)


def _drop(reference: Row, row: Row, metric: AnyMetric) -> tuple[float, str]:
    """How far a row fell, and where."""
    drop = metric.drop(reference.values[metric.name], row.values[metric.name])
    where = row.decisive.get(metric.name, "")
    if isinstance(metric, Closeness):
        floats = [each for each in row.outputs if each.is_float]
        mismatched = max(floats, key=lambda each: each.other_shape, default=None)
        if mismatched is not None and mismatched.other_shape > 0 and not (
            drop > mismatched.other_shape
        ):  # fmt: skip
            return mismatched.other_shape, f"{mismatched.name}, samples of another shape"
    return drop, where
