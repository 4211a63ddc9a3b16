"""Measure and gather what the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.calibration.statistics import Calibration
from onnxq.commands.bench import Timing, bench
from onnxq.commands.calibrate import calibrate
from onnxq.commands.inputs import as_calibration, source_of
from onnxq.commands.validate import Validation, validate
from onnxq.model.model import Model
from onnxq.options.bench import BenchOptions
from onnxq.options.calibrate import CalibrateOptions
from onnxq.options.report import ReportOptions
from onnxq.options.shared import BATCH_SIZE
from onnxq.options.validate import ValidateOptions
from onnxq.progress import Progress
from onnxq.report.html.facts import View, view
from onnxq.report.subject import look_at


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
        timing: how long the models take; None where nobody asked.
    """

    model: Model
    quantized: tuple[Model, ...]
    validation: Validation | None
    views: tuple[View, ...]
    calibrated: str
    notes: tuple[str, ...]
    timing: Timing | None = None

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
    validation = source = None
    calibration: Calibration | None = None
    if options.calibration is not None:
        calibration = as_calibration(options.calibration, model)
    if options.data is not None:
        source = source_of(options, model)
        gates = ValidateOptions(
            data=source,
            batch_size=options.batch_size,
            memory=options.memory,
            outputs=options.outputs,
            executions=options.executions,
            max_drop=options.max_drop,
            min_accuracy=options.min_accuracy,
            layers=options.layers and bool(models),
        )
        validation = validate(model, models, gates, progress)
        if calibration is None and reference.quantized is None:
            calibration = calibrate(
                model,
                CalibrateOptions(
                    data=source,
                    batch_size=options.batch_size or BATCH_SIZE,
                    memory=options.memory,
                ),
                progress,
            )
    reports = validation.layers if validation and validation.layers else (None,) * len(models)
    views = [
        view(f"m{number}", look_at(each), reference, calibration, report)
        for number, (each, report) in enumerate(zip(models, reports, strict=True), start=1)
    ]
    if not models:
        views = [view("m1", reference, None, calibration, None)]
    timing = None
    if options.latency:
        timed = BenchOptions(data=source, input_shapes=options.input_shapes, profile=True)
        timing = bench([model, *models], timed, progress)
    return Report(
        model, tuple(models), validation, tuple(views), _calibrated(calibration),
        _notes(validation, calibration), timing,
    )  # fmt: skip


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
