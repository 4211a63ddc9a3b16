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
    output is off, in %. So is the share of samples in which an output has another shape, also for
    the worst value that a model may have; where it is all samples, nothing was compared: no gate
    holds, whatever it allows.

    Args:
        rows: the float model's first.
        metric: the one to check.
        max_drop: how far a quantized model may fall below the float model.
        min_accuracy: the worst value any model may have.
    """
    gates = []
    reference = rows[0]
    for row in rows:
        compared = _of_another_shape(row, metric)[0] < 100
        if max_drop is not None and row is not reference:
            drop, where = _drop(reference, row, metric)
            gates.append(
                Gate("max-drop", row.model, row.execution, max_drop, drop, metric.drop_unit,
                     compared and drop <= max_drop, where)
            )  # fmt: skip
        if min_accuracy is not None and not (isinstance(metric, Closeness) and row is reference):
            value, where = _accuracy(row, metric)
            gates.append(
                Gate("min-accuracy", row.model, row.execution, min_accuracy, value, metric.unit,
                     compared and metric.reaches(value, min_accuracy), where)
            )  # fmt: skip
    return tuple(gates)


def _drop(reference: Row, row: Row, metric: AnyMetric) -> tuple[float, str]:
    """How far a row fell, and where."""
    drop = metric.drop(reference.values[metric.name], row.values[metric.name])
    share, where = _of_another_shape(row, metric)
    if share > 0 and not drop > share:
        return share, where
    return drop, row.decisive.get(metric.name, "")


def _accuracy(row: Row, metric: AnyMetric) -> tuple[float, str]:
    """The value of a row, and where that is; samples of another shape are off altogether."""
    value = row.values[metric.name]
    share, where = _of_another_shape(row, metric)
    if isinstance(metric, Closeness) and share > 0 and not value < metric.of_loss(share):
        return metric.of_loss(share), where
    return value, row.decisive.get(metric.name, "")


def _of_another_shape(row: Row, metric: AnyMetric) -> tuple[float, str]:
    """The share of the samples, %, that could not be compared in the output where most are."""
    floats = [each for each in row.outputs if each.is_float and isinstance(metric, Closeness)]
    worst = max(floats, key=lambda each: each.other_shape, default=None)
    if worst is None or worst.other_shape == 0:
        return 0.0, ""
    return worst.other_shape, f"{worst.name}, samples of another shape"
