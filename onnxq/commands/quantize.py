"""Quantize a float model for a target; search for the layers to keep in float where asked to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import observe
from onnxq.commands.account import account_for
from onnxq.commands.budget import one_sample
from onnxq.commands.costliest import RANKING_SAMPLES, costliest, ranked_layers
from onnxq.commands.inputs import (
    as_calibration,
    require_same_preprocessing,
    source_of,
)
from onnxq.commands.keep_in_float import keep_in_float, source_of_gate
from onnxq.commands.kept import NOTHING, Kept
from onnxq.commands.machine_target import with_target
from onnxq.commands.mixed import spare_costliest
from onnxq.commands.normalized import normalized_on
from onnxq.commands.provider import runtime_of, with_provider
from onnxq.data.budget import Limits, OneSample, plan_batching
from onnxq.data.sizes import Shapes, parse_shapes
from onnxq.data.source import DataSource
from onnxq.data.tokens import NO_TOKENS
from onnxq.equalization.observed import tensors_to_observe
from onnxq.errors import ModelError
from onnxq.formats.scheme import Scheme
from onnxq.formats.table import FORMATS
from onnxq.model.already import require_float
from onnxq.model.graph import Graph
from onnxq.model.interface import METADATA_KEY as INTERFACE_KEY
from onnxq.model.interface import interface_json
from onnxq.model.model import Model, with_metadata
from onnxq.model.narrow import OPSET as HALF_OPSET
from onnxq.model.normalize import Normalization
from onnxq.model.operators import is_weighted, operator_of, weighted_inside
from onnxq.model.static import with_shapes
from onnxq.model.status import Float, Quantized
from onnxq.options.effort import EFFORTS
from onnxq.options.quantize import (
    FloatRest,
    HeadNumbers,
    QuantizeOptions,
    ScaleNumbers,
    WeightRounding,
    WeightScales,
)
from onnxq.progress import Progress
from onnxq.quantization import quantize as stage
from onnxq.quantization.clipping import harmful_clips
from onnxq.quantization.details import METADATA_KEY, details_json
from onnxq.quantization.interface import with_integer_interface
from onnxq.quantization.patterns import check_patterns
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.ranges import Ranges
from onnxq.quantization.request import QuantizationResult, Request
from onnxq.quantization.rest import require_float_biases
from onnxq.quantization.samples import hold_out_of, take_samples
from onnxq.quantization.search import Bounds
from onnxq.quantization.shares import uneven_shares
from onnxq.quantization.tables import forms_of_tables
from onnxq.quantization.weighed import Estimate
from onnxq.targets import Target, target_named
from onnxq.validation.interface import choose_outputs


@dataclass(frozen=True)
class Ground:
    """What a model is quantized from, before anything has been measured.

    Attributes:
        given: the model, as it was given.
        model: the same with the sizes that are fixed.
        normalized: the form that is calibrated.
        source: of the calibration data; None without data.
        hold_out: every how many-th batch is left out, to measure on.
        sample: of the data, or a random one.
    """

    given: Model
    model: Model
    options: QuantizeOptions
    target: Target
    chosen: QuantizationOptions
    normalized: Model
    normalization: Normalization
    source: DataSource | None
    shapes: Shapes
    limits: Limits
    hold_out: int
    sample: OneSample

    @property
    def scheme(self) -> Scheme:
        return self.chosen.scheme_on(self.target)


def ground_of(model: Model, options: QuantizeOptions) -> Ground:
    """Open the data, and bring the model into the form that the scheme needs.

    Raises:
        UsageError: the target does not take the scheme, or a pattern matches no node.
    """
    options, _ = with_provider(options)
    runtime = runtime_of(options)
    require_float(model)
    options, _ = with_target(options)
    target, chosen = target_named(options.target), stage_options(options)
    scheme = chosen.scheme_on(target)
    if chosen.half:
        require_float_biases(target, scheme)
    forms = forms_of_tables(target, scheme, chosen.table_bits)
    raises = options.mixed is not None or options.max_drop is not None
    opset = max(
        scheme.opset, *(form.opset for form in forms), HALF_OPSET if chosen.half else 0,
        scheme.wider.opset if scheme.wider is not None and raises else 0,
    )  # fmt: skip
    limits = Limits(options.batch_size, options.memory)
    given, shapes = model, parse_shapes(options.input_shapes, model.inputs)
    model = with_shapes(given, shapes)
    source = None if options.data is None else source_of(options, model, input_shapes=())
    normalized, normalization = normalized_on(
        model, source, shapes, limits, opset=opset, runtime=runtime
    )
    check_patterns(Graph(normalized), chosen)
    hold_out = hold_out_of(source)
    sample = one_sample(normalized, source, shapes, runtime)
    return Ground(
        given, model, options, target, chosen, normalized, normalization, source, shapes, limits,
        hold_out, sample,
    )  # fmt: skip


def quantize(
    model: Model, options: QuantizeOptions, progress: Progress, kept: Kept = NOTHING
) -> tuple[Model, QuantizationResult]:
    """Turn a float model into a QDQ model; see `onnxq.api.quantize`.

    Args:
        kept: what earlier calls of the same model and data have found out.
    """
    with progress.track("prepare the model", None):
        ground = ground_of(model, options)
    options, target, chosen, scheme = ground.options, ground.target, ground.chosen, ground.scheme
    model, source, limits, sample = ground.model, ground.source, ground.limits, ground.sample
    effort = EFFORTS[options.effort.value]
    checked = None if options.max_drop is None else source_of_gate(model, options)
    calibration = calibration_of(ground, progress, kept)
    samples = None
    if source is not None and calibration is not None:
        unseen = options.calibration is None or calibration.data != source.fingerprint
        samples = kept.value(
            "samples",
            (ground.normalized, options.effort.value),
            partial(
                take_samples,
                source,
                calibration,
                hold_out=ground.hold_out,
                unseen=unseen,
                effort=effort,
            ),
        )
        samples = samples.one_by_one() if scheme.is_dynamic else samples
    request = Request(
        ground.normalized,
        ground.normalization,
        calibration,
        samples,
        target,
        chosen,
        equalize=options.equalize,
        center=options.absorb_bias,
        correct=options.bias_correction,
        adaptive=options.rounding is WeightRounding.ADAPTIVE,
        progress=progress,
        outputs=choose_outputs(model, options.outputs),
        shapes=ground.shapes,
        batching=plan_batching(sample, limits.halved()),
        tokens=sample.tokens if samples is not None and samples.padded else NO_TOKENS,
        effort=effort,
    )
    plain = (ground.normalized, replace(options, mixed=None).settings())
    made = kept.value("made", plain, lambda: stage.quantize(request))
    if options.mixed is not None and source is not None:
        ranked = kept.value(
            "ranked", plain, lambda: ranked_layers(request, made, source, RANKING_SAMPLES, limits)
        )
        request, made = spare_costliest(request, made, ranked, options.mixed)
    limits = limits.singly() if scheme.is_dynamic else limits
    if not options.allow_none:
        _require_quantized(model, made[1])
    if options.max_drop is not None and checked is not None:
        preprocessing = "" if calibration is None else calibration.provenance.preprocessing
        require_same_preprocessing(preprocessing, checked, "the calibration")
        bounds = Bounds(options.max_trials, options.max_minutes)
        made = keep_in_float(model, request, made, checked, options.max_drop, bounds, limits)
        if made[1].search is not None and made[1].search.passed and not options.allow_none:
            _require_quantized(model, made[1])
    quantized, result = made
    cost = costliest(request, (quantized, result), source, limits)
    result = _with_scales_judged(replace(result, costliest=cost))
    entries = {METADATA_KEY: details_json(result, calibration, options.settings())}
    recorded = result.prepared.recorded_in(quantized)
    if options.io is not None:
        recorded, interface = with_integer_interface(recorded, FORMATS[options.io.value])
        result = replace(result, interface=interface)
        entries[INTERFACE_KEY] = interface_json(interface.tensors)
    recorded = with_metadata(recorded, entries)
    account = account_for(model, recorded, result, sample, measures=options.speed)
    return recorded, replace(result, account=account)


def _with_scales_judged(result: QuantizationResult) -> QuantizationResult:
    """With the tensors that their range, or a scale they share, serves badly."""
    plan, prepared = result.plan, result.prepared
    if prepared.calibration is None or plan.scheme.static is None:
        return result
    ranges = Ranges(
        Graph(prepared.model),
        prepared.calibration.tensors,
        prepared.gains,
        {},
        plan.scheme.static,
        plan.options.ranges,
    )
    tried = {each.tensor for each in result.ranges if each.chosen is Estimate.GRADIENT}
    clipped = harmful_clips(plan, ranges, tried)
    return replace(result, uneven=uneven_shares(plan, ranges), clipped=clipped)


def _require_quantized(model: Model, result: QuantizationResult) -> None:
    """Raise `ModelError` where the plan leaves every node in float.

    The reason that most nodes share is named: of those with a weight if there are any, else of
    those that are more than an activation in another's kernel.
    """
    plan = result.plan
    if any(isinstance(each, Quantized) for each in plan.nodes.values()):
        return
    nodes = Graph(result.prepared.model).nodes
    weighted = [node for node in nodes if is_weighted(node) or weighted_inside(node)]
    others = [node for node in nodes if (row := operator_of(node)) is None or not row.fuses]
    refused = [
        status.reason
        for node in weighted or others or nodes
        if isinstance(status := plan.nodes[node.name], Float)
    ]
    (reason, _), *rest = Counter(refused).most_common() or [("it has no nodes", 0)]
    more = f", and {len(rest):,} other reason{'s' * (len(rest) > 1)}" if rest else ""
    raise ModelError(
        f"{model.name}: no node becomes quantized for target {plan.target.name}: {reason}{more}",
        hint="--dry-run shows the reason of each node, --allow-none writes the model all the same",
    )


def stage_options(options: QuantizeOptions) -> QuantizationOptions:
    """What the plan needs of the options."""
    return QuantizationOptions(
        scheme=options.scheme.value,
        per_channel=options.weights is WeightScales.PER_CHANNEL,
        ranges=options.ranges.value,
        power_of_two=options.scale is ScaleNumbers.POWER_OF_TWO,
        half=options.rest is FloatRest.FP16,
        block=options.block_size or 0,
        table_bits=options.table_bits or 0,
        include=options.include,
        exclude=options.exclude,
        exclude_operators=options.exclude_operators,
        float_head=options.head is HeadNumbers.FLOAT,
    )


def calibration_of(ground: Ground, progress: Progress, kept: Kept = NOTHING) -> Calibration | None:
    """The one given, or one of the data but for what is held out; None where there are neither."""
    options, source, sample = ground.options, ground.source, ground.sample
    if options.calibration is not None:
        calibration = as_calibration(options.calibration, ground.given)
        preprocessing = calibration.provenance.preprocessing
        require_same_preprocessing(preprocessing, source, "the calibration")
        return calibration
    if source is None:
        return None
    return kept.calibration(
        ground.normalized,
        lambda: observe(
            sample.model,
            source,
            tensors_to_observe(Graph(sample.model)),
            fingerprint=ground.given.fingerprint,
            limits=ground.limits,
            hold_out=ground.hold_out,
            sample=sample,
            allow_nonfinite=options.allow_nonfinite,
            progress=progress,
        ),
    )
