"""Compare quantized models with the float one over the same data, in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import OutputCloseness, Sums, as_array, closeness, sums_of, worst
from onnxq.cluster import connected
from onnxq.data.gather import run_batch
from onnxq.data.source import DataSource, samples_in
from onnxq.errors import DataError, ModelError
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel
from onnxq.model.session import custom_operators
from onnxq.progress import SILENT, Advance, Progress
from onnxq.validation.execute import Runner, runner
from onnxq.validation.interface import check_interface, check_shape, choose_outputs
from onnxq.validation.metrics import (
    AnyMetric,
    Closeness,
    Metric,
    MetricLike,
    Task,
    metric_named,
)
from onnxq.validation.metrics.protocol import Mergeable
from onnxq.validation.metrics.update import compute, update

Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """What was measured of one model under one execution.

    Attributes:
        values: metric → its value; NaN where it needs what is not there.
        units: metric → its unit.
        details: metric → all its values by name, of one that gives several.
        decisive: metric → the output, or group of slices of it, whose value it is.
        outputs: every output against the float model's; () for the float model.
    """

    model: str
    execution: str
    size: int
    values: Mapping[str, float]
    units: Mapping[str, str]
    details: Mapping[str, Mapping[str, float]]
    decisive: Mapping[str, str]
    outputs: tuple[OutputCloseness, ...]


@dataclass(frozen=True)
class Comparison:
    """What to compare and how; the same on this machine and on the workers of a cluster.

    Attributes:
        models: the models for the workers, the float one first; empty where there is no cluster.
        metrics: see `metric_named`.
        outputs: names of those that are compared, () for all.
    """

    models: tuple[PortableModel, ...]
    metrics: tuple[MetricLike, ...]
    executions: tuple[str, ...]
    batch_size: int = 8
    libraries: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Ran:
    """What ran at once: samples, and each model's outputs by name, the float model's first."""

    feeds: Mapping[str, Array]
    labels: Any | None
    outputs: tuple[Mapping[str, Array], ...]


@dataclass(frozen=True)
class _Terms:
    """What one run adds.

    Attributes:
        start, samples: which.
        sums: for each model and execution, the sums of its outputs.
        metrics: the same, by name: instances that saw this run only.
        ran: for what is computed elsewhere; None where nothing is.
    """

    start: int
    samples: int
    sums: tuple[Mapping[str, Sums], ...]
    metrics: tuple[Mapping[str, Metric], ...]
    ran: _Ran | None


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
        UsageError: no such output, a metric of the user's failed, no cluster, or a piece of work
            killed several workers.
    """
    metrics = [metric_named(each) for each in comparison.metrics]
    labelled = [metric.name for metric in metrics if metric.needs_labels]
    if labelled and not source.has_labels:
        raise DataError(
            f"{source.spec}: {labelled[0]} needs labels and the data have none",
            hint="use class folders or a labels array, or --metric sqnr",
        )
    choose_outputs(models[0], comparison.outputs)
    for model in models[1:]:
        check_interface(models[0], model)
    plan = _plan(models, comparison.executions)
    tally = _Tally(metrics, len(plan))
    with progress.track("validate", source.count) as advance:
        if dask is None:
            for terms in _measured(models, source, comparison):
                tally.add(terms)
                advance(terms.samples)
        else:
            for terms in _measured_on_cluster(source, comparison, dask, advance):
                tally.add(terms)
    if tally.samples == 0:
        raise DataError(f"{source.spec}: no samples")
    rows = tuple(
        tally.row(number, model, execution) for number, (model, execution) in enumerate(plan)
    )
    return rows, tally.samples


def _plan(models: Sequence[Model], executions: Sequence[str]) -> list[tuple[Model, str]]:
    return [(models[0], "cpu")] + [(m, e) for m in models[1:] for e in executions]


class _Tally:
    """Adds up terms in the order of the data: the same bits wherever they were computed."""

    def __init__(self, metrics: Sequence[AnyMetric], rows: int) -> None:
        self.samples = 0
        self._metrics = metrics
        tasks = [metric for metric in metrics if isinstance(metric, Task)]
        self._tasks = [[(task, task.create()) for task in tasks] for _ in range(rows)]
        self._sums: list[dict[str, Sums]] = [{} for _ in range(rows)]

    def add(self, terms: _Terms) -> None:
        self.samples += terms.samples
        for number, tasks in enumerate(self._tasks):
            mine = self._sums[number]
            for name, sums in terms.sums[number].items():
                mine[name] = mine[name] + sums if name in mine else sums
            there = terms.metrics[number]
            for task, metric in tasks:
                if task.name in there and isinstance(metric, Mergeable):
                    metric.merge(there[task.name])
                elif terms.ran is not None:
                    _update(task, metric, terms.ran, number)

    def row(self, number: int, model: Model, execution: str) -> Row:
        """What all terms say of one model under one execution."""
        outputs = closeness(self._sums[number]) if number else ()
        values: dict[str, float] = {}
        details: dict[str, Mapping[str, float]] = {}
        decisive: dict[str, str] = {}
        units = {metric.name: metric.unit for metric in self._metrics}
        for metric in self._metrics:
            if isinstance(metric, Closeness):
                part = worst(outputs, metric.of)
                values[metric.name] = math.nan if part is None else metric.of(part)
                if part is not None:
                    decisive[metric.name] = part.label
        for task, instance in self._tasks[number]:
            found = compute(task, instance)
            values[task.name] = next(iter(found.values()))
            if len(found) > 1:
                details[task.name] = found
        values = {name: values[name] for name in units}
        return Row(model.name, execution, model.size, values, units, details, decisive, outputs)


def _update(task: Task, metric: Metric, ran: _Ran, number: int) -> None:
    update(task, metric, ran.feeds, ran.outputs[number], ran.labels, ran.outputs[0])


# --- running ---------------------------------------------------------------------------------


def _measured(
    models: Sequence[Model],
    source: DataSource,
    comparison: Comparison,
    *,
    first: int = 0,
    step: int = 1,
    remote: bool = False,
) -> Iterator[_Terms]:
    """The terms of every `step`-th batch from number `first` on.

    Args:
        remote: compute here what a cluster's workers can: metrics with a name that merge.
    """
    plan = _plan(models, comparison.executions)
    names = choose_outputs(models[0], comparison.outputs)
    runners = [runner(model, execution) for model, execution in plan]
    tasks = [
        metric
        for each in comparison.metrics
        for metric in [metric_named(each)]
        if isinstance(metric, Task)
    ]
    merging = [m for m in tasks if remote and isinstance(m.create(), Mergeable)]
    keep = len(merging) < len(tasks)
    seen: set[tuple[int, str]] = set()
    for batch in source.batches(comparison.batch_size, first=first, step=step):
        done = 0
        for feeds, outputs in run_batch(runners[0], batch.feeds):
            samples = samples_in(feeds)
            labels = batch.labels
            labels = labels if labels is None else labels[done : done + samples]
            found = [_named(models[0], names, outputs)]
            found += [
                _outputs(models[0], model, run_model, names, feeds)
                for (model, _), run_model in zip(plan[1:], runners[1:], strict=True)
            ]
            ran = _Ran(feeds, labels, tuple(found))
            yield _Terms(
                batch.start + done, samples,
                tuple(_sums(models[0], model, ran, number, seen)
                      for number, (model, _) in enumerate(plan)),
                tuple(_instances(merging, ran, number) for number in range(len(plan))),
                ran if keep else None,
            )  # fmt: skip
            done += samples


def _named(model: Model, names: Sequence[str], outputs: Sequence[Any]) -> dict[str, Array]:
    given = dict(zip((spec.name for spec in model.outputs), outputs, strict=True))
    return {name: as_array(given[name]) for name in names}


def _outputs(
    float_model: Model,
    model: Model,
    run_model: Runner,
    names: Sequence[str],
    feeds: Mapping[str, Array],
) -> dict[str, Array]:
    """A quantized model's outputs for what the float model ran at once."""
    parts = [_named(model, names, outputs) for _, outputs in run_batch(run_model, feeds)]
    if len(parts) == 1:
        return parts[0]
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in names}
    except ValueError:
        raise ModelError(
            f"{model.name} takes one sample at a time, {float_model.name} takes several, and "
            "their outputs have no batch axis in common",
            hint="quantize the model again, or export both with the same batch axis",
        ) from None


def _sums(
    float_model: Model, model: Model, ran: _Ran, number: int, seen: set[tuple[int, str]]
) -> dict[str, Sums]:
    """What one model adds; `seen` are outputs that are known to differ in shape by the data."""
    if number == 0:
        return {}
    sums = sums_of(ran.outputs[0], ran.outputs[number], samples_in(ran.feeds))
    for name, each in sums.items():
        if each.other_shape and (number, name) not in seen:
            seen.add((number, name))
            wanted, got = ran.outputs[0][name].shape, ran.outputs[number][name].shape
            check_shape(float_model, model, name, wanted, got)
    return sums


def _instances(tasks: Sequence[Task], ran: _Ran, number: int) -> dict[str, Metric]:
    found = {task.name: task.create() for task in tasks}
    for task in tasks:
        _update(task, found[task.name], ran, number)
    return found


@dataclass(frozen=True)
class _Piece:
    source: DataSource
    comparison: Comparison
    first: int
    step: int


def _measured_on_cluster(
    source: DataSource, comparison: Comparison, address: str, advance: Advance
) -> list[_Terms]:
    """The terms of all batches, in order, so that their sums have the bits of one process."""
    found: list[_Terms] = []
    with connected(address) as cluster:
        batches = None if source.count is None else -(-source.count // comparison.batch_size)
        count = max(1, min(cluster.pieces, batches or cluster.pieces))
        pieces = [_Piece(source, comparison, first, count) for first in range(count)]
        for _, terms in cluster.map(_measure_piece, pieces):
            found += terms
            advance(sum(each.samples for each in terms))
    return sorted(found, key=lambda terms: terms.start)


def _measure_piece(piece: _Piece) -> list[_Terms]:
    """On a worker: the batches of one piece."""
    models = [portable.unpack() for portable in piece.comparison.models]
    with custom_operators(piece.comparison.libraries):
        return list(
            _measured(
                models, piece.source, piece.comparison, first=piece.first, step=piece.step,
                remote=True,
            )
        )  # fmt: skip
