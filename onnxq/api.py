"""The public API. Each function is what the command of its name does, from values to values.

The keywords are the command's options, see `onnxq.options`: strings as on the command line, or the
members of the enumerations there. A wrong one is a `UsageError` that lists the right ones.

What all functions take alike:

- a model: a path, a `Model`, an `onnx.ModelProto`, or the bytes of a file;
- `data`: a path, arrays, or what `onnxq.data.handed` lists, such as a DataLoader;
- `preprocess`: a preset or pairs as on the command line, a dictionary of them, or a function from
  what the data yield (images, for paths and folders of them) to what the model is fed;
- `progress`: True, `tqdm`, a function of (label, done, total), or what has `track`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxq.calibration.statistics import Calibration
from onnxq.commands import bench as timing
from onnxq.commands import calibrate as calibrating
from onnxq.commands import emulate as emulating
from onnxq.commands import equalize as equalizing
from onnxq.commands import inspect as inspecting
from onnxq.commands import merge as merging
from onnxq.commands import quantize as quantizing
from onnxq.commands import tune as tuning
from onnxq.commands import validate as validating
from onnxq.commands.bench import Timing
from onnxq.commands.equalize import EqualizationResult
from onnxq.commands.inputs import (
    Data,
    ModelLike,
    Models,
    PathLike,
    Preprocess,
    as_calibration,
    as_model,
    as_models,
    as_source,
)
from onnxq.commands.inspect import Inspection
from onnxq.commands.tune import Tuning
from onnxq.commands.validate import Validation
from onnxq.data import DataSource
from onnxq.emulation.agreement import LayerAgreement
from onnxq.emulation.emulate import Emulation
from onnxq.equalization.observed import tensors_to_observe
from onnxq.model import files
from onnxq.model.model import Model
from onnxq.model.session import custom_operators
from onnxq.options.bench import BenchKeywords, BenchOptions
from onnxq.options.calibrate import CalibrateKeywords, CalibrateOptions
from onnxq.options.emulate import (
    CompareLayersKeywords,
    CompareLayersOptions,
    EmulateKeywords,
    EmulateOptions,
)
from onnxq.options.equalize import EqualizeKeywords, EqualizeOptions
from onnxq.options.explain import ExplainKeywords, ExplainOptions
from onnxq.options.inspect import InspectKeywords, InspectOptions
from onnxq.options.quantize import QuantizeKeywords, QuantizeOptions
from onnxq.options.signature import takes
from onnxq.options.tune import TuneKeywords, TuneOptions
from onnxq.options.validate import ValidateKeywords, ValidateOptions
from onnxq.options.values import path_of
from onnxq.progress import Listener, as_progress
from onnxq.quantization.request import QuantizationResult
from onnxq.report import explain as explaining
from onnxq.report.explain import Explanation
from onnxq.report.page import report

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Data", "DataSource", "EqualizationResult", "Inspection", "Model", "ModelLike",
    "QuantizationResult", "Timing", "Tuning", "Validation", "as_calibration", "as_model",
    "as_source", "bench", "calibrate", "compare_layers", "custom_operators", "emulate", "equalize",
    "explain", "inspect", "load", "merge", "quantize", "report", "save", "tensors_to_observe",
    "tune", "validate",
]  # fmt: skip


def load(path: ModelLike) -> Model:
    """Load a model file, or check and complete an `onnx.ModelProto` or the bytes of a file.

    Raises:
        ModelError: it is missing, no valid ONNX model, or too new.
    """
    return as_model(path)


def save(model: ModelLike, path: PathLike) -> None:
    """Save a model file, whole or not at all; see `onnxq.model.files.save`."""
    files.save(as_model(model), path_of(path, "path"))


@takes(CalibrateOptions, CalibrateKeywords)
def calibrate(
    model: ModelLike,
    data: Data,
    *,
    preprocess: Preprocess | None = None,
    calibration: Calibration | PathLike | None = None,
    progress: Listener = None,
    **options: Unpack[CalibrateKeywords],
) -> Calibration:
    """Run the model over the data once and collect what every tensor's values look like.

    With a `state` the caller removes that file once the result is safe. With a `calibration` there
    is no such pass: `gradients` are added to it.

    Raises:
        DataError: the data do not fit, an activation is NaN or Inf, or the calibration is of a part
            of the data or of another model.
        ModelError: the model does not run.
        UsageError: a wrong option, or the cluster does not answer.
    """
    chosen = CalibrateOptions.of(options, data=data, preprocess=preprocess, calibration=calibration)
    listener = as_progress(progress)
    with custom_operators(chosen.libraries):
        return calibrating.calibrate(as_model(model), chosen, listener)


def merge(parts: Sequence[Calibration | PathLike]) -> Calibration:
    """Join calibrations of shards, or their files, in any order: the bits of one pass over all.

    Raises:
        DataError: they come from different models, data, preprocessing or batch sizes, or a shard
            is given twice.
    """
    return merging.merge(parts)


@takes(EqualizeOptions, EqualizeKeywords)
def equalize(
    model: ModelLike,
    *,
    calibration: Calibration | PathLike | None = None,
    data: Data | None = None,
    preprocess: Preprocess | None = None,
    progress: Listener = None,
    **options: Unpack[EqualizeKeywords],
) -> tuple[Model, EqualizationResult]:
    """Scale weights across layers without changing what the model computes.

    Returns:
        The equalized float model and the record, with the proof that its outputs are the same.

    Raises:
        DataError: the data do not fit, or the calibration is of another model.
        UsageError: a wrong option, or one that needs a calibration or data.
    """
    chosen = EqualizeOptions.of(options, calibration=calibration, data=data, preprocess=preprocess)
    listener = as_progress(progress)
    with custom_operators(chosen.libraries):
        return equalizing.equalize(as_model(model), chosen, listener)


@takes(QuantizeOptions, QuantizeKeywords)
def quantize(
    model: ModelLike,
    data: Data | None = None,
    *,
    calibration: Calibration | PathLike | None = None,
    preprocess: Preprocess | None = None,
    validate_data: Data | None = None,
    progress: Listener = None,
    **options: Unpack[QuantizeKeywords],
) -> tuple[Model, QuantizationResult]:
    """Turn a float model into a quantized QDQ model.

    Data calibrate, round, correct biases and measure; with a `calibration` they do all but the
    first. With `max_drop`, `QuantizationResult.search.passed` says whether the model holds it: the
    best one comes back in any case.

    Raises:
        DataError: the data do not fit, or the calibration is of another model.
        ModelError: the model is refused, or no node became quantized without `allow_none`.
        UsageError: a wrong option, neither data nor calibration, or a regular expression that
            matches no node.
    """
    chosen = QuantizeOptions.of(
        options, data=data, calibration=calibration, preprocess=preprocess,
        validate_data=validate_data,
    )  # fmt: skip
    listener = as_progress(progress)
    with custom_operators(chosen.libraries):
        return quantizing.quantize(as_model(model), chosen, listener)


@takes(TuneOptions, TuneKeywords)
def tune(
    model: ModelLike,
    data: Data,
    *,
    validate_data: Data,
    preprocess: Preprocess | None = None,
    progress: Listener = None,
    **options: Unpack[TuneKeywords],
) -> tuple[Model | None, Tuning]:
    """Try many ways to quantize a model, and take the best of those that hold the gate.

    Schemes that the target takes, then each with other ranges, roundings, granularities and shares
    of layers in more bits, then what helped together, as far as the budget goes. With a `state` a
    run that was stopped goes on; the caller removes the folder.

    Returns:
        The best model, None where none holds `max_drop`; and all that was tried.

    Raises:
        DataError: the data do not fit, or labels are missing.
        ModelError: the model is refused, or no candidate could be made.
        UsageError: a wrong option, or the cluster does not answer.
    """
    chosen = TuneOptions.of(options, data=data, validate_data=validate_data, preprocess=preprocess)
    with custom_operators(chosen.libraries):
        return tuning.tune(as_model(model), chosen, as_progress(progress))


@takes(EmulateOptions, EmulateKeywords)
def emulate(
    model: ModelLike,
    data: Data,
    *,
    preprocess: Preprocess | None = None,
    progress: Listener = None,
    **options: Unpack[EmulateKeywords],
) -> Emulation:
    """Compute what an integer machine computes for a QDQ model: exact sums, one rounding.

    Returns:
        Outputs by name for all samples, with the record: what ran in integers, what in float and
        why, and which sums left int32.
    """
    chosen = EmulateOptions.of(options, data=data, preprocess=preprocess)
    listener = as_progress(progress)
    with custom_operators(chosen.libraries):
        return emulating.emulate(as_model(model), chosen, listener)


@takes(CompareLayersOptions, CompareLayersKeywords)
def compare_layers(
    model: ModelLike,
    data: Data,
    *,
    preprocess: Preprocess | None = None,
    progress: Listener = None,
    **options: Unpack[CompareLayersKeywords],
) -> tuple[LayerAgreement, ...]:
    """Compare each layer of a QDQ model, on the same inputs, in the emulator and in ONNX Runtime.

    At most `onnxq.commands.emulate.COMPARED_SAMPLES` samples are used.
    """
    chosen = CompareLayersOptions.of(options, data=data, preprocess=preprocess)
    listener = as_progress(progress)
    with custom_operators(chosen.libraries):
        return emulating.compare_layers(as_model(model), chosen, listener)


@takes(ValidateOptions, ValidateKeywords)
def validate(
    float_model: ModelLike,
    quantized: Models,
    data: Data,
    *,
    preprocess: Preprocess | None = None,
    progress: Listener = None,
    **options: Unpack[ValidateKeywords],
) -> Validation:
    """Compare quantized models with the float one on the same samples.

    Gates look at the first metric; `onnxq.validation.gates` says how.
    """
    chosen = ValidateOptions.of(options, data=data, preprocess=preprocess)
    with custom_operators(chosen.libraries):
        return validating.validate(
            as_model(float_model), as_models(quantized), chosen, as_progress(progress)
        )


@takes(BenchOptions, BenchKeywords)
def bench(
    models: Models,
    *,
    data: Data | None = None,
    preprocess: Preprocess | None = None,
    progress: Listener = None,
    **options: Unpack[BenchKeywords],
) -> Timing:
    """Time models side by side on this machine, each against the first; without data on random.

    Raises:
        ModelError: ONNX Runtime refuses a model, or it does not run.
        ProviderError: a provider is not there.
    """
    chosen = BenchOptions.of(options, data=data, preprocess=preprocess)
    with custom_operators(chosen.libraries):
        return timing.bench(as_models(models), chosen, as_progress(progress))


@takes(InspectOptions, InspectKeywords)
def inspect(
    model: ModelLike, *, progress: Listener = None, **options: Unpack[InspectKeywords]
) -> Inspection:
    """Show what a model, whoever quantized it, holds: layers, weights, what is float and why.

    Of a float model: what `quantize` would do to it.
    """
    chosen = InspectOptions.of(options)
    return inspecting.inspect(as_model(model), chosen, as_progress(progress))


@takes(ExplainOptions, ExplainKeywords)
def explain(
    model: ModelLike,
    node: str,
    *,
    calibration: Calibration | PathLike | None = None,
    progress: Listener = None,
    **options: Unpack[ExplainKeywords],
) -> Explanation:
    """Explain a node of a quantized model, or what `quantize` would do to one of a float model.

    `node` may also name a tensor that it computes; see `onnxq.report.explain`.
    """
    chosen = ExplainOptions.of(options, calibration=calibration)
    return explaining.explain(
        as_model(model),
        node,
        calibration=chosen.calibration,
        target=chosen.target,
        input_shapes=chosen.input_shapes,
        progress=as_progress(progress),
    )
