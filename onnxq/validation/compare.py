"""Compare quantized models with the float one over the same data, in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.source import DataSource
from onnxq.errors import DataError, ModelError
from onnxq.model.model import Model
from onnxq.progress import SILENT, Progress
from onnxq.validation.execute import Runner, runner
from onnxq.validation.metrics import Metric

Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """Metrics of one model under one execution; NaN where a metric needs what is not there."""

    model: str
    execution: str
    size: int
    values: Mapping[str, float]
    units: Mapping[str, str]


def compare(
    float_model: Model,
    quantized: Sequence[Model],
    source: DataSource,
    *,
    metrics: Sequence[Metric],
    executions: Sequence[str],
    batch_size: int = 8,
    progress: Progress = SILENT,
) -> tuple[tuple[Row, ...], int]:
    """Run every model under every execution; the float model runs on the CPU, first.

    Returns:
        Rows, the float model's first, and the number of samples.

    Raises:
        DataError: a metric needs labels and the data have none.
        ModelError: a quantized model has other inputs or outputs than the float one.
        ProviderError: an execution is not available.
    """
    labelled = [metric.name for metric in metrics if metric.needs_labels]
    if labelled and not source.has_labels:
        raise DataError(
            f"{source.spec}: {labelled[0]} needs labels and the data have none",
            hint="use class folders or a labels array, or --metric sqnr",
        )
    for model in quantized:
        _check_interface(float_model, model)
    plan = [(float_model, "cpu")] + [(m, e) for m in quantized for e in executions]
    runners: list[Runner] = [runner(model, execution) for model, execution in plan]
    sums: list[dict[str, Array]] = [{} for _ in plan]
    samples = 0
    with progress.track("validate", source.count) as advance:
        for batch in source.batches(batch_size):
            reference: Array | None = None
            for index, run_model in enumerate(runners):
                output = run_model(batch.feeds)[0]
                reference = output if reference is None else reference
                for metric in metrics:
                    if not metric.needs_labels and index == 0:
                        continue
                    other = batch.labels if metric.needs_labels else reference
                    terms = metric.terms(output, np.asarray(other))
                    sums[index][metric.name] = sums[index].get(metric.name, 0.0) + terms
            samples += len(batch)
            advance(len(batch))
    if samples == 0:
        raise DataError(f"{source.spec}: no samples")
    units = {metric.name: metric.unit for metric in metrics}
    rows = []
    for (model, execution), found in zip(plan, sums, strict=True):
        values = {m.name: m.finish(found[m.name]) if m.name in found else math.nan for m in metrics}
        rows.append(Row(model.name, execution, model.size, values, units))
    return tuple(rows), samples


def _check_interface(float_model: Model, quantized: Model) -> None:
    """Both must take and give tensors of the same names and ranks."""
    for kind, ours, theirs in (
        ("input", float_model.inputs, quantized.inputs),
        ("output", float_model.outputs, quantized.outputs),
    ):
        names, other = [spec.name for spec in ours], [spec.name for spec in theirs]
        if names != other:
            raise ModelError(
                f"{quantized.name} is no version of {float_model.name}: "
                f"{kind}s {', '.join(other)} instead of {', '.join(names)}"
            )
