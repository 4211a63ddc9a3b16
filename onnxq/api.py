"""The public API: the stages composed. Each function is what the command of its name runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import files as calibration_files
from onnxq.calibration import stream as calibration_stream
from onnxq.calibration.checkpoint import Checkpoint
from onnxq.calibration.cluster import calibrate_on_cluster
from onnxq.calibration.jobs import calibrate_in_processes
from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import observe
from onnxq.data import DataSource, Preprocessing, open_data
from onnxq.data.batching import Limits, OneSample, plan_batching
from onnxq.data.gather import BATCH_SIZE, gather, gather_both
from onnxq.emulation import emulate as emulation_stage
from onnxq.emulation.agreement import LayerAgreement, agreement
from onnxq.emulation.emulate import Emulation, emulator
from onnxq.equalization import equalize as equalization_stage
from onnxq.equalization.centering import LARGEST_CHANGE, Centering, center, rolled_back
from onnxq.equalization.choose import EqualizationOptions
from onnxq.equalization.classes import find_classes
from onnxq.equalization.derive import derive_calibration
from onnxq.equalization.equalize import Equalization
from onnxq.equalization.prove import Feeds, Proof, compare_outputs, random_feeds, run_reference
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.model import files as model_files
from onnxq.model.channel_scales import with_exponents, with_offsets
from onnxq.model.graph import Graph
from onnxq.model.model import Model, with_metadata
from onnxq.model.narrow import OPSET as HALF_OPSET
from onnxq.model.normalize import Normalization, normalize
from onnxq.model.operators import operator_of
from onnxq.model.portable import PortableModel
from onnxq.model.session import Runtime, custom_operators, libraries_in_use
from onnxq.progress import SILENT, Progress
from onnxq.quantization import quantize as quantization_stage
from onnxq.quantization.details import METADATA_KEY, details_json, recorded_preprocessing
from onnxq.quantization.plan import QuantizationOptions, check_patterns
from onnxq.quantization.quantize import QuantizationResult, Request, Samples
from onnxq.quantization.search import (
    MAX_MINUTES,
    MAX_TRIALS,
    Bounds,
    Candidate,
    Criterion,
    Measurement,
    Trial,
    search,
)
from onnxq.shown import Shown
from onnxq.targets import Target, target_named
from onnxq.validation.compare import Comparison, Row, compare
from onnxq.validation.gates import Gate, check_gates
from onnxq.validation.layers import LayerReport, measure_layers
from onnxq.validation.metrics import METRICS, metric_named

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
Data = PathLike | Array | Mapping[str, Array] | DataSource
Made = tuple[Model, QuantizationResult]

PROOF_SAMPLES = 16
"""Samples on which equalization proves that the float outputs stay the same."""

CORRECTION_SAMPLES = 128
"""Samples on which biases are corrected; more bring little and cost memory."""

MEMORY_FOR_SAMPLES = 1 << 28
"""Bytes that one activation of all correction samples may take."""

MEASURED_SAMPLES = 64
"""Held-out samples on which variants of the quantized model are compared."""

COMPARED_SAMPLES = 16
"""Samples on which layers are compared with ONNX Runtime's, all in memory."""

RANGES = "mse"
"""The default estimator of ranges."""

HOLD_OUT = 8
"""Every so many-th group of calibration data is held out to measure on."""

RANKING_SAMPLES = 32
"""Samples on which the search for layers to keep in float ranks them."""


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
    jobs: int = 1,
    dask: str | None = None,
    memory: int = 0,
    state: PathLike | None = None,
    resume: bool = False,
    provider: str = "cpu",
    libraries: Sequence[PathLike] = (),
    allow_nonfinite: bool = False,
    progress: Progress = SILENT,
) -> Calibration:
    """Run the model over the data once and collect what every tensor's values look like.

    Args:
        batch_size: samples to run at once, at most; the result does not depend on it.
        shard: (i, n), the i-th of n equal parts of the data, counted from 1.
        jobs: processes; the result does not depend on their number.
        dask: address of a Dask scheduler whose workers do the work; they read the model and the
            data under the same paths.
        memory: bytes that activations may take at a time; by default (0) a quarter of what is
            free, 1 GiB at most. Where they need more, fewer samples run at once, then there are
            several passes over the data. The result is the same.
        state: file for the state of the run, to go on from with `resume` after it was killed. The
            caller removes it once the result is safe, with `calibration.checkpoint.remove_states`.
        libraries: shared libraries of custom operators; the block `custom_operators` gives them to
            everything inside it.

    Raises:
        DataError: the data do not fit, or an activation is NaN or Inf.
        ModelError: the model does not run.
        UsageError: a process was killed, or the cluster does not answer.
    """
    if dask is not None and (jobs > 1 or state is not None):
        raise UsageError("a Dask cluster takes the place of jobs and of a state to resume from")
    model = as_model(model)
    source = as_source(
        data, model, preprocess=preprocess, samples=samples, allow_nonfinite=allow_nonfinite
    )
    with custom_operators(map(Path, libraries)):
        normalized, _ = normalize(model)
    request = calibration_stream.Request(
        tensors_to_observe(Graph(normalized)), model.fingerprint, Limits(batch_size, memory), shard,
        allow_nonfinite=allow_nonfinite,
        runtime=Runtime(provider, libraries=(*map(Path, libraries), *libraries_in_use())),
    )  # fmt: skip
    checkpoint = Checkpoint(Path(state), resume) if state is not None else None
    if dask is not None:
        found = calibrate_on_cluster(model, source, request, dask, progress=progress)
    elif jobs > 1:
        found = calibrate_in_processes(
            normalized, source, request, jobs, checkpoint=checkpoint, progress=progress
        )
    else:
        found = calibration_stream.calibrate(
            normalized, source, request, checkpoint=checkpoint, progress=progress
        )
    return found


def as_calibration(calibration: Calibration | PathLike, model: Model) -> Calibration:
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


@dataclass(frozen=True, repr=False)
class EqualizationResult(Shown):
    """What `equalize` did.

    Attributes:
        normalization: batch norms folded, constants computed.
        equalization: scales, proof, classes and barriers.
        centering: activations centered; None where it was not asked for.
        change: the outputs of the written model against those before; with centering they agree
            up to float rounding.
        calibration: the one used, None for weights only.
    """

    normalization: Normalization
    equalization: Equalization
    centering: Centering | None
    change: Proof
    calibration: Calibration | None


def equalize(
    model: Model | PathLike,
    *,
    calibration: Calibration | PathLike | None = None,
    data: Data | None = None,
    preprocess: str | Preprocessing | None = None,
    scales: str = "power-of-two",
    relu6: str = "auto",
    absorb_bias: bool = False,
    batch_size: int = BATCH_SIZE,
    memory: int = 0,
    progress: Progress = SILENT,
) -> tuple[Model, EqualizationResult]:
    """Scale weights across layers without changing what the model computes.

    Args:
        absorb_bias: center activations too, which is exact up to float rounding; needs a
            calibration or data.
        batch_size, memory: as for `calibrate`.

    Returns:
        The equalized float model and the record, with the proof that its outputs are the same.
    """
    model = as_model(model)
    normalized, normalization = normalize(model)
    if data is None and preprocess is not None:
        raise UsageError("preprocessing needs data", hint="give --data")
    source = as_source(data, model, preprocess=preprocess) if data is not None else None
    limits = Limits(batch_size, memory)
    sample = _one_sample(normalized, source)
    if calibration is not None:
        calibration = as_calibration(calibration, model)
        _check_preprocessing(calibration.provenance.preprocessing, source, "the calibration")
    elif source is not None:
        calibration = observe(
            normalized, source, tensors_to_observe(Graph(normalized)),
            limits=limits, fingerprint=model.fingerprint, sample=sample, progress=progress,
        )  # fmt: skip
    if absorb_bias and calibration is None:
        raise UsageError(
            "absorbing biases needs to know the activations", hint="give --calibration or --data"
        )
    options = EqualizationOptions(real_scales=scales == "real", relu6=relu6)
    feeds = _proof_feeds(normalized, source, calibration_stream.batch_of(calibration))
    batching = plan_batching(sample, limits.halved())
    try:
        result, record = equalization_stage.equalize(
            normalized, calibration, feeds, options, batching
        )
    except ModelError as error:
        if source is not None or error.hint:
            raise
        hint = "without data the proof feeds random numbers; give samples with --data"
        raise ModelError(error.message, hint=hint) from None
    result = with_exponents(result, record.exponents)
    centering, change = None, record.proof
    if absorb_bias and calibration is not None:
        scaled = derive_calibration(calibration, record.exponents)[0]
        centered, centering = center(result, scaled, RANGES)
        change = compare_outputs(run_reference(normalized, feeds, batching=batching), centered)
        if -change.sqnr > LARGEST_CHANGE:
            reason = f"the float outputs would change by {-change.sqnr:.1f} dB"
            centering, change = rolled_back(centering, reason), record.proof
        else:
            result = with_offsets(centered, centering.broadcastable(Graph(centered)))
    return result, EqualizationResult(normalization, record, centering, change, calibration)


def _one_sample(model: Model, source: DataSource | None) -> OneSample:
    if source is None:
        return OneSample(model, lambda: random_feeds(model)[0])
    return calibration_stream.one_sample(model, source)


def _proof_feeds(model: Model, source: DataSource | None, size: int) -> list[Feeds]:
    if source is None:
        return random_feeds(model)
    return gather(source, model.inputs, PROOF_SAMPLES, size=size)


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
    ranges: str = RANGES,
    absorb_bias: bool = True,
    scale: str = "float",
    bias_correction: bool = True,
    rounding: str = "adaptive",
    rest: str = "fp32",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    max_drop: float | None = None,
    validate_data: Data | None = None,
    max_trials: int = MAX_TRIALS,
    max_minutes: float = MAX_MINUTES,
    batch_size: int = BATCH_SIZE,
    memory: int = 0,
    progress: Progress = SILENT,
) -> tuple[Model, QuantizationResult]:
    """Turn a float model into an int8 QDQ model.

    Args:
        data: calibration samples; with `calibration` they only settle layers and measure.
        calibration: a calibration of this model, instead of running one.
        absorb_bias: center activations, if equalized and the target's zero points are all 0.
        target, weights, ranges, scale, rest, include, exclude: as on the command line.
        max_drop: keep layers in float until the first metric `validate` computes on
            `validate_data` (top1 where they have labels, else sqnr) falls no further than this;
            `QuantizationResult.search.passed` says whether it does.
        max_trials, max_minutes: where that search gives up; it then returns its best model.
        batch_size, memory: as for `calibrate`; the model's bytes do not depend on them.

    Raises:
        UsageError: neither data nor calibration, an unknown option value, a regular expression
            that matches no node, or only one of `max_drop` and `validate_data`.
        DataError: the data do not fit, or the calibration is of another model.
    """
    if data is None and calibration is None:
        raise UsageError("quantize needs data", hint="give --data or --calibration")
    if (max_drop is None) != (validate_data is None):
        raise UsageError("--max-drop and --validate-data need each other")
    model = as_model(model)
    options = QuantizationOptions(
        per_channel=weights == "per-channel", ranges=ranges, power_of_two=scale == "power-of-two",
        half=rest == "fp16", include=tuple(include), exclude=tuple(exclude),
    )  # fmt: skip
    chosen = target_named(target)
    if options.half:
        _check_half(chosen, has_data=data is not None)
    normalized, normalization = normalize(model, opset=HALF_OPSET if options.half else 0)
    check_patterns(Graph(normalized), options)
    source = None
    if data is not None:
        source = as_source(data, model, preprocess=preprocess, samples=samples)
    elif preprocess is not None or samples is not None:
        raise UsageError("preprocessing and a number of samples need data", hint="give --data")
    limits, sample = Limits(batch_size, memory), _one_sample(normalized, source)
    hold_out = HOLD_OUT if source and (source.count or 0) >= HOLD_OUT * BATCH_SIZE else 0
    if calibration is not None:
        calibration = as_calibration(calibration, model)
        _check_preprocessing(calibration.provenance.preprocessing, source, "the calibration")
        unseen = source is not None and calibration.data != source.fingerprint
    else:
        assert source is not None  # noqa: S101 - one of the two was given
        calibration = observe(
            normalized, source, tensors_to_observe(Graph(normalized)), hold_out=hold_out,
            limits=limits, fingerprint=model.fingerprint, sample=sample, progress=progress,
        )  # fmt: skip
        unseen = True
    in_memory = (
        _samples(source, normalized, calibration, hold_out, unseen=unseen) if source else None
    )
    request = Request(
        normalized, normalization, calibration, in_memory, chosen, options, equalize, absorb_bias,
        bias_correction, rounding == "adaptive", progress,
        plan_batching(sample, limits.halved()),
    )  # fmt: skip
    quantized, result = quantization_stage.quantize(request)
    if max_drop is not None and validate_data is not None:
        checked = as_source(validate_data, model, preprocess=preprocess)
        _check_preprocessing(calibration.provenance.preprocessing, checked, "the calibration")
        quantized, result = _keep_in_float(
            model, request, quantized, result, checked, max_drop,
            Bounds(max_trials, max_minutes), progress,
        )  # fmt: skip
    if result.equalization is not None:
        quantized = with_exponents(quantized, result.equalization.exponents)
    if result.centering is not None:
        offsets = result.centering.broadcastable(Graph(result.prepared.model))
        quantized = with_offsets(quantized, offsets)
    return with_metadata(quantized, {METADATA_KEY: details_json(result, calibration)}), result


def _check_half(target: Target, *, has_data: bool) -> None:
    if target.integer_bias:
        raise UsageError(
            f"--rest fp16 is no use for target {target.name}: its biases are int32",
            hint="use --target gpu",
        )
    if not has_data:
        raise UsageError(
            "--rest fp16 needs samples, on which it looks for values beyond float16",
            hint="give --data",
        )


def _keep_in_float(
    model: Model,
    request: Request,
    quantized: Model,
    result: QuantizationResult,
    source: DataSource,
    max_drop: float,
    bounds: Bounds,
    progress: Progress,
) -> tuple[Model, QuantizationResult]:
    """Search for the layers to keep in float; `result` is that of all in int8."""

    def measure(trial: Model) -> Validation:
        return validate(model, trial, source, max_drop=max_drop, progress=progress)

    def tried(made: Made, validation: Validation) -> Trial[Made]:
        gate, row = validation.gates[0], validation.rows[1]
        return Trial(made, Measurement(next(iter(row.values.values())), gate.value, gate.passed))

    def attempt(keep: Mapping[str, str]) -> Trial[Made]:
        made = quantization_stage.quantize(replace(request, again=result, keep=keep))
        return tried(made, measure(made[0]))

    def rank() -> list[Candidate]:
        report = measure_layers(
            result.prepared.model, quantized, source, probes=RANKING_SAMPLES, whole=False,
            progress=progress,
        )  # fmt: skip
        return [
            Candidate(layer.name, layer.share, layer.name in result.plan.weights)
            for layer in report.layers
            if layer.name in result.plan.weights or layer.op_type in request.target.residual
        ]

    first = measure(quantized)
    (metric, value), gate = next(iter(first.rows[0].values.items())), first.gates[0]
    criterion = Criterion(
        metric, first.rows[0].units[metric], value, max_drop, gate.unit, first.samples
    )
    (best, record), found = search(
        criterion, tried((quantized, result), first), rank, attempt, bounds
    )
    return best, replace(record, search=found)


def _samples(
    source: DataSource, model: Model, calibration: Calibration, hold_out: int, *, unseen: bool
) -> Samples:
    """As many samples as fit the memory set aside for the largest activation."""
    per_sample = max(
        (t.seen * 4 / max(calibration.samples, 1) for t in calibration.tensors.values()),
        default=1.0,
    )
    count = int(np.clip(MEMORY_FOR_SAMPLES / per_sample, 8, CORRECTION_SAMPLES))
    size = calibration_stream.batch_of(calibration)
    held = MEASURED_SAMPLES if hold_out else 0
    chosen, held_out = gather_both(source, model.inputs, count, held, size=size, hold_out=hold_out)
    return Samples(chosen, held_out, unseen)


def _check_preprocessing(expected: str, source: DataSource | None, what: str) -> None:
    given = str(source.preprocessing) if source and source.preprocessing else ""
    if source is not None and given and expected and given != expected:
        raise DataError(
            f"{source.spec}: preprocessed as {given!r}, but {what} used {expected!r}",
            hint="use the same --preprocess",
        )


# --- emulate, validate -----------------------------------------------------------------------


def _source_for(
    quantized: Model, data: Data, preprocess: str | Preprocessing | None, samples: int | None
) -> DataSource:
    """Data preprocessed as those that the model was quantized with."""
    source = as_source(data, quantized, preprocess=preprocess, samples=samples)
    _check_preprocessing(recorded_preprocessing(quantized), source, quantized.name)
    return source


def emulate(
    model: Model | PathLike,
    data: Data,
    *,
    preprocess: str | Preprocessing | None = None,
    samples: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = SILENT,
) -> Emulation:
    """Compute what an int8 machine computes for a QDQ model: exact sums, one rounding.

    Returns:
        Outputs by name for all samples, with the record: what ran in integers, what in float and
        why, and which sums left int32.
    """
    model = as_model(model)
    source = _source_for(model, data, preprocess, samples)
    return emulation_stage.emulate(model, source, batch_size=batch_size, progress=progress)


def compare_layers(
    model: Model | PathLike,
    data: Data,
    *,
    provider: str = "cpu",
    preprocess: str | Preprocessing | None = None,
    samples: int | None = None,
    progress: Progress = SILENT,
) -> tuple[LayerAgreement, ...]:
    """Compare each layer of a QDQ model, on the same inputs, in the emulator and in ONNX Runtime.

    Args:
        samples: how many, at most; by default and at most `COMPARED_SAMPLES`.
        provider: "cpu" or "cuda".
    """
    model = as_model(model)
    source = _source_for(model, data, preprocess, samples)
    batches = gather(source, model.inputs, min(samples or COMPARED_SAMPLES, COMPARED_SAMPLES))
    return agreement(emulator(model), batches, provider=provider, progress=progress)


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """Metrics by model and execution, the float model first, and the gates.

    Attributes:
        note: what a reader must know of the data.
        layers: the layers of each quantized model, where they were asked for.
    """

    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    samples: int
    note: str
    layers: tuple[LayerReport, ...] = ()

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
    layers: bool = False,
    batch_size: int = BATCH_SIZE,
    memory: int = 0,
    dask: str | None = None,
    progress: Progress = SILENT,
) -> Validation:
    """Compare quantized models with the float one on the same samples.

    Args:
        metrics: names or `file.py:function`; by default top1 where the data have labels, and
            sqnr and cosine. Gates look at the first.
        max_drop, min_accuracy: see `onnxq.validation.gates`.
        layers: measure each layer of each quantized model, too; on this machine.
        batch_size, memory: as for `calibrate`.
        dask: address of a Dask scheduler whose workers run the models.
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
    chosen = [metric_named(name) for name in metrics]
    relative = min_accuracy is not None and not chosen[0].needs_labels
    if not models and (max_drop is not None or relative):
        raise UsageError("the gates have nothing to check", hint="name a quantized model")
    comparison = Comparison(
        tuple(PortableModel.of(model) for model in (float_model, *models)) if dask else (),
        tuple(metrics), tuple(executions),
        plan_batching(
            _one_sample(model_files.infer_shapes(float_model), source), Limits(batch_size, memory)
        ),
        libraries_in_use(),
    )  # fmt: skip
    rows, count = compare((float_model, *models), source, comparison, dask=dask, progress=progress)
    gates = check_gates(rows, chosen[0], max_drop=max_drop, min_accuracy=min_accuracy)
    reports = [
        measure_layers(float_model, m, source, batch_size=batch_size, progress=progress)
        for m in (models if layers else ())
    ]
    return Validation(rows, gates, count, source.note, tuple(reports))
