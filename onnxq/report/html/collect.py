"""Measure and gather what the page shows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from onnxq import api
from onnxq.api import Validation
from onnxq.calibration.statistics import Calibration
from onnxq.data.gather import BATCH_SIZE
from onnxq.errors import UsageError
from onnxq.model.model import Model
from onnxq.progress import SILENT, Progress
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
    """

    model: Model
    quantized: tuple[Model, ...]
    validation: Validation | None
    views: tuple[View, ...]
    calibrated: str
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.validation is None or self.validation.passed


def collect(
    model: Model | str | os.PathLike[str],
    quantized: Sequence[Model | str | os.PathLike[str]] = (),
    *,
    calibration: Calibration | str | os.PathLike[str] | None = None,
    data: api.Data | None = None,
    preprocess: str | None = None,
    samples: int | None = None,
    max_drop: float | None = None,
    min_accuracy: float | None = None,
    batch_size: int = BATCH_SIZE,
    memory: int = 0,
    progress: Progress = SILENT,
) -> Report:
    """Validate the models, measure their layers, and collect the facts.

    Args:
        model: the float model, or any model to look at by itself.
        quantized: models made from it.
        calibration: of `model`, for the histograms; without one the data are looked at.
        data: samples to compare the models on; without them nothing is measured.
        max_drop, min_accuracy: gates, as in `onnxq.validate`.
        batch_size, memory: as for `onnxq.calibrate`.

    Raises:
        UsageError: gates or preprocessing without data.
        DataError: the data do not fit, or the calibration is of another model.
        ModelError: a model cannot be read, normalized or run.
    """
    given = {
        "--preprocess": preprocess, "--samples": samples, "--max-drop": max_drop,
        "--min-accuracy": min_accuracy,
    }  # fmt: skip
    useless = [name for name, value in given.items() if value is not None]
    if data is None and useless:
        raise UsageError(f"{useless[0]} needs data", hint="give --data")
    model = api.as_model(model)
    models = tuple(api.as_model(each) for each in quantized)
    reference = look_at(model)
    validation = None
    if calibration is not None:
        calibration = api.as_calibration(calibration, model)
    if data is not None:
        source = api.as_source(data, model, preprocess=preprocess, samples=samples)
        validation = api.validate(
            model, models, source, max_drop=max_drop, min_accuracy=min_accuracy,
            layers=bool(models), batch_size=batch_size, memory=memory, progress=progress,
        )  # fmt: skip
        if calibration is None and reference.quantized is None:
            calibration = api.calibrate(
                model, source, batch_size=batch_size, memory=memory, progress=progress
            )
    reports = validation.layers if validation and validation.layers else (None,) * len(models)
    views = [
        view(f"m{number}", look_at(each), reference, calibration, report)
        for number, (each, report) in enumerate(zip(models, reports, strict=True), start=1)
    ]
    if not models:
        views = [view("m1", reference, None, calibration, None)]
    return Report(model, models, validation, tuple(views), _calibrated(calibration), _notes(
        validation, calibration))  # fmt: skip


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
