"""Metrics at work: what goes wrong in the user's code is the user's to hear."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from onnxq.errors import OnnxqError, UsageError
from onnxq.python_files import RAISED, brief
from onnxq.validation.metrics.protocol import Array, Metric, Task


def update(
    task: Task,
    metric: Metric,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    labels: Any | None,
    reference: Mapping[str, Array],
) -> None:
    """`metric.update`; raises `UsageError` where it fails.

    A metric of the user's gets copies: what it changes in place is nobody else's.
    """
    seen = (inputs, outputs, labels, reference)
    if task.of_user:
        seen = (_copied(inputs), _copied(outputs), copy.copy(labels), _copied(reference))
    try:
        metric.update(*seen)
    except OnnxqError:
        raise
    except RAISED as error:
        raise UsageError(f"metric {task.given!r} failed: {brief(error)}") from error


def _copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in arrays.items()}


def compute(task: Task, metric: Metric) -> dict[str, float]:
    """`metric.compute` by name; a single number has the name of the metric.

    Raises:
        UsageError: it fails, or gives no number.
    """
    try:
        found = metric.compute()
        values = dict(found) if isinstance(found, Mapping) else {task.name: found}
        values = {str(key): float(value) for key, value in values.items()}
    except OnnxqError:
        raise
    except RAISED as error:
        raise UsageError(f"metric {task.given!r} failed: {brief(error)}") from error
    if not values:
        raise UsageError(f"metric {task.given!r} gave no number")
    return values
