"""The stage: equalize, plan, round weights, correct biases, insert Q/DQ, measure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from onnxq.calibration.statistics import Calibration
from onnxq.equalization.classes import find_classes
from onnxq.equalization.derive import derive_calibration
from onnxq.equalization.equalize import Equalization, EqualizationOptions, equalize
from onnxq.equalization.noise import input_gains
from onnxq.equalization.prove import Feeds, compare_outputs, random_feeds
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import Normalization
from onnxq.progress import Progress
from onnxq.quantization.correct import BiasCorrection
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationOptions, QuantizationPlan, plan_quantization
from onnxq.quantization.rounding import Rounding
from onnxq.quantization.sequential import SettledLayers, settle_layers
from onnxq.quantization.targets import Target

PROOF_BATCHES = 2
"""Batches of the samples in memory on which equalization is proved."""

KERNEL_WORTH = 1.0
"""dB of SQNR for which extra kernels are worth their time."""

TIE_MARGIN = 15.0
"""A tied Clip is used only if the float change is this many dB below the int8 noise."""


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
        roundings: what adaptive rounding did to each layer.
    """

    normalization: Normalization
    equalization: Equalization | None
    relu6_reason: str
    float_sqnr: float
    int8_sqnr: float
    plan: QuantizationPlan
    corrections: tuple[BiasCorrection, ...]
    roundings: tuple[Rounding, ...]


@dataclass(frozen=True)
class Samples:
    """Samples in memory: those that settle layers, and those held out to measure on.

    `unseen` says whether the calibration never saw the held-out ones either.
    """

    correction: list[Feeds]
    held_out: list[Feeds]
    unseen: bool


@dataclass(frozen=True)
class Request:
    """What to quantize, how, and with what."""

    model: Model
    normalization: Normalization
    calibration: Calibration
    samples: Samples | None
    target: Target
    options: QuantizationOptions
    equalize: bool
    correct: bool
    adaptive: bool
    progress: Progress


def quantize(request: Request) -> tuple[Model, QuantizationResult]:
    """Quantize, equalized with the treatment of saturating Clips that measures best.

    A tie costs no kernel but is exact on the calibration data only, so it is used where the
    change of the float model on samples it never saw stays `TIE_MARGIN` dB below the int8 noise.
    """
    if not request.equalize:
        return _attempt(request, None, "")
    exact = "per-channel" if request.target.symmetric else "skip"
    saturating = find_classes(Graph(request.model)).clips
    if not saturating:
        return _attempt(request, exact, "no Clip saturates")
    if request.samples is None or not (request.samples.held_out and request.samples.unseen):
        return _attempt(request, exact, "no samples that the calibration did not see")
    tied, tie = _attempt(request, "tie", "")
    tie_holds = tie.float_sqnr >= tie.int8_sqnr + TIE_MARGIN
    if tie_holds and not request.target.symmetric:
        return tied, replace(tie, relu6_reason="measured on held-out samples; adds no kernel")
    other, moved = _attempt(request, exact, "")
    gain = moved.int8_sqnr - tie.int8_sqnr
    if not tie_holds:
        reason = f"a tie would change unseen float outputs by {-tie.float_sqnr:.1f} dB"
        return other, replace(moved, relu6_reason=reason)
    if gain > KERNEL_WORTH:
        reason = f"{gain:.1f} dB better than a tie on held-out samples"
        return other, replace(moved, relu6_reason=reason)
    reason = f"adds no kernel; {exact} would change the SQNR by {gain:+.1f} dB"
    return tied, replace(tie, relu6_reason=reason)


def _attempt(request: Request, relu6: str | None, reason: str) -> tuple[Model, QuantizationResult]:
    """Equalize (unless `relu6` is None), plan, settle, insert, measure."""
    model, calibration, samples = request.model, request.calibration, request.samples
    equalized, record = model, None
    if relu6 is not None:
        options = EqualizationOptions(relu6=relu6, per_channel=request.options.per_channel)
        feeds: list[Feeds] = (
            random_feeds(model) if samples is None else samples.correction[:PROOF_BATCHES]
        )
        equalized, record = equalize(model, calibration, feeds, options)
        equalized = infer_shapes(equalized)
        calibration, _ = derive_calibration(calibration, record.octaves)
    graph = Graph(equalized)
    gains = input_gains(graph, find_classes(graph), calibration)
    plan = plan_quantization(graph, calibration, request.target, request.options, gains)
    settled = SettledLayers({}, {}, (), ())
    if samples is not None and (request.correct or request.adaptive):
        settled = settle_layers(
            equalized, plan, samples.correction, adaptive=request.adaptive,
            correct=request.correct, progress=request.progress,
        )  # fmt: skip
    quantized = insert(equalized, plan, weights=settled.weights, biases=settled.biases)
    float_sqnr = int8_sqnr = math.nan
    if samples is not None and samples.held_out:
        held_out = samples.held_out
        float_sqnr = compare_outputs(model, equalized, held_out, levels=(True,)).sqnr
        int8_sqnr = compare_outputs(model, quantized, held_out, levels=(False,)).sqnr
    return quantized, QuantizationResult(
        request.normalization, record, reason, float_sqnr, int8_sqnr, plan,
        settled.corrections, settled.roundings,
    )  # fmt: skip
