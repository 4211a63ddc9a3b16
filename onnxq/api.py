"""The public API: the stages composed. Each function is what the command of its name runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import files as calibration_files
from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import is_held_out, observe
from onnxq.data import DataSource, Preprocessing, open_data
from onnxq.equalization import equalize as equalization_stage
from onnxq.equalization.classes import find_classes
from onnxq.equalization.derive import derive_calibration
from onnxq.equalization.equalize import Equalization, EqualizationOptions
from onnxq.equalization.noise import input_gains
from onnxq.equalization.prove import Feeds, compare_outputs, random_feeds
from onnxq.errors import DataError, UsageError
from onnxq.model import files as model_files
from onnxq.model.graph import Graph
from onnxq.model.model import Model, with_metadata
from onnxq.model.normalize import Normalization, normalize
from onnxq.model.operators import operator_of
from onnxq.progress import SILENT, Progress
from onnxq.quantization.correct import BiasCorrection, correct_biases
from onnxq.quantization.details import METADATA_KEY, details_json, recorded_preprocessing
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationOptions, QuantizationPlan, plan_quantization
from onnxq.quantization.targets import Target, target_named
from onnxq.validation.compare import Row, compare
from onnxq.validation.execute import runner
from onnxq.validation.gates import Gate, check_gates
from onnxq.validation.metrics import METRICS, metric_named

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
Data = PathLike | Array | Mapping[str, Array] | DataSource

PROOF_SAMPLES = 16
"""Samples on which equalization proves that the float outputs stay the same."""

CORRECTION_SAMPLES = 256
"""Samples on which biases are corrected; more bring less than 0.1 dB on the reference case."""

MEMORY_FOR_SAMPLES = 1 << 29
"""Bytes that one activation of all correction samples may take."""

MEASURED_SAMPLES = 64
"""Held-out samples on which variants of the quantized model are compared."""

HOLD_OUT = 8
"""Every so many-th batch of calibration data is held out to measure on."""

KERNEL_WORTH = 1.0
"""dB of SQNR for which extra kernels are worth their time."""

TIE_MARGIN = 15.0
"""A tied Clip is used only if the float change is this many dB below the int8 noise."""


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
        if uses or name in graph.outputs:
            found[name] = classes.channel_axis(name)
    return found


def calibrate(
    model: Model | PathLike,
    data: Data,
    *,
    preprocess: str | Preprocessing | None = None,
    samples: int | None = None,
    batch_size: int = 8,
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


def gather(
    source: DataSource, count: int, *, hold_out: int = 0, held: bool = False, batch_size: int = 8
) -> dict[str, Array]:
    """Up to `count` samples spread evenly over the source, stacked: input name → array.

    Args:
        hold_out: as in `observe`; with `held` only samples of the batches it leaves out are
            taken, without it only those of the others.
    """
    parts: dict[str, list[Array]] = {}
    wanted = max(1, math.ceil((source.count or count) / count))
    taken = position = 0
    for number, batch in enumerate(source.batches(batch_size)):
        if is_held_out(number, hold_out) != held:
            continue
        rows = [i for i in range(len(batch)) if held or (position + i) % wanted == 0]
        position += len(batch)
        rows = rows[: count - taken]
        taken += len(rows)
        for name, values in batch.feeds.items():
            if rows:
                parts.setdefault(name, []).append(values[rows])
        if taken >= count:
            break
    # Samples of different shapes cannot be stacked; those like the first still can.
    return {
        name: np.concatenate([a for a in arrays if a.shape[1:] == arrays[0].shape[1:]])
        for name, arrays in parts.items()
    }


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
    source = as_source(data, model, preprocess=preprocess) if data is not None else None
    if calibration is not None:
        calibration = _as_calibration(calibration, model)
    elif source is not None:
        calibration = observe(
            normalized, source, tensors_to_observe(Graph(normalized)),
            fingerprint=model.fingerprint, progress=progress,
        )  # fmt: skip
    options = EqualizationOptions(real_scales=scales == "real", relu6=relu6)
    result, record = equalization_stage.equalize(
        normalized, calibration, _proof_feeds(normalized, source), options
    )
    return result, EqualizationResult(normalization, record, calibration)


def _proof_feeds(model: Model, source: DataSource | None) -> list[Feeds]:
    if source is None:
        return random_feeds(model)
    return [gather(source, PROOF_SAMPLES)]


# --- quantize --------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuantizationResult:
    """What `quantize` did.

    Attributes:
        normalization: batch norms folded, constants computed.
        equalization: None where it was not asked for.
        relu6_reason: why saturating Clips were treated as they were.
        float_sqnr: float model after against before equalization, dB on held-out samples; inf
            where identical, NaN where not measured.
        int8_sqnr: quantized against float model, dB on the same samples.
        plan: every node and tensor.
        corrections: what bias correction did to each layer.
    """

    normalization: Normalization
    equalization: Equalization | None
    relu6_reason: str
    float_sqnr: float
    int8_sqnr: float
    plan: QuantizationPlan
    corrections: tuple[BiasCorrection, ...]


@dataclass(frozen=True)
class _Samples:
    """Samples in memory: those that correct biases, and those that only measure."""

    correction: dict[str, Array]
    held_out: dict[str, Array]


@dataclass(frozen=True)
class _Request:
    """What `quantize` was asked for, options resolved, with what it works on."""

    model: Model
    normalization: Normalization
    calibration: Calibration
    samples: _Samples | None
    target: Target
    options: QuantizationOptions
    correct: bool
    progress: Progress


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
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: Progress = SILENT,
) -> tuple[Model, QuantizationResult]:
    """Turn a float model into an int8 QDQ model.

    Args:
        data: calibration samples; with `calibration` they only correct biases and measure.
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
    hold_out = 0
    if calibration is not None:
        calibration = _as_calibration(calibration, model)
        _check_preprocessing(calibration.provenance.preprocessing, source, "the calibration")
    else:
        assert source is not None  # noqa: S101 - one of the two was given
        hold_out = HOLD_OUT if (source.count or 0) >= HOLD_OUT * 8 else 0
        calibration = observe(
            normalized, source, tensors_to_observe(Graph(normalized)), hold_out=hold_out,
            fingerprint=model.fingerprint, progress=progress,
        )  # fmt: skip
    in_memory = None if source is None else _samples(source, calibration, hold_out)
    request = _Request(
        normalized, normalization, calibration, in_memory, chosen, options, bias_correction,
        progress,
    )  # fmt: skip
    quantized, result = _best(request) if equalize else _attempt(request, None, "")
    return with_metadata(quantized, {METADATA_KEY: details_json(result, calibration)}), result


def _samples(source: DataSource, calibration: Calibration, hold_out: int) -> _Samples:
    """As many samples as fit the memory set aside for the largest activation."""
    per_sample = max(
        (t.count * 4 / max(calibration.samples, 1) for t in calibration.tensors.values()),
        default=1.0,
    )
    count = int(np.clip(MEMORY_FOR_SAMPLES / per_sample, 8, CORRECTION_SAMPLES))
    correction = gather(source, count, hold_out=hold_out)
    if hold_out:
        return _Samples(correction, gather(source, MEASURED_SAMPLES, hold_out=hold_out, held=True))
    unseen = calibration.data != source.fingerprint
    return _Samples(correction, gather(source, MEASURED_SAMPLES) if unseen else {})


def _check_preprocessing(expected: str, source: DataSource | None, what: str) -> None:
    given = str(source.preprocessing) if source and source.preprocessing else ""
    if source is not None and given and expected and given != expected:
        raise DataError(
            f"{source.spec}: preprocessed as {given!r}, but {what} used {expected!r}",
            hint="use the same --preprocess",
        )


def _best(request: _Request) -> tuple[Model, QuantizationResult]:
    """Equalize with the treatment of saturating Clips that measures best.

    A tie costs no kernel but is exact on the calibration data only, so it is used where the
    change of the float model on samples it never saw stays `TIE_MARGIN` dB below the int8 noise.
    """
    exact = "per-channel" if request.target.symmetric else "skip"
    saturating = find_classes(Graph(request.model)).clips
    if not saturating:
        return _attempt(request, exact, "no Clip saturates")
    if request.samples is None or not request.samples.held_out:
        return _attempt(request, exact, "no held-out samples to measure a tie on")
    tied, tie = _attempt(request, "tie", "")
    tie_holds = tie.float_sqnr >= tie.int8_sqnr + TIE_MARGIN
    if tie_holds and not request.target.symmetric:
        return tied, replace(tie, relu6_reason="measured on held-out samples; adds no kernel")
    other, moved = _attempt(request, exact, "")
    gain = moved.int8_sqnr - tie.int8_sqnr
    if not tie_holds:
        reason = f"a tie would change the float model by {tie.float_sqnr:.1f} dB"
        return other, replace(moved, relu6_reason=reason)
    if gain > KERNEL_WORTH:
        reason = f"{gain:.1f} dB better than a tie on held-out samples"
        return other, replace(moved, relu6_reason=reason)
    reason = f"adds no kernel; {exact} would change the SQNR by {gain:+.1f} dB"
    return tied, replace(tie, relu6_reason=reason)


def _attempt(request: _Request, relu6: str | None, reason: str) -> tuple[Model, QuantizationResult]:
    """Equalize (unless `relu6` is None), plan, correct, insert, measure."""
    model, calibration, samples = request.model, request.calibration, request.samples
    equalized, record = model, None
    if relu6 is not None:
        options = EqualizationOptions(relu6=relu6, per_channel=request.options.per_channel)
        feeds: list[Feeds] = (
            random_feeds(model) if samples is None else [_first(samples.correction, PROOF_SAMPLES)]
        )
        equalized, record = equalization_stage.equalize(model, calibration, feeds, options)
        equalized = model_files.infer_shapes(equalized)
        calibration, _ = derive_calibration(calibration, record.octaves)
    graph = Graph(equalized)
    gains = input_gains(graph, find_classes(graph), calibration)
    plan = plan_quantization(graph, calibration, request.target, request.options, gains)
    biases: dict[str, NDArray[np.float32]] = {}
    corrections: tuple[BiasCorrection, ...] = ()
    if request.correct and samples is not None:
        biases, corrections = correct_biases(
            equalized, plan, samples.correction, progress=request.progress
        )
    quantized = insert(equalized, plan, biases=biases)
    float_sqnr = int8_sqnr = math.nan
    if samples is not None and samples.held_out:
        batches = [samples.held_out]
        float_sqnr = compare_outputs(model, equalized, batches, levels=(True,)).sqnr
        int8_sqnr = compare_outputs(model, quantized, batches, levels=(False,)).sqnr
    return quantized, QuantizationResult(
        request.normalization, record, reason, float_sqnr, int8_sqnr, plan, corrections
    )


def _first(feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
    return {name: values[:count] for name, values in feeds.items()}


# --- emulate, validate -----------------------------------------------------------------------


def emulate(model: Model | PathLike, data: Data, *, batch_size: int = 8) -> dict[str, Array]:
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
    batch_size: int = 8,
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
