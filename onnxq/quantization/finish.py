"""Make the quantized model of a prepared one: ranges, plan, settled layers, Q/DQ, measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onnxq.calibration.costs import Costs
from onnxq.calibration.ranges import AUTO, Range
from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stored_costs import of_same
from onnxq.closeness import OutputCloseness, Sums, add_sums, closeness, sums_of, worst_sqnr
from onnxq.data.batching import samples_in
from onnxq.data.gather import run_batches
from onnxq.equalization.prepare import Prepared
from onnxq.equalization.prove import Feeds, Reference, run_reference
from onnxq.gradients import find_leaves, measure_costs
from onnxq.model.dynamic import with_dequantized
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.quantization.importance import NO_IMPORTANCE, importance_of
from onnxq.quantization.insert import insert
from onnxq.quantization.narrower import (
    LeafOutputs,
    activations_of,
    leaf_outputs,
    lost_part,
    tried_alone,
)
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.planning import plan_quantization
from onnxq.quantization.ranges import Ranges
from onnxq.quantization.request import QuantizationResult, Request
from onnxq.quantization.rest import narrow_rest
from onnxq.quantization.sequential import SettledLayers, settle_layers
from onnxq.quantization.weighed import Estimate, Weighed, clipped_by, fixed_by, weigh

NOT_TRIED = "it was not tried on samples, for the time that takes"
NO_SAMPLES = "there are no samples to try it on"


def finish(
    request: Request,
    prepared: Prepared,
    reason: str,
    reference: Reference | None,
    weighed: tuple[Weighed, ...] | None = None,
) -> tuple[Model, QuantizationResult]:
    """Plan, settle layers, insert, measure."""
    model, samples = prepared.model, request.samples
    weighed = _weighed(request, prepared) if weighed is None else weighed
    plan = plan_of(request, prepared, weighed)
    settled = settle(request, prepared, plan, clipped_by(weighed, plan))
    quantized = insert(model, plan, weights=settled.weights, biases=settled.biases)
    narrowing = None
    if request.options.half and samples is not None and prepared.calibration is not None:
        quantized, narrowing = narrow_rest(
            quantized, prepared.calibration, samples.correction, request.batching
        )
    float_sqnr = quantized_sqnr = math.nan
    outputs: tuple[OutputCloseness, ...] = ()
    if reference is not None:
        optimized, plain = reference.levels
        with request.progress.track("measure", None):
            float_sqnr = worst_sqnr(closeness_of(request, optimized, model))
            outputs = closeness_of(request, plain, quantized)
        quantized_sqnr = worst_sqnr(outputs)
    return quantized, QuantizationResult(
        request.normalization,
        prepared,
        reason,
        float_sqnr,
        quantized_sqnr,
        plan,
        settled.corrections,
        settled.roundings,
        narrowing=narrowing,
        closeness=outputs,
        measured_on=samples.measured_on if outputs and samples is not None else None,
        ranges=weighed,
    )


def reference_of(request: Request) -> Reference | None:
    """What the float model gives for the samples to measure on; None where there are none."""
    samples = request.samples
    if samples is None or not samples.measured:
        return None
    return run_reference(request.model, samples.measured, batching=request.batching)


def plan_of(
    request: Request, prepared: Prepared, weighed: Sequence[Weighed] = ()
) -> QuantizationPlan:
    return plan_quantization(
        Graph(prepared.model),
        prepared.calibration,
        request.target,
        request.options,
        prepared.gains,
        fixed={**prepared.centered_ranges, **fixed_by(weighed)},
        keep=request.keep,
        wider=request.wider,
    )


def _weighed(request: Request, prepared: Prepared) -> tuple[Weighed, ...]:
    """The ranges by what their errors cost at the outputs, where that is known."""
    spec, calibration = request.scheme.static, prepared.calibration
    if spec is None or calibration is None:
        return ()
    if request.options.ranges != AUTO or not spec.clipping_pays:
        return ()
    plan = plan_of(request, prepared)
    costs = _costs(request, prepared, calibration, plan)
    if costs is None:
        return ()
    ranges = Ranges(
        Graph(prepared.model),
        calibration.tensors,
        prepared.gains,
        prepared.centered_ranges,
        spec,
        request.options.ranges,
    )
    return _narrowed(request, prepared, weigh(plan, ranges, costs))


def _costs(
    request: Request, prepared: Prepared, calibration: Calibration, plan: QuantizationPlan
) -> Costs | None:
    """By samples, or else as they were measured when the model was calibrated.

    Args:
        calibration: of the prepared model.
    """
    if request.samples is not None:
        return measure_costs(
            prepared.model,
            calibration,
            request.samples.correction,
            sorted(plan.static),
            samples=request.effort.gradients,
            room=request.batching.room // 2,
            tokens=request.tokens,
            progress=request.progress,
        )
    given = request.calibration
    if given is None or given.costs is None:
        return None
    return of_same(given.costs, given.tensors, calibration.tensors)


def _narrowed(
    request: Request, prepared: Prepared, weighed: tuple[Weighed, ...]
) -> tuple[Weighed, ...]:
    """With those of the narrower ranges on trial that are better, alone and together."""
    samples, spec = request.samples, request.scheme.static
    if spec is None or prepared.calibration is None:
        return weighed
    if not any(each.on_trial for each in weighed):
        return weighed
    if samples is None or not request.effort.alone:
        reason = NO_SAMPLES if samples is None else NOT_TRIED
        return tuple(each.without_narrower(reason) if each.on_trial else each for each in weighed)
    leaves = find_leaves(Graph(prepared.model), prepared.calibration.tensors)

    def seen(feeds: Sequence[Feeds]) -> LeafOutputs:
        return leaf_outputs(prepared.model, leaves, feeds, request.batching, request.tokens)

    plan = plan_of(request, prepared, weighed)
    with request.progress.track("try ranges", None):
        few = seen(samples.first(request.effort.alone))
        tried = tried_alone(prepared.model, plan, weighed, spec, few)
        if not any(each.chosen is Estimate.GRADIENT for each in tried):
            return tried
        exact = seen(samples.measured)
        narrow = plan_of(request, prepared, tried)
        wider, narrower = (
            exact.errors(insert(prepared.model, activations_of(each))) for each in (plan, narrow)
        )
    lost = lost_part(wider, narrower)
    if not lost:
        return tried
    reason = f"{lost} with all of them"
    return tuple(
        before.without_narrower(reason) if after.chosen is Estimate.GRADIENT else after
        for before, after in zip(weighed, tried, strict=True)
    )


def settle(
    request: Request,
    prepared: Prepared,
    plan: QuantizationPlan,
    clipped: Mapping[str, Range] | None = None,
) -> SettledLayers:
    """Round and correct as asked, where there are samples."""
    if request.samples is None or not (request.correct or request.adaptive):
        return SettledLayers({}, {}, (), ())
    model, batches = prepared.model, request.samples.correction
    importance = NO_IMPORTANCE
    if request.adaptive and request.options.ranges == AUTO and prepared.calibration is not None:
        importance = importance_of(
            model, prepared.calibration, plan, batches, request.tokens, request.progress
        )
    return settle_layers(
        model,
        plan,
        batches,
        adaptive=request.adaptive,
        correct=request.correct,
        batching=request.batching,
        tokens=request.tokens,
        clipped=clipped,
        importance=importance,
        progress=request.progress,
    )


def closeness_of(
    request: Request, reference: Reference, model: Model
) -> tuple[OutputCloseness, ...]:
    """How close the model's outputs are to the reference's, run as that was run."""
    if request.scheme.is_dynamic:
        # Floats add up alike on every CPU; sums of 8-bit products saturate on some.
        model = with_dequantized(model, products_alone=True)
    names = [spec.name for spec in request.model.outputs]
    sums: dict[str, Sums] = {}
    for level, wanted in reference.outputs.items():
        found = run_batches(
            model, None, reference.feeds, optimize=level, batching=reference.batching
        )
        for feeds, exact, got in zip(reference.feeds, wanted, found, strict=True):
            one, other = dict(zip(names, exact, strict=True)), dict(zip(names, got, strict=True))
            kept = {name: one[name] for name in request.outputs or names}
            real = request.tokens.of(kept, feeds)
            add_sums(sums, sums_of(kept, other, samples_in(feeds), real))
    return closeness(sums)
