"""Equalize a float model, center it where that is asked for, and prove it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import batch_of, observe
from onnxq.commands.budget import one_sample
from onnxq.commands.inputs import as_calibration, require_same_preprocessing, source_of
from onnxq.commands.normalized import normalized_on
from onnxq.commands.provider import runtime_of
from onnxq.data.batching import one_by_one
from onnxq.data.budget import Batching, Limits, OneSample, plan_batching
from onnxq.data.sizes import parse_shapes
from onnxq.data.source import DataSource
from onnxq.equalization.by_run import choose_by_run
from onnxq.equalization.centering import Centering
from onnxq.equalization.choose import Choice, EqualizationOptions, choose
from onnxq.equalization.equalize import Equalization
from onnxq.equalization.observed import tensors_to_observe
from onnxq.equalization.prepare import centered_and_proved, scaled
from onnxq.equalization.prove import Feeds, Proof, proof_feeds
from onnxq.errors import ModelError, UsageError
from onnxq.model.already import require_float
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import Normalization
from onnxq.options.equalize import ChannelScales, EqualizeOptions
from onnxq.options.quantize import QuantizeOptions, WeightScales
from onnxq.progress import Progress
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization, rounded_beside
from onnxq.shown import Shown
from onnxq.targets import target_named


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
    model: Model, options: EqualizeOptions, progress: Progress
) -> tuple[Model, EqualizationResult]:
    """Scale weights across layers; see `onnxq.api.equalize`."""
    runtime = runtime_of(options)
    require_float(model)
    if target_named(options.target).scheme(options.scheme.value).floating:
        raise UsageError(
            f"scheme {options.scheme.value} needs no equalization: its steps grow with the values",
            hint="quantize the model as it is",
        )
    source = None if options.data is None else source_of(options, model)
    shapes = parse_shapes(options.input_shapes, model.inputs)
    with progress.track("prepare the model", None):
        normalized, normalization = normalized_on(
            model, source, shapes, _limits(options), runtime=runtime
        )
    sample = one_sample(normalized, source, shapes, runtime)
    calibration = _calibration(model, options, source, sample, progress)
    feeds = proof_feeds(normalized, source, batch_of(calibration), shapes)
    batching = plan_batching(sample, _limits(options).halved())
    with progress.track("choose scales", None):
        choice = _choice(normalized, calibration, feeds, options, batching)
    try:
        with progress.track("scale and prove", None):
            result, record, centering, change = _carried_out(choice, feeds, options, batching)
    except ModelError as error:
        if source is not None or error.hint:
            raise
        hint = "without data the proof feeds random numbers; give samples with --data"
        raise ModelError(error.message, hint=hint) from None
    return result, EqualizationResult(normalization, record, centering, change, calibration)


def _choice(
    model: Model,
    calibration: Calibration | None,
    feeds: list[Feeds],
    options: EqualizeOptions,
    batching: Batching,
) -> Choice:
    """The scales for what `quantize` would make of the model with the same options."""
    target = target_named(options.target)
    plan = QuantizationOptions(
        scheme=options.scheme.value, per_channel=options.weights is WeightScales.PER_CHANNEL
    )
    chosen = EqualizationOptions(
        real_scales=options.scales is ChannelScales.REAL,
        relu6=options.relu6.value,
        per_channel=plan.per_channel,
        one_weight_scale=target.one_weight_scale,
        scheme=target.scheme(plan.scheme),
        target=target.name,
    )
    if chosen.scheme.is_dynamic and calibration is not None:
        layers = plan_quantization(Graph(model), calibration, target, plan).weighted
        runs = one_by_one(feeds)
        return choose_by_run(model, calibration, runs, chosen, layers, batching)
    return choose(
        model, calibration, chosen, lambda graph, known: rounded_beside(graph, known, target, plan)
    )


def _calibration(
    model: Model,
    options: EqualizeOptions,
    source: DataSource | None,
    sample: OneSample,
    progress: Progress,
) -> Calibration | None:
    """The one given, or one of the data; None for weights only."""
    if options.calibration is not None:
        calibration = as_calibration(options.calibration, model)
        preprocessing = calibration.provenance.preprocessing
        require_same_preprocessing(preprocessing, source, "the calibration")
        return calibration
    if source is None:
        return None
    tensors = tensors_to_observe(Graph(sample.model))
    return observe(
        sample.model,
        source,
        tensors,
        fingerprint=model.fingerprint,
        limits=_limits(options),
        sample=sample,
        allow_nonfinite=options.allow_nonfinite,
        progress=progress,
    )


def _limits(options: EqualizeOptions) -> Limits:
    return Limits(options.batch_size, options.memory)


def _carried_out(
    choice: Choice,
    feeds: list[Feeds],
    options: EqualizeOptions,
    batching: Batching,
) -> tuple[Model, Equalization, Centering | None, Proof]:
    """The equalized model with its scales on record, and what was done and proved."""
    prepared, record, change = *scaled(choice, feeds, batching), None
    if options.absorb_bias:
        ranges = QuantizeOptions.ranges.value
        prepared, change = centered_and_proved(prepared, ranges, choice.original, feeds, batching)
    result = prepared.recorded_in(prepared.model)
    return result, record, prepared.centering, change or record.proof
