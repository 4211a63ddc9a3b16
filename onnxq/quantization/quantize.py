"""The stage: equalize, plan, round weights, correct biases, insert Q/DQ, measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnxq.calibration.ranges import AUTO, Range
from onnxq.calibration.statistics import Calibration
from onnxq.closeness import OutputCloseness, Sums, add_sums, closeness, sums_of, worst_sqnr
from onnxq.data.batching import samples_in
from onnxq.data.gather import run_batches
from onnxq.data.random import random_feeds
from onnxq.equalization.by_run import choose_by_run
from onnxq.equalization.choose import (
    KERNEL_WORTH,
    ROUNDED,
    UNTRIED_WORTH,
    Choice,
    EqualizationOptions,
    choose,
)
from onnxq.equalization.classes import find_classes
from onnxq.equalization.measured import measured
from onnxq.equalization.prepare import Prepared, centered, scaled, unchanged
from onnxq.equalization.prove import Feeds, Reference, run_reference
from onnxq.equalization.solve import decibels
from onnxq.gradients import find_leaves, measure_costs
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.progress import SILENT
from onnxq.quantization.insert import insert
from onnxq.quantization.narrower import (
    LeafOutputs,
    activations_of,
    leaf_outputs,
    lost_part,
    tried_alone,
)
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.planning import plan_quantization, rounded_beside
from onnxq.quantization.ranges import Ranges
from onnxq.quantization.request import QuantizationResult, Request
from onnxq.quantization.rest import narrow_rest
from onnxq.quantization.sequential import SettledLayers, settle_layers
from onnxq.quantization.trials import HIDDEN, Variant, chosen, with_final
from onnxq.quantization.weighed import Estimate, Weighed, clipped_by, fixed_by, weigh

TIE_MARGIN = 15.0
"""A tied Clip is used only if the float change is this many dB below the quantization noise."""


TRIED_WORTH = 0.5
"""dB of SQNR on samples held out for which the kernels of channel factors are worth their time."""

WORTH_OF_EACH = 0.1
"""The same of each, where they are many."""


def quantize(request: Request) -> tuple[Model, QuantizationResult]:
    """Quantize, equalized with the treatment of saturating Clips that suits best.

    A tie costs no kernel but is exact on the calibration data only, so it is used where the change
    of the float model on samples it never saw stays `TIE_MARGIN` dB below the quantization noise,
    unless bounds for each channel are expected to bring `KERNEL_WORTH` more.
    """
    if request.again is not None:
        again = request.again
        reference = _reference(request)
        return _finish(request, again.prepared, again.relu6_reason, reference, again.ranges)
    if not request.equalize or request.scheme.floating:
        return _made(request, None, "")
    exact = "per-channel" if request.target.channel_bounds else "skip"
    if not find_classes(Graph(request.model)).clips:
        return _made(request, _choose(request, exact), "no Clip saturates")
    if request.samples is None or not (request.samples.held_out and request.samples.unseen):
        reason = "no samples that the calibration did not see"
        return _made(request, _choose(request, exact), reason)
    tied, other = _choose(request, "tie"), None
    if request.target.channel_bounds:
        other = _choose(request, exact)
        worth = decibels(tied.expected_noise, other.expected_noise)
        if worth > KERNEL_WORTH:
            reason = f"expected to be {worth:.1f} dB better than a tie"
            return _made(request, other, reason)
    found = _made_tied(request, tied)
    if not isinstance(found, str):
        return found
    return _made(request, other or _choose(request, exact), found)


def _made_tied(request: Request, choice: Choice) -> tuple[Model, QuantizationResult] | str:
    """The model with Clips tied; or why it is not to be."""

    def refusal(float_sqnr: float) -> str:
        return f"a tie would change unseen float outputs by {-float_sqnr:.1f} dB"

    reference = _reference(request)
    name, prepared = _prepared(request, choice, reference)
    expected = next((each.sqnr for each in prepared.trials if each.name == name), -math.inf)
    if reference is not None:
        optimized, _ = reference.levels
        float_sqnr = worst_sqnr(_closeness(request, optimized, prepared.model))
        # Weights rounded for their layers make it better still.
        if float_sqnr < expected + TIE_MARGIN:
            return refusal(float_sqnr)
    made = _finished(request, name, prepared, "adds no kernel", reference)
    float_sqnr = made[1].float_sqnr
    return made if float_sqnr >= made[1].quantized_sqnr + TIE_MARGIN else refusal(float_sqnr)


def _choose(request: Request, relu6: str) -> Choice:
    """The scales under one treatment of saturating Clips."""
    worth = KERNEL_WORTH if request.samples and request.samples.measured else UNTRIED_WORTH
    rounds = request.adaptive and request.samples is not None
    options = EqualizationOptions(
        relu6=relu6,
        per_channel=request.options.per_channel,
        one_weight_scale=request.target.one_weight_scale,
        scheme=request.scheme,
        target=request.target.name,
        exact=not request.target.one_weight_scale,
        factors_worth=worth,
        weights_left=ROUNDED if rounds and request.options.per_channel else 1.0,
    )

    def rounded(graph: Graph, calibration: Calibration) -> frozenset[str]:
        return rounded_beside(graph, calibration, request.target, request.options, request.keep)

    with request.progress.track("choose scales", None):
        if request.scheme.is_dynamic and request.calibration is not None:
            feeds = request.samples.correction if request.samples else ()
            as_it_is = Prepared(request.model, request.calibration, {})
            layers = _plan(request, as_it_is).weighted
            return choose_by_run(
                request.model, request.calibration, feeds, options, layers, request.batching
            )
        return choose(request.model, request.calibration, options, rounded)


def _made(request: Request, choice: Choice | None, reason: str) -> tuple[Model, QuantizationResult]:
    """The model, prepared as is best, and quantized."""
    reference = _reference(request)
    name, prepared = _prepared(request, choice, reference)
    return _finished(request, name, prepared, reason, reference)


def _prepared(
    request: Request, choice: Choice | None, reference: Reference | None
) -> tuple[str, Prepared]:
    """The model as it is, equalized as chosen, or without the factors among that: what trials on
    the samples held out say. Its name first.
    """
    variants = _variants(request, choice)
    if len(variants) == 1 or reference is None:
        return variants[-1].name, variants[-1].prepare()

    def tried(prepared: Prepared) -> float:
        return _tried(request, prepared, reference)

    return chosen(variants, tried, hidden=HIDDEN if request.adaptive else 0.0)


def _finished(
    request: Request, name: str, prepared: Prepared, reason: str, reference: Reference | None
) -> tuple[Model, QuantizationResult]:
    """`_finish`, and what came of it beside the trials."""
    model, result = _finish(request, prepared, reason, reference)
    trials = with_final(prepared.trials, name, result.quantized_sqnr)
    return model, replace(result, prepared=replace(prepared, trials=trials))


def _variants(request: Request, choice: Choice | None) -> list[Variant]:
    """The ways to prepare the model, from the plainest on to the one expected to be best."""
    plainest = Variant("not equalized", lambda: unchanged(request.model, request.calibration))
    if choice is None:
        return [plainest]
    samples, plain = request.samples, choice.plain
    if samples is not None and choice.working:
        with request.progress.track("measure scales", None):
            choice = measured(choice, samples.correction, request.batching, request.tokens)
    equalized = _scaled(request, choice)
    record, centering = equalized.equalization, equalized.centering
    if not (record is not None and record.changed) and not (centering and centering.shifts):
        return [Variant("equalized", lambda: equalized)]
    if plain is None:
        return [plainest, Variant("equalized", lambda: equalized)]
    worth = max(TRIED_WORTH, WORTH_OF_EACH * len(choice.working))
    middle = [Variant("equalized", lambda: _scaled(request, plain))]
    return [
        plainest,
        *(middle if plain.solution.gain >= TRIED_WORTH else []),
        Variant("with channel factors", lambda: equalized, worth),
    ]


def _tried(request: Request, prepared: Prepared, reference: Reference) -> float:
    """SQNR once it is quantized in haste, dB: weights to nearest, biases by few samples."""
    if request.samples is None:
        return math.nan
    few = replace(request.samples, correction=request.samples.few)
    haste = replace(request, samples=few, adaptive=False, progress=SILENT)
    plan = _plan(request, prepared)
    settled = _settle(haste, prepared.model, plan)
    quantized = insert(prepared.model, plan, weights=settled.weights, biases=settled.biases)
    _, plain = reference.levels
    return worst_sqnr(_closeness(request, plain, quantized))


def _reference(request: Request) -> Reference | None:
    """What the float model gives for the samples to measure on; None where there are none."""
    samples = request.samples
    if samples is None or not samples.measured:
        return None
    return run_reference(request.model, samples.measured, batching=request.batching)


def _scaled(request: Request, choice: Choice) -> Prepared:
    """Equalize as chosen, and center for formats without zero points."""
    samples, spec = request.samples, request.scheme.static
    feeds = random_feeds(request.model, shapes=request.shapes) if samples is None else samples.proof
    with request.progress.track("equalize", None):
        prepared, _ = scaled(choice, feeds, request.batching)
    if not request.center or spec is None or not spec.symmetric:
        return prepared
    return centered(prepared, request.options.ranges, spec.levels)


def _plan(
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
    """The ranges by what their errors cost at the outputs, where samples can tell."""
    spec, calibration = request.scheme.static, prepared.calibration
    if request.samples is None or spec is None or calibration is None:
        return ()
    if request.options.ranges != AUTO or not spec.clipping_pays:
        return ()
    plan = _plan(request, prepared)
    costs = measure_costs(
        prepared.model,
        calibration,
        request.samples.correction,
        sorted(plan.static),
        room=request.batching.room // 2,
        tokens=request.tokens,
        progress=request.progress,
    )
    ranges = Ranges(
        Graph(prepared.model),
        calibration.tensors,
        prepared.gains,
        prepared.centered_ranges,
        spec,
        request.options.ranges,
    )
    return _narrowed(request, prepared, weigh(plan, ranges, costs))


def _narrowed(
    request: Request, prepared: Prepared, weighed: tuple[Weighed, ...]
) -> tuple[Weighed, ...]:
    """With those of the narrower ranges on trial that are better, alone and together."""
    samples, spec = request.samples, request.scheme.static
    if samples is None or spec is None or prepared.calibration is None:
        return weighed
    if not any(each.on_trial for each in weighed):
        return weighed
    leaves = find_leaves(Graph(prepared.model), prepared.calibration.tensors)

    def seen(feeds: Sequence[Feeds]) -> LeafOutputs:
        return leaf_outputs(prepared.model, leaves, feeds, request.batching, request.tokens)

    plan = _plan(request, prepared, weighed)
    with request.progress.track("try ranges", None):
        tried = tried_alone(prepared.model, plan, weighed, spec, seen(samples.fewest))
        if not any(each.chosen is Estimate.GRADIENT for each in tried):
            return tried
        exact = seen(samples.measured)
        narrow = _plan(request, prepared, tried)
        wider, narrower = (
            exact.errors(insert(prepared.model, activations_of(each))) for each in (plan, narrow)
        )
    lost = lost_part(wider, narrower)
    if not lost:
        return tried
    return tuple(
        before.without_narrower(lost) if after.chosen is Estimate.GRADIENT else after
        for before, after in zip(weighed, tried, strict=True)
    )


def _finish(
    request: Request,
    prepared: Prepared,
    reason: str,
    reference: Reference | None,
    weighed: tuple[Weighed, ...] | None = None,
) -> tuple[Model, QuantizationResult]:
    """Plan, settle layers, insert, measure."""
    model, samples = prepared.model, request.samples
    weighed = _weighed(request, prepared) if weighed is None else weighed
    plan = _plan(request, prepared, weighed)
    settled = _settle(request, model, plan, clipped_by(weighed, plan))
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
        float_sqnr = worst_sqnr(_closeness(request, optimized, model))
        outputs = _closeness(request, plain, quantized)
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


def _settle(
    request: Request,
    model: Model,
    plan: QuantizationPlan,
    clipped: Mapping[str, Range] | None = None,
) -> SettledLayers:
    """Round and correct as asked, where there are samples."""
    if request.samples is None or not (request.correct or request.adaptive):
        return SettledLayers({}, {}, (), ())
    return settle_layers(
        model,
        plan,
        request.samples.correction,
        adaptive=request.adaptive,
        correct=request.correct,
        batching=request.batching,
        tokens=request.tokens,
        clipped=clipped,
        progress=request.progress,
    )


def _closeness(request: Request, reference: Reference, model: Model) -> tuple[OutputCloseness, ...]:
    """How close the model's outputs are to the reference's, run as that was run."""
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
