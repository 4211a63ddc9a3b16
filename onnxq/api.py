"""The public API: the stages composed. Each function is what the command of its name runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import files as calibration_files
from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import observe
from onnxq.data import DataSource, Preprocessing, open_data
from onnxq.data.gather import BATCH_SIZE, gather
from onnxq.equalization import equalize as equalization_stage
from onnxq.equalization.classes import find_classes
from onnxq.equalization.equalize import Equalization, EqualizationOptions
from onnxq.equalization.prove import Feeds, random_feeds
from onnxq.errors import DataError, UsageError
from onnxq.model import files as model_files
from onnxq.model.graph import Graph
from onnxq.model.model import Model, with_metadata
from onnxq.model.normalize import Normalization, normalize
from onnxq.model.operators import operator_of
from onnxq.progress import SILENT, Progress
from onnxq.quantization import quantize as quantization_stage
from onnxq.quantization.details import METADATA_KEY, details_json, recorded_preprocessing
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.quantize import QuantizationResult, Request, Samples
from onnxq.quantization.targets import target_named
from onnxq.validation.compare import Row, compare
from onnxq.validation.execute import runner
from onnxq.validation.gates import Gate, check_gates
from onnxq.validation.metrics import METRICS, metric_named

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
Data = PathLike | Array | Mapping[str, Array] | DataSource

PROOF_SAMPLES = 16
"""Samples on which equalization proves that the float outputs stay the same."""

CORRECTION_SAMPLES = 128
"""Samples on which biases are corrected; more bring little and cost memory."""

MEMORY_FOR_SAMPLES = 1 << 28
"""Bytes that one activation of all correction samples may take."""

MEASURED_SAMPLES = 64
"""Held-out samples on which variants of the quantized model are compared."""

HOLD_OUT = 8
"""Every so many-th batch of calibration data is held out to measure on."""


def load(path: PathLike) -> Model:
    """Load a model file; see `onnxq.model.files.load`."""
    return model_files.load(path)


def save(model: Model, path: PathLike) -> None:
    """Save a model file, whole or not at all; see `onnxq.model.files.save`."""
    model_files.save(model, path)


def as_model(model: Model | PathLike) -> Model:
    """Accept a model or its path."""
    return model if isinstance(model, Model) else load(model)


def as_source(
    data: Data,
    model: Model,
    *,
    preprocess: str | Preprocessing | None = None,
    samples: int | None = None,
    allow_nonfinite: bool = False,
) -> DataSource:
    """Open data for a model; a `DataSource` passes through."""
    if not isinstance(data, (str, os.PathLike, np.ndarray, Mapping)):
        return data
    parsed = Preprocessing.parse(preprocess) if isinstance(preprocess, str) else preprocess
    spec = data if isinstance(data, (str, np.ndarray, Mapping)) else Path(data)
    return open_data(
        spec, model.inputs, preprocessing=parsed, samples=samples, allow_nonfinite=allow_nonfinite
    )


# --- calibrate -------------------------------------------------------------------------------


def tensors_to_observe(graph: Graph) -> dict[str, int | None]:
    """Activations worth a histogram → channel axis.

    What only a fused activation reads is left out: it never exists on the target, and exposing it
    would break the fusion.
    """
    classes = find_classes(graph)
    found: dict[str, int | None] = {}
    for name in graph.activations:
        uses = graph.consumers(name)
        row = operator_of(uses[0].node) if len(uses) == 1 else None
        producer = graph.producers.get(name)
        if row and row.fuses and producer is not None and not graph.is_exposed(name):
            continue
        if uses or graph.is_exposed(name):
            found[name] = classes.channel_axis(name)
    return found


def calibrate(
    model: Model | PathLike,
    data: Data,
    *,
    preprocess: str | Preprocessing | None = None,
    samples: int | None = None,
    batch_size: int = BATCH_SIZE,
    shard: tuple[int, int] = (1, 1),
    provider: str = "cpu",
    allow_nonfinite: bool = False,
    progress: Progress = SILENT,
) -> Calibration:
    """Run the model over the data once and collect what every tensor's values look like."""
    model = as_model(model)
    source = as_source(
        data, model, preprocess=preprocess, samples=samples, allow_nonfinite=allow_nonfinite
    )
    normalized, _ = normalize(model)
    return observe(
        normalized, source, tensors_to_observe(Graph(normalized)), fingerprint=model.fingerprint,
        batch_size=batch_size, shard=shard, provider=provider, allow_nonfinite=allow_nonfinite,
        progress=progress,
    )  # fmt: skip


def _as_calibration(calibration: Calibration | PathLike, model: Model) -> Calibration:
    """Load if need be; refuse the calibration of another model."""
    named = "the calibration"
    if not isinstance(calibration, Calibration):
        named = str(calibration)
        calibration = calibration_files.load(Path(calibration))
    if calibration.provenance.model != model.fingerprint:
        raise DataError(
            f"{named} was made for another model than {model.name}",
            hint="run onnxq calibrate on this model",
        )
    return calibration


# --- equalize --------------------------------------------------------------------------------


@dataclass(frozen=True)
class EqualizationResult:
    """What `equalize` did.

    Attributes:
        normalization: batch norms folded, constants computed.
        equalization: scales, proof, classes and barriers.
        calibration: the one used, None for weights only.
    """

    normalization: Normalization
    equalization: Equalization
    calibration: Calibration | None


def equalize(
    model: Model | PathLike,
    *,
    calibration: Calibration | PathLike | None = None,
    data: Data | None = None,
    preprocess: str | Preprocessing | None = None,
    scales: str = "power-of-two",
    relu6: str = "auto",
    progress: Progress = SILENT,
) -> tuple[Model, EqualizationResult]:
    """Scale weights across layers without changing what the model computes.

    Returns:
        The equalized float model and the record, with the proof that its outputs are the same.
    """
    model = as_model(model)
    normalized, normalization = normalize(model)
    if data is None and preprocess is not None:
        raise UsageError("preprocessing needs data", hint="give --data")
    source = as_source(data, model, preprocess=preprocess) if data is not None else None
    if calibration is not None:
        calibration = _as_calibration(calibration, model)
        _check_preprocessing(calibration.provenance.preprocessing, source, "the calibration")
    elif source is not None:
        calibration = observe(
            normalized, source, tensors_to_observe(Graph(normalized)),
            batch_size=BATCH_SIZE, fingerprint=model.fingerprint, progress=progress,
        )  # fmt: skip
    options = EqualizationOptions(real_scales=scales == "real", relu6=relu6)
    result, record = equalization_stage.equalize(
        normalized, calibration, _proof_feeds(normalized, source), options
    )
    return result, EqualizationResult(normalization, record, calibration)


def _proof_feeds(model: Model, source: DataSource | None) -> list[Feeds]:
    if source is None:
        return random_feeds(model)
    return gather(source, model.inputs, PROOF_SAMPLES)


# --- quantize --------------------------------------------------------------------------------


def quantize(
    model: Model | PathLike,
    data: Data | None = None,
    *,
    calibration: Calibration | PathLike | None = None,
    preprocess: str | Preprocessing | None = None,
    samples: int | None = None,
    target: str = "gpu",
    weights: str = "per-channel",
    equalize: bool = True,
    ranges: str = "mse",
    scale: str = "float",
    bias_correction: bool = True,
    rounding: str = "nearest",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: Progress = SILENT,
) -> tuple[Model, QuantizationResult]:
    """Turn a float model into an int8 QDQ model.

    Args:
        data: calibration samples; with `calibration` they only settle layers and measure.
        calibration: a calibration of this model, instead of running one.
        target, weights, ranges, scale, include, exclude: as on the command line.

    Raises:
        UsageError: neither data nor calibration, or an unknown option value.
        DataError: the data do not fit, or the calibration is of another model.
    """
    if data is None and calibration is None:
        raise UsageError("quantize needs data", hint="give --data or --calibration")
    model = as_model(model)
    options = QuantizationOptions(
        per_channel=weights == "per-channel", ranges=ranges, power_of_two=scale == "power-of-two",
        include=tuple(include), exclude=tuple(exclude),
    )  # fmt: skip
    chosen = target_named(target)
    normalized, normalization = normalize(model)
    source = None
    if data is not None:
        source = as_source(data, model, preprocess=preprocess, samples=samples)
    elif preprocess is not None or samples is not None:
        raise UsageError("preprocessing and a number of samples need data", hint="give --data")
    hold_out = HOLD_OUT if source and (source.count or 0) >= HOLD_OUT * BATCH_SIZE else 0
    if calibration is not None:
        calibration = _as_calibration(calibration, model)
        _check_preprocessing(calibration.provenance.preprocessing, source, "the calibration")
        unseen = source is not None and calibration.data != source.fingerprint
    else:
        assert source is not None  # noqa: S101 - one of the two was given
        calibration = observe(
            normalized, source, tensors_to_observe(Graph(normalized)), hold_out=hold_out,
            batch_size=BATCH_SIZE, fingerprint=model.fingerprint, progress=progress,
        )  # fmt: skip
        unseen = True
    in_memory = (
        _samples(source, normalized, calibration, hold_out, unseen=unseen) if source else None
    )
    request = Request(
        normalized, normalization, calibration, in_memory, chosen, options, equalize,
        bias_correction, rounding == "adaptive", progress,
    )  # fmt: skip
    quantized, result = quantization_stage.quantize(request)
    return with_metadata(quantized, {METADATA_KEY: details_json(result, calibration)}), result


def _samples(
    source: DataSource, model: Model, calibration: Calibration, hold_out: int, *, unseen: bool
) -> Samples:
    """As many samples as fit the memory set aside for the largest activation."""
    per_sample = max(
        (t.count * 4 / max(calibration.samples, 1) for t in calibration.tensors.values()),
        default=1.0,
    )
    count = int(np.clip(MEMORY_FOR_SAMPLES / per_sample, 8, CORRECTION_SAMPLES))
    return Samples(
        gather(source, model.inputs, count, hold_out=hold_out),
        gather(source, model.inputs, MEASURED_SAMPLES, hold_out=hold_out, held=True)
        if hold_out
        else [],
        unseen,
    )


def _check_preprocessing(expected: str, source: DataSource | None, what: str) -> None:
    given = str(source.preprocessing) if source and source.preprocessing else ""
    if source is not None and given and expected and given != expected:
        raise DataError(
            f"{source.spec}: preprocessed as {given!r}, but {what} used {expected!r}",
            hint="use the same --preprocess",
        )


# --- emulate, validate -----------------------------------------------------------------------


def emulate(
    model: Model | PathLike, data: Data, *, batch_size: int = BATCH_SIZE
) -> dict[str, Array]:
    """Outputs of a QDQ model under emulation, by name, for all samples."""
    model = as_model(model)
    source = as_source(data, model)
    run_model = runner(model, "emulate")
    parts = [run_model(batch.feeds) for batch in source.batches(batch_size)]
    return {
        spec.name: np.concatenate([part[index] for part in parts])
        for index, spec in enumerate(model.outputs)
    }


@dataclass(frozen=True)
class Validation:
    """Metrics by model and execution, the float model first, and the gates.

    Attributes:
        notes: what a reader must know of the data.
    """

    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    samples: int
    note: str

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


def validate(
    float_model: Model | PathLike,
    quantized: Sequence[Model | PathLike] | Model | PathLike,
    data: Data,
    *,
    preprocess: str | Preprocessing | None = None,
    samples: int | None = None,
    metrics: Sequence[str] | None = None,
    executions: Sequence[str] = ("emulate",),
    max_drop: float | None = None,
    min_accuracy: float | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = SILENT,
) -> Validation:
    """Compare quantized models with the float one on the same samples.

    Args:
        metrics: names or `file.py:function`; by default top1 where the data have labels, and
            sqnr and cosine. Gates look at the first.
    """
    float_model = as_model(float_model)
    if isinstance(quantized, (Model, str, os.PathLike)):
        quantized = [quantized]
    models = [as_model(model) for model in quantized]
    source = as_source(data, float_model, preprocess=preprocess, samples=samples)
    for model in models:
        _check_preprocessing(recorded_preprocessing(model), source, model.name)
    if metrics is None:
        metrics = [name for name in ("top1", "sqnr", "cosine")
                   if source.has_labels or not METRICS[name].needs_labels]  # fmt: skip
    rows, count = compare(
        float_model, models, source, metrics=[metric_named(name) for name in metrics],
        executions=executions, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    gates = check_gates(rows, max_drop=max_drop, min_accuracy=min_accuracy)
    return Validation(rows, gates, count, source.note)
