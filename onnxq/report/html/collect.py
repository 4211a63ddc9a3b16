"""Measure and gather what the page shows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from onnxq.calibration.statistics import Calibration
from onnxq.commands.bench import Timing, bench
from onnxq.commands.calibrate import calibrate
from onnxq.commands.inputs import as_calibration, source_of
from onnxq.commands.validate import Validation, metrics_by_default, validate
from onnxq.data.classes import as_class_names
from onnxq.data.source import DataSource
from onnxq.model.model import Model
from onnxq.options.bench import BenchOptions
from onnxq.options.calibrate import CalibrateOptions
from onnxq.options.report import ReportOptions
from onnxq.options.shared import BATCH_SIZE
from onnxq.options.validate import ValidateOptions
from onnxq.progress import Progress
from onnxq.report.html.advice import Advice, advice_on
from onnxq.report.html.facts import View, view
from onnxq.report.html.picture import Picture, picture_of
from onnxq.report.html.samples import Sample, class_names, worst_samples
from onnxq.report.html.sizes import Sizes, sizes_of
from onnxq.report.subject import look_at
from onnxq.validation.by_sample import BySample, Recorder
from onnxq.validation.metrics import Task, metrics_named, once, takes_classes

FLOAT = "float"
"""What the float model is called beside those made from it."""


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        model: the float model, or the only one.
        quantized: those compared with it.
        validation: metrics and gates; None without data.
        views: one for each quantized model, or for the only one.
        calibrated: what the histograms show.
        notes: what a reader must know.
        picture: the graph of the float model, or of the only one.
        sizes: where the bytes are, of all models.
        advice: what to try next with each quantized model.
        timing: how long the models take; None where nobody asked.
        by_sample: how far each sample is off, of all models; () where nothing was measured.
        worst: the samples that are furthest off.
        classes: names of the classes, as far as the data tell.
        lower_is_better: those of the metrics.
    """

    model: Model
    quantized: tuple[Model, ...]
    validation: Validation | None
    views: tuple[View, ...]
    calibrated: str
    notes: tuple[str, ...]
    picture: Picture
    sizes: tuple[Sizes, ...]
    advice: tuple[tuple[Advice, ...], ...]
    timing: Timing | None = None
    by_sample: tuple[BySample, ...] = ()
    worst: tuple[Sample, ...] = ()
    classes: Mapping[int, str] = field(default_factory=dict)
    lower_is_better: frozenset[str] = frozenset()

    @property
    def every(self) -> tuple[Model, ...]:
        """All models, the float one first."""
        return (self.model, *self.quantized)

    @property
    def names(self) -> tuple[str, ...]:
        """What to call them on the page: short, and each by itself."""
        return short_names(self.every)

    @property
    def passed(self) -> bool:
        return self.validation is None or self.validation.passed


def collect(
    model: Model, models: Sequence[Model], options: ReportOptions, progress: Progress
) -> Report:
    """Validate the models, measure their layers, and collect the facts.

    Args:
        model: the float model, or any model to look at by itself.
        models: quantized ones made from it.

    Raises:
        DataError: the data do not fit, or the calibration is of another model.
        ModelError: a model cannot be normalized or run.
    """
    reference = look_at(model)
    subjects = [look_at(each) for each in models]
    validation = source = None
    by_sample: tuple[BySample, ...] = ()
    calibration: Calibration | None = None
    if options.calibration is not None:
        calibration = as_calibration(options.calibration, model)
    if options.data is not None:
        reads_texts = any(map(takes_classes, options.metrics or ()))
        source = source_of(options, model, classes=None if reads_texts else options.classes)
        validation, by_sample = _measured(model, models, source, options, progress)
        if calibration is None and reference.quantized is None:
            calibration = calibrate(
                model,
                CalibrateOptions(
                    data=source,
                    batch_size=options.batch_size or BATCH_SIZE,
                    memory=options.memory,
                    provider=options.provider,
                ),
                progress,
            )
    reports = validation.layers if validation and validation.layers else (None,) * len(models)
    views = [
        view(f"m{number}", each, reference, calibration, report)
        for number, (each, report) in enumerate(zip(subjects, reports, strict=True), start=1)
    ]
    if not models:
        views = [view("m1", reference, None, calibration, None)]
    timing = None
    if options.latency:
        timed = BenchOptions(data=source, input_shapes=options.input_shapes, profile=True)
        timing = bench([model, *models], timed, progress)
    sizes = tuple(map(sizes_of, (reference, *subjects)))
    times = timing.rows[1 : 1 + len(models)] if timing else (None,) * len(models)
    advice = tuple(
        advice_on(*each) for each in zip(views if models else (), sizes[1:], times, strict=True)
    )
    worst = worst_samples(source, by_sample[1:]) if source is not None and by_sample else ()
    return Report(
        model, tuple(models), validation, tuple(views), _calibrated(calibration),
        _notes(validation, calibration), picture_of(reference.graph), sizes, advice, timing,
        by_sample, worst, _class_names(options, source), _lower_is_better(options),
    )  # fmt: skip


def _class_names(options: ReportOptions, source: DataSource | None) -> Mapping[int, str]:
    if options.classes is not None and not any(map(takes_classes, options.metrics or ())):
        return dict(enumerate(as_class_names(options.classes).names))
    return {} if source is None else class_names(source)


def _lower_is_better(options: ReportOptions) -> frozenset[str]:
    chosen = metrics_named(once(options.metrics or ()))
    return frozenset(
        each.name for each in chosen if isinstance(each, Task) and not each.higher_is_better
    )


def _measured(
    model: Model,
    models: Sequence[Model],
    source: DataSource,
    options: ReportOptions,
    progress: Progress,
) -> tuple[Validation, tuple[BySample, ...]]:
    """The validation, and what it showed of each sample: each model by its first execution."""
    recorder = Recorder()
    named = options.metrics or metrics_by_default(options.labels, source)
    gates = ValidateOptions(
        data=source,
        batch_size=options.batch_size,
        memory=options.memory,
        classes=options.classes,
        labels=options.labels,
        metrics=(*named, recorder),
        outputs=options.outputs,
        executions=options.executions,
        provider=options.provider,
        max_drop=options.max_drop,
        min_accuracy=options.min_accuracy,
        layers=options.layers and bool(models),
    )
    found = validate(model, models, gates, progress)
    seen = recorder.rows([row.outputs for row in found.rows])
    rows = tuple(
        replace(
            row,
            values={key: each for key, each in row.values.items() if key != recorder.__name__},
            units={key: each for key, each in row.units.items() if key != recorder.__name__},
        )
        for row in found.rows
    )
    by_sample = (seen[0], *seen[1 :: found.executions]) if models else ()
    return replace(found, rows=rows), by_sample


def short_names(models: Sequence[Model]) -> tuple[str, ...]:
    """What tells models apart: "float", and the others' file names without what all share."""
    paths = [str(each.source or each.name) for each in models]
    names = [PurePath(each).name for each in paths]
    if len({*names}) < len(names):
        # The same file name in several folders: as much of the path as tells them apart.
        shared = os.path.commonpath(paths) if len({*paths}) == len(paths) > 1 else ""
        names = [os.path.relpath(each, shared) if shared else each for each in paths]
    if len({*names}) < len(names):
        names = [f"{each} ({number})" for number, each in enumerate(names)]
    first, *others = (each.removesuffix(".onnx") for each in names)
    if others and all(each[: len(first) + 1] in {f"{first}.", f"{first}-", f"{first}_"}
                      for each in others):  # fmt: skip
        others = [each[len(first) + 1 :] for each in others]
    if not others:
        return (first,)
    return (first if FLOAT in others else FLOAT, *others)


def _calibrated(calibration: Calibration | None) -> str:
    if calibration is None:
        return ""
    return f"{calibration.samples:,} samples"


def _notes(validation: Validation | None, calibration: Calibration | None) -> tuple[str, ...]:
    found = []
    if validation is None:
        found.append("Nothing was measured: --data gives accuracy, SQNR and the layers' errors.")
    elif validation.note:
        found.append(f"The models were compared on {validation.note}.")
    if calibration is None:
        found.append("No histograms: --calibration or --data gives them.")
    elif calibration.note:
        found.append(f"The histograms are of {calibration.note}.")
    return tuple(found)
