"""Compare quantized models with the float one over the same data, in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxq.closeness import OutputCloseness, Sums, add_sums, closeness, worst
from onnxq.data.images import require_labels
from onnxq.data.source import DataSource
from onnxq.errors import DataError
from onnxq.model.model import Model
from onnxq.progress import SILENT, Progress
from onnxq.validation.interface import check_interface, choose_outputs
from onnxq.validation.metrics import AnyMetric, Closeness, Task
from onnxq.validation.metrics.protocol import Mergeable
from onnxq.validation.metrics.update import compute
from onnxq.validation.terms import (
    Comparison,
    Terms,
    measured,
    measured_on_cluster,
    plan_of,
    update_from,
)


@dataclass(frozen=True)
class Row:
    """What was measured of one model under one execution.

    Attributes:
        values: metric → its value; NaN where it needs what is not there.
        units: metric → its unit.
        details: metric → all its values by name, of one that gives several.
        decisive: metric → the output, or group of slices of it, whose value it is.
        outputs: every output against the float model's; () for the float model.
        errors: metric → standard error of its value for the choice of the samples, where that is
            told; NaN where it cannot be.
    """

    model: str
    execution: str
    size: int
    values: Mapping[str, float]
    units: Mapping[str, str]
    details: Mapping[str, Mapping[str, float]]
    decisive: Mapping[str, str]
    outputs: tuple[OutputCloseness, ...]
    errors: Mapping[str, float] = field(default_factory=dict)


def compare(
    models: Sequence[Model],
    source: DataSource,
    comparison: Comparison,
    *,
    dask: str | None = None,
    progress: Progress = SILENT,
) -> tuple[tuple[Row, ...], int]:
    """Run every model under every execution; the float model runs first, where the data run.

    Args:
        models: the float model, then the quantized ones.
        dask: address of a Dask scheduler whose workers run the models, with the same result.

    Returns:
        Rows, the float model's first, and the number of samples.

    Raises:
        DataError: a metric needs labels and the data have none that fit the model.
        ModelError: a quantized model has other inputs or outputs than the float one.
        ProviderError: an execution is not available.
        UsageError: no such output, a metric of the user's failed, no cluster, or a piece of work
            killed several workers.
    """
    metrics = comparison.chosen
    labelled = [metric.name for metric in metrics if metric.needs_labels]
    if labelled and comparison.labels is None:
        require_labels(source, labelled[0])
    choose_outputs(models[0], comparison.outputs)
    for model in models[1:]:
        check_interface(models[0], model)
    plan = plan_of(models, comparison)
    tally = _Tally(metrics, len(plan))
    with progress.track("validate", source.count) as advance:
        if dask is None:
            for terms in measured(models, source, comparison):
                tally.add(terms)
                advance(terms.samples)
        else:
            for terms in measured_on_cluster(source, comparison, dask, advance):
                tally.add(terms)
    if tally.samples == 0:
        raise DataError(f"{source.spec}: no samples")
    rows = tuple(
        tally.row(number, model, execution) for number, (model, execution) in enumerate(plan)
    )
    return rows, tally.samples


class _Tally:
    """Adds up terms in the order of the data: the same bits wherever they were computed."""

    def __init__(self, metrics: Sequence[AnyMetric], rows: int) -> None:
        self.samples = 0
        self._metrics = metrics
        tasks = [metric for metric in metrics if isinstance(metric, Task)]
        self._tasks = [[(task, task.create()) for task in tasks] for _ in range(rows)]
        self._sums: list[dict[str, Sums]] = [{} for _ in range(rows)]

    def add(self, terms: Terms) -> None:
        self.samples += terms.samples
        for number, tasks in enumerate(self._tasks):
            add_sums(self._sums[number], terms.sums[number])
            there = terms.metrics[number]
            for task, metric in tasks:
                if task.name in there and isinstance(metric, Mergeable):
                    metric.merge(there[task.name])
                elif terms.ran is not None:
                    update_from(task, metric, terms.ran, number)

    def row(self, number: int, model: Model, execution: str) -> Row:
        """What all terms say of one model under one execution."""
        outputs = closeness(self._sums[number]) if number else ()
        values: dict[str, float] = {}
        details: dict[str, Mapping[str, float]] = {}
        decisive: dict[str, str] = {}
        errors: dict[str, float] = {}
        units = {metric.name: metric.unit for metric in self._metrics}
        for metric in self._metrics:
            if isinstance(metric, Closeness):
                part = worst(outputs, metric.of)
                values[metric.name] = math.nan if part is None else metric.of(part)
                if part is not None:
                    decisive[metric.name] = part.label
                    if metric.error_of is not None:
                        errors[metric.name] = metric.error_of(part)
        for task, instance in self._tasks[number]:
            found = compute(task, instance)
            values[task.name] = next(iter(found.values()))
            if len(found) > 1:
                details[task.name] = found
        values = {name: values[name] for name in units}
        return Row(
            model.name, execution, model.size, values, units, details, decisive, outputs, errors
        )
