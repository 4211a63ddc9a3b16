"""What running models over data adds to the comparison: here, or on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import Sums, as_array, sums_of
from onnxq.cluster import connected
from onnxq.data.batching import samples_in
from onnxq.data.budget import GROUP, WHOLE, Batching
from onnxq.data.gather import in_parts, run_batch
from onnxq.data.labels import SampleLabels
from onnxq.data.source import DataSource, spans
from onnxq.data.states import StreamedSource, streamed
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel
from onnxq.model.session import custom_operators
from onnxq.progress import Advance
from onnxq.validation.execute import Runner, runner
from onnxq.validation.interface import check_shape, choose_outputs
from onnxq.validation.metrics import METRICS, AnyMetric, Metric, MetricLike, Task, metrics_named
from onnxq.validation.metrics.protocol import Mergeable
from onnxq.validation.metrics.update import update

Array = NDArray[Any]

RunOther = Callable[[Mapping[str, Array]], dict[str, Array]]
"""From what the float model ran at once to a quantized model's outputs for the same samples."""


@dataclass(frozen=True)
class Comparison:
    """What to compare and how; the same on this machine and on the workers of a cluster.

    Attributes:
        models: the models for the workers, the float one first; empty where there is no cluster.
        metrics: see `metrics_named`; each once.
        batching: how samples run.
        outputs: names of those that are compared, () for all.
        labels: the truth from a file of its own; else the data's.
        classes: names of the model's classes, for metrics that want them.
        tokens: which axes of the outputs count tokens, so that padding does not count.
        returns_outputs: whether workers send outputs, for metrics that cannot be computed there.
    """

    models: tuple[PortableModel, ...]
    metrics: tuple[MetricLike, ...]
    executions: tuple[str, ...]
    batching: Batching = WHOLE
    libraries: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()
    labels: SampleLabels | None = None
    classes: tuple[str, ...] = ()
    tokens: Tokens = NO_TOKENS
    returns_outputs: bool = True

    @property
    def chosen(self) -> list[AnyMetric]:
        """The metrics as values."""
        return list(metrics_named(self.metrics, self.classes))

    def for_workers(self) -> Comparison:
        """The same with nothing in it that only this process may know, such as the user's code."""
        tasks = [metric for metric in self.chosen if isinstance(metric, Task)]
        merging = [task.given for task in merging_tasks(self)]
        return replace(self, metrics=tuple(merging), returns_outputs=len(merging) < len(tasks))


def merging_tasks(comparison: Comparison) -> list[Task]:
    """Those of the metrics that workers compute: built in, and what they add up to can be sent."""
    named = zip(comparison.metrics, comparison.chosen, strict=True)
    built_in = [
        metric
        for given, metric in named
        if isinstance(given, str) and given.partition(":")[0] in METRICS
    ]
    tasks = [metric for metric in built_in if isinstance(metric, Task)]
    return [task for task in tasks if isinstance(task.create(), Mergeable)]


@dataclass(frozen=True)
class Ran:
    """What ran at once: samples, and each model's outputs by name, the float model's first."""

    feeds: Mapping[str, Array]
    labels: Any | None
    outputs: tuple[Mapping[str, Array], ...]


@dataclass(frozen=True)
class Terms:
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
    ran: Ran | None


def plan_of(models: Sequence[Model], comparison: Comparison) -> list[tuple[Model, str]]:
    """What runs: the float model where the data run, first; the others with their executions."""
    first = models[0], comparison.batching.base.provider
    return [first, *((m, e) for m in models[1:] for e in comparison.executions)]


def update_from(task: Task, metric: Metric, ran: Ran, number: int) -> None:
    """Show a metric what one model and execution gave; see `Metric.update`."""
    update(task, metric, ran.feeds, ran.outputs[number], ran.labels, ran.outputs[0])


def measured(
    models: Sequence[Model],
    source: DataSource,
    comparison: Comparison,
    *,
    first: int = 0,
    step: int = 1,
    remote: bool = False,
) -> Iterator[Terms]:
    """The terms of every `step`-th batch from number `first` on.

    Args:
        remote: whether this is a worker of a cluster, which computes metrics that merge.
    """
    plan = plan_of(models, comparison)
    names = choose_outputs(models[0], comparison.outputs)
    given = [spec.name for spec in models[0].outputs]
    runners = [
        in_parts(
            runner(model, execution, large=comparison.batching.large), given, comparison.batching
        )
        for model, execution in plan
    ]
    others: list[RunOther] = [
        partial(_outputs, models[0], model, run_model, names)
        for (model, _), run_model in zip(plan[1:], runners[1:], strict=True)
    ]
    stream = streamed(source)
    if stream is not None:
        ranges = spans(source.count or 0, source.axes, GROUP, first=first, step=step)
        others = [
            _own_steps(stream, ranges, model, run_model, names)
            for (model, _), run_model in zip(plan[1:], runners[1:], strict=True)
        ]
    merging = merging_tasks(comparison) if remote else []
    keep = not remote or comparison.returns_outputs
    seen: set[tuple[int, str]] = set()
    for batch in source.batches(GROUP, first=first, step=step):
        done = 0
        truth: Any | None = batch.labels
        if comparison.labels is not None:
            truth = comparison.labels.batch(batch.start, batch.start + len(batch))
        # A model that runs on its own states gives one step after the other.
        fed = [batch.feeds] if stream is None else batch.feeds.singles()
        for feeds, outputs in chain.from_iterable(run_batch(runners[0], each) for each in fed):
            samples = samples_in(feeds)
            labels = truth if truth is None else truth[done : done + samples]
            found = [_named(models[0], names, outputs)]
            found += [run_other(feeds) for run_other in others]
            ran = Ran(feeds, labels, tuple(found))
            yield Terms(
                batch.start + done, samples,
                tuple(_sums(models[0], model, ran, number, seen, comparison.tokens)
                      for number, (model, _) in enumerate(plan)),
                tuple(_instances(merging, ran, number) for number in range(len(plan))),
                ran if keep else None,
            )  # fmt: skip
            done += samples


def _named(model: Model, names: Sequence[str], outputs: Sequence[Any]) -> dict[str, Array]:
    return _chosen(dict(zip((spec.name for spec in model.outputs), outputs, strict=True)), names)


def _chosen(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Array]:
    return {name: as_array(given[name]) for name in names}


def _own_steps(
    stream: StreamedSource,
    ranges: Sequence[tuple[int, int]],
    model: Model,
    run_model: Runner,
    names: Sequence[str],
) -> RunOther:
    """The outputs of a quantized model that goes on from its own states, step by step.

    What the float model is fed holds that one's states, and is of no use to it.
    """
    given = [spec.name for spec in model.outputs]
    steps = stream.outputs_of(lambda feeds: dict(zip(given, run_model(feeds), strict=True)), ranges)
    return lambda _feeds: _chosen(next(steps), names)


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
    float_model: Model,
    model: Model,
    ran: Ran,
    number: int,
    seen: set[tuple[int, str]],
    tokens: Tokens,
) -> dict[str, Sums]:
    """What one model adds; `seen` are outputs that are known to differ in shape by the data."""
    if number == 0:
        return {}
    real = tokens.of(ran.outputs[0], ran.feeds)
    sums = sums_of(ran.outputs[0], ran.outputs[number], samples_in(ran.feeds), real)
    for name, each in sums.items():
        if each.other_shape and (number, name) not in seen:
            seen.add((number, name))
            wanted, got = ran.outputs[0][name].shape, ran.outputs[number][name].shape
            check_shape(float_model, model, name, wanted, got)
    return sums


def _instances(tasks: Sequence[Task], ran: Ran, number: int) -> dict[str, Metric]:
    found = {task.name: task.create() for task in tasks}
    for task in tasks:
        update_from(task, found[task.name], ran, number)
    return found


@dataclass(frozen=True)
class _Piece:
    source: DataSource
    comparison: Comparison
    first: int
    step: int


def measured_on_cluster(
    source: DataSource, comparison: Comparison, address: str, advance: Advance
) -> list[Terms]:
    """The terms of all batches, in order, so that their sums have the bits of one process."""
    found: list[Terms] = []
    with connected(address) as cluster:
        batches = None if source.count is None else -(-source.count // GROUP)
        count = max(1, min(cluster.pieces, batches or cluster.pieces))
        sent = comparison.for_workers()
        pieces = [_Piece(source, sent, first, count) for first in range(count)]
        for _, terms in cluster.map(_measure_piece, pieces):
            found += terms
            advance(sum(each.samples for each in terms))
    return sorted(found, key=lambda terms: terms.start)


def _measure_piece(piece: _Piece) -> list[Terms]:
    """On a worker: the batches of one piece."""
    models = [portable.unpack() for portable in piece.comparison.models]
    with custom_operators(piece.comparison.libraries):
        return list(
            measured(
                models, piece.source, piece.comparison, first=piece.first, step=piece.step,
                remote=True,
            )
        )  # fmt: skip
