"""Compare quantized models with the float one over the same data, in one pass."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.cluster import connected
from onnxq.data.batching import GROUP, WHOLE, Batching
from onnxq.data.checks import sizes
from onnxq.data.gather import in_parts, run_batch
from onnxq.data.source import DataSource
from onnxq.errors import DataError, ModelError
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel
from onnxq.model.session import custom_operators
from onnxq.progress import SILENT, Advance, Progress
from onnxq.validation.execute import Runner, runner
from onnxq.validation.metrics import metric_named

Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """Metrics of one model under one execution; NaN where a metric needs what is not there."""

    model: str
    execution: str
    size: int
    values: Mapping[str, float]
    units: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """What to compare and how; the same on this machine and on the workers of a cluster.

    Attributes:
        models: the models for the workers, the float one first; empty where there is no cluster.
        metrics: names, see `metric_named`.
        batching: how samples run.
    """

    models: tuple[PortableModel, ...]
    metrics: tuple[str, ...]
    executions: tuple[str, ...]
    batching: Batching = WHOLE
    libraries: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Terms:
    """What one batch adds to the metrics.

    Attributes:
        start, samples: the batch.
        sums: for each model and execution, by metric.
    """

    start: int
    samples: int
    sums: tuple[Mapping[str, Array], ...]


def compare(
    models: Sequence[Model],
    source: DataSource,
    comparison: Comparison,
    *,
    dask: str | None = None,
    progress: Progress = SILENT,
) -> tuple[tuple[Row, ...], int]:
    """Run every model under every execution; the float model runs on the CPU, first.

    Args:
        models: the float model, then the quantized ones.
        dask: address of a Dask scheduler whose workers run the models, with the same result.

    Returns:
        Rows, the float model's first, and the number of samples.

    Raises:
        DataError: a metric needs labels and the data have none.
        ModelError: a quantized model has other inputs or outputs than the float one.
        ProviderError: an execution is not available.
        UsageError: no cluster, or a piece of work killed several workers.
    """
    metrics = [metric_named(name) for name in comparison.metrics]
    labelled = [metric.name for metric in metrics if metric.needs_labels]
    if labelled and not source.has_labels:
        raise DataError(
            f"{source.spec}: {labelled[0]} needs labels and the data have none",
            hint="use class folders or a labels array, or --metric sqnr",
        )
    for model in models[1:]:
        _check_interface(models[0], model)
    with progress.track("validate", source.count) as advance:
        if dask is None:
            found = _measured(models, source, comparison, advance)
        else:
            found = _measured_on_cluster(source, comparison, dask, advance)
    samples = sum(terms.samples for terms in found)
    if samples == 0:
        raise DataError(f"{source.spec}: no samples")
    units = {metric.name: metric.unit for metric in metrics}
    rows = []
    for number, (model, execution) in enumerate(_plan(models, comparison.executions)):
        values = {}
        for metric in metrics:
            parts = [t.sums[number][metric.name] for t in found if metric.name in t.sums[number]]
            # From 0 on and in the order of the batches: the same bits wherever they ran.
            total = functools.reduce(operator.add, parts, np.zeros(2))
            values[metric.name] = metric.finish(total) if parts else math.nan
        rows.append(Row(model.name, execution, model.size, values, units))
    return tuple(rows), samples


def _plan(models: Sequence[Model], executions: Sequence[str]) -> list[tuple[Model, str]]:
    return [(models[0], "cpu")] + [(m, e) for m in models[1:] for e in executions]


def _measured(
    models: Sequence[Model],
    source: DataSource,
    comparison: Comparison,
    advance: Advance,
    first: int = 0,
    step: int = 1,
) -> list[Terms]:
    """The terms of every `step`-th batch from number `first` on."""
    metrics = [metric_named(name) for name in comparison.metrics]
    plan = _plan(models, comparison.executions)
    outputs = [spec.name for spec in models[0].outputs]
    runners: list[Runner] = [
        in_parts(runner(model, execution), outputs, comparison.batching)
        for model, execution in plan
    ]
    result = []
    for batch in source.batches(GROUP, first=first, step=step):
        reference: Array | None = None
        sums: list[dict[str, Array]] = []
        for index, run_model in enumerate(runners):
            parts = [outputs[0] for _, outputs in run_batch(run_model, batch.feeds)]
            output = (
                np.concatenate([np.atleast_1d(part) for part in parts]) if parts[1:] else parts[0]
            )
            reference = output if reference is None else reference
            if output.shape != reference.shape:
                raise ModelError(
                    f"{plan[index][0].name} is no version of {plan[0][0].name}: its first output "
                    f"has the shape {sizes(output.shape)} instead of {sizes(reference.shape)}"
                )
            sums.append({
                metric.name: metric.terms(
                    output, np.asarray(batch.labels if metric.needs_labels else reference)
                )
                for metric in metrics
                if metric.needs_labels or index > 0
            })  # fmt: skip
        result.append(Terms(batch.start, len(batch), tuple(sums)))
        advance(len(batch))
    return result


@dataclass(frozen=True)
class _Piece:
    source: DataSource
    comparison: Comparison
    first: int
    step: int


def _measured_on_cluster(
    source: DataSource, comparison: Comparison, address: str, advance: Advance
) -> list[Terms]:
    """The terms of all batches, in order, so that their sums have the bits of one process."""
    found: list[Terms] = []
    with connected(address) as cluster:
        batches = None if source.count is None else -(-source.count // GROUP)
        count = max(1, min(cluster.pieces, batches or cluster.pieces))
        pieces = [_Piece(source, comparison, first, count) for first in range(count)]
        for _, terms in cluster.map(_measure_piece, pieces):
            found += terms
            advance(sum(each.samples for each in terms))
    return sorted(found, key=lambda terms: terms.start)


def _measure_piece(piece: _Piece) -> list[Terms]:
    """On a worker: the batches of one piece."""
    models = [portable.unpack() for portable in piece.comparison.models]
    with custom_operators(piece.comparison.libraries):
        return _measured(
            models, piece.source, piece.comparison, lambda _: None, piece.first, piece.step
        )


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
