"""The stage: equalize, plan, round weights, correct biases, insert Q/DQ, measure."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxq.closeness import worst_sqnr
from onnxq.equalization.choose import (
    KERNEL_WORTH,
    Choice,
)
from onnxq.equalization.classes import find_classes
from onnxq.equalization.prepare import Prepared
from onnxq.equalization.prove import Reference
from onnxq.equalization.solve import decibels
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.quantization.finish import closeness_of, finish, reference_of
from onnxq.quantization.request import QuantizationResult, Request
from onnxq.quantization.trials import with_final
from onnxq.quantization.ways import choose_scales, prepare

TIE_MARGIN = 15.0
"""A tied Clip is used only if the float change is this many dB below the quantization noise."""


def quantize(request: Request) -> tuple[Model, QuantizationResult]:
    """Quantize, equalized with the treatment of saturating Clips that suits best.

    A tie costs no kernel but is exact on the calibration data only, so it is used where the change
    of the float model on samples it never saw stays `TIE_MARGIN` dB below the quantization noise,
    unless bounds for each channel are expected to bring `KERNEL_WORTH` more.
    """
    if request.again is not None:
        again = request.again
        reference = reference_of(request)
        return finish(request, again.prepared, again.relu6_reason, reference, again.ranges)
    if not request.equalize or request.scheme.floating:
        return _made(request, None, "")
    exact = "per-channel" if request.target.channel_bounds else "skip"
    if not find_classes(Graph(request.model)).clips:
        return _made(request, choose_scales(request, exact), "no Clip saturates")
    if request.samples is None or not (request.samples.held_out and request.samples.unseen):
        reason = "no samples that the calibration did not see"
        return _made(request, choose_scales(request, exact), reason)
    tied, other = choose_scales(request, "tie"), None
    if request.target.channel_bounds:
        other = choose_scales(request, exact)
        worth = decibels(tied.expected_noise, other.expected_noise)
        if worth > KERNEL_WORTH:
            reason = f"expected to be {worth:.1f} dB better than a tie"
            return _made(request, other, reason)
    found = _made_tied(request, tied)
    if not isinstance(found, str):
        return found
    return _made(request, other or choose_scales(request, exact), found)


def _made_tied(request: Request, choice: Choice) -> tuple[Model, QuantizationResult] | str:
    """The model with Clips tied; or why it is not to be."""

    def refusal(float_sqnr: float) -> str:
        return f"a tie would change unseen float outputs by {-float_sqnr:.1f} dB"

    reference = reference_of(request)
    name, prepared = prepare(request, choice, reference)
    expected = next((each.sqnr for each in prepared.trials if each.name == name), -math.inf)
    if reference is not None:
        optimized, _ = reference.levels
        float_sqnr = worst_sqnr(closeness_of(request, optimized, prepared.model))
        # Weights rounded for their layers make it better still.
        if float_sqnr < expected + TIE_MARGIN:
            return refusal(float_sqnr)
    made = _finished(request, name, prepared, "adds no kernel", reference)
    float_sqnr = made[1].float_sqnr
    return made if float_sqnr >= made[1].quantized_sqnr + TIE_MARGIN else refusal(float_sqnr)


def _made(request: Request, choice: Choice | None, reason: str) -> tuple[Model, QuantizationResult]:
    """The model, prepared as is best, and quantized."""
    reference = reference_of(request)
    name, prepared = prepare(request, choice, reference)
    return _finished(request, name, prepared, reason, reference)


def _finished(
    request: Request, name: str, prepared: Prepared, reason: str, reference: Reference | None
) -> tuple[Model, QuantizationResult]:
    """`finish`, and what came of it beside the trials."""
    model, result = finish(request, prepared, reason, reference)
    trials = with_final(prepared.trials, name, result.quantized_sqnr)
    return model, replace(result, prepared=replace(prepared, trials=trials))
