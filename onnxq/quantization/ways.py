"""Which way to prepare the float model: as it is, equalized, with channel factors; and centered."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxq.calibration.statistics import Calibration
from onnxq.closeness import worst_sqnr
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
from onnxq.equalization.measured import measured
from onnxq.equalization.prepare import Prepared, centered, scaled, unchanged
from onnxq.equalization.prove import Reference
from onnxq.model.graph import Graph
from onnxq.progress import SILENT
from onnxq.quantization.finish import closeness_of, plan_of, settle
from onnxq.quantization.insert import insert
from onnxq.quantization.planning import rounded_beside
from onnxq.quantization.request import Request
from onnxq.quantization.trials import HIDDEN, Variant, chosen

TRIED_WORTH = 0.4
"""dB of SQNR on samples held out for which the kernels of channel factors are worth their time."""

WORTH_OF_EACH = 0.1
"""The same of each, where they are many."""


def choose_scales(request: Request, relu6: str) -> Choice:
    """The scales under one treatment of saturating Clips."""
    tries = request.effort.trials and request.samples and request.samples.measured
    worth = KERNEL_WORTH if tries else UNTRIED_WORTH
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
            layers = plan_of(request, as_it_is).weighted
            return choose_by_run(
                request.model, request.calibration, feeds, options, layers, request.batching
            )
        return choose(request.model, request.calibration, options, rounded)


def prepare(
    request: Request, choice: Choice | None, reference: Reference | None
) -> tuple[str, Prepared]:
    """The model as it is, equalized as chosen, or without the factors among that: what trials on
    the samples held out say. Its name first.
    """
    variants = _variants(request, choice)
    if len(variants) == 1 or reference is None or not request.effort.trials:
        return variants[-1].name, variants[-1].prepare()

    def tried(prepared: Prepared) -> float:
        return _tried(request, prepared, reference)

    hides = request.adaptive and not request.effort.rounds_trials
    return chosen(variants, tried, hidden=HIDDEN if hides else 0.0)


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
    """SQNR once it is quantized in haste, dB: weights to nearest as a rule, few samples."""
    if request.samples is None:
        return math.nan
    effort = request.effort
    few = replace(request.samples, correction=request.samples.first(effort.trials))
    rounds = request.adaptive and effort.rounds_trials
    haste = replace(request, samples=few, adaptive=rounds, progress=SILENT)
    plan = plan_of(request, prepared)
    settled = settle(haste, prepared, plan)
    quantized = insert(prepared.model, plan, weights=settled.weights, biases=settled.biases)
    _, plain = reference.levels
    return worst_sqnr(closeness_of(request, plain, quantized))


def _scaled(request: Request, choice: Choice) -> Prepared:
    """Equalize as chosen, and center for formats without zero points."""
    samples, spec = request.samples, request.scheme.static
    feeds = random_feeds(request.model, shapes=request.shapes) if samples is None else samples.proof
    with request.progress.track("equalize", None):
        prepared, _ = scaled(choice, feeds, request.batching)
    if not request.center or spec is None or not spec.symmetric:
        return prepared
    return centered(prepared, request.options.ranges, spec.levels)
