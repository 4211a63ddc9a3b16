"""The stage: equalize, plan, round weights, correct biases, insert Q/DQ, measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.data.batching import WHOLE, Batching
from onnxq.data.source import samples_in
from onnxq.equalization.centering import Centering, center_by, derive_shifted, plan_centering
from onnxq.equalization.choose import KERNEL_WORTH, Choice, EqualizationOptions, choose
from onnxq.equalization.classes import find_classes
from onnxq.equalization.derive import derive_calibration
from onnxq.equalization.equalize import Equalization, carry_out
from onnxq.equalization.prove import Feeds, compare_outputs, random_feeds, run_reference
from onnxq.equalization.sensitivity import input_gains
from onnxq.equalization.solve import decibels
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.narrow import Narrowing
from onnxq.model.normalize import Normalization
from onnxq.progress import Progress
from onnxq.quantization.correct import BiasCorrection
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationOptions, QuantizationPlan, plan_quantization
from onnxq.quantization.rest import narrow_rest
from onnxq.quantization.rounding import Rounding
from onnxq.quantization.search import Search
from onnxq.quantization.sequential import SettledLayers, settle_layers
from onnxq.shown import Shown
from onnxq.targets import Target

PROOF_SAMPLES = 8
"""Samples on which equalization is proved."""

TIE_MARGIN = 15.0
"""A tied Clip is used only if the float change is this many dB below the int8 noise."""


@dataclass(frozen=True)
class Prepared:
    """The float model as it will be quantized: what a plan starts from.

    Attributes:
        model: equalized and centered.
        calibration: of exactly that model.
        gains: tensor → how much an error in each of its channels matters (channels,).
        equalization, centering: what was done; None where not asked for.
    """

    model: Model
    calibration: Calibration
    gains: Mapping[str, NDArray[np.float64]]
    equalization: Equalization | None = None
    centering: Centering | None = None


@dataclass(frozen=True, repr=False)
class QuantizationResult(Shown):
    """What `quantize` did.

    Attributes:
        normalization: batch norms folded, constants computed.
        prepared: the float model that was quantized, and how it came about.
        relu6_reason: why saturating Clips were treated as they were.
        float_sqnr: float model after against before equalization, dB on held-out samples; inf
            where identical, NaN where not measured.
        int8_sqnr: quantized against float model, dB on the same samples.
        plan: every node and tensor.
        corrections: what bias correction did to each layer.
        roundings: what adaptive rounding did to each layer.
        search: what the search for layers to keep in float did; None where none was asked for.
        narrowing: what became of the float remainder; None where it was to stay float32.
    """

    normalization: Normalization
    prepared: Prepared
    relu6_reason: str
    float_sqnr: float
    int8_sqnr: float
    plan: QuantizationPlan
    corrections: tuple[BiasCorrection, ...]
    roundings: tuple[Rounding, ...] = ()
    search: Search | None = None
    narrowing: Narrowing | None = None

    @property
    def equalization(self) -> Equalization | None:
        """What equalization did; None where it was not asked for."""
        return self.prepared.equalization

    @property
    def centering(self) -> Centering | None:
        """What was centered; None where it was not asked for."""
        return self.prepared.centering


@dataclass(frozen=True)
class Samples:
    """Samples in memory: those that settle layers, and those held out to measure on.

    `unseen` says whether the calibration never saw the held-out ones either.
    """

    correction: list[Feeds]
    held_out: list[Feeds]
    unseen: bool

    @property
    def proof(self) -> list[Feeds]:
        """The first batches, of `PROOF_SAMPLES` samples or more."""
        chosen: list[Feeds] = []
        for feeds in self.correction:
            if sum(map(samples_in, chosen)) >= PROOF_SAMPLES:
                break
            chosen.append(feeds)
        return chosen


@dataclass(frozen=True)
class Request:
    """What to quantize, how, and with what.

    Attributes:
        batching: how samples run; the result does not depend on it.
        again: an earlier result for the same request; its equalization is used as it is.
        keep: node → why it stays in float.
    """

    model: Model
    normalization: Normalization
    calibration: Calibration
    samples: Samples | None
    target: Target
    options: QuantizationOptions
    equalize: bool
    center: bool
    correct: bool
    adaptive: bool
    progress: Progress
    batching: Batching = WHOLE
    again: QuantizationResult | None = None
    keep: Mapping[str, str] = field(default_factory=dict)


def quantize(request: Request) -> tuple[Model, QuantizationResult]:
    """Quantize, equalized with the treatment of saturating Clips that suits best.

    A tie costs no kernel but is exact on the calibration data only, so it is used where the change
    of the float model on samples it never saw stays `TIE_MARGIN` dB below the int8 noise, unless
    bounds for each channel are expected to bring `KERNEL_WORTH` more.
    """
    if request.again is not None:
        return _finish(request, request.again.prepared, request.again.relu6_reason)
    if not request.equalize:
        return _finish(request, _prepare(request, None), "")
    exact = "per-channel" if request.target.symmetric else "skip"
    if not find_classes(Graph(request.model)).clips:
        return _finish(request, _prepare(request, _choose(request, exact)), "no Clip saturates")
    if request.samples is None or not (request.samples.held_out and request.samples.unseen):
        reason = "no samples that the calibration did not see"
        return _finish(request, _prepare(request, _choose(request, exact)), reason)
    tied, other = _choose(request, "tie"), None
    if request.target.symmetric:
        other = _choose(request, exact)
        worth = decibels(tied.expected_noise, other.expected_noise)
        if worth > KERNEL_WORTH:
            reason = f"expected to be {worth:.1f} dB better than a tie"
            return _finish(request, _prepare(request, other), reason)
    quantized, result = _finish(request, _prepare(request, tied), "adds no kernel")
    if result.float_sqnr >= result.int8_sqnr + TIE_MARGIN:
        return quantized, result
    reason = f"a tie would change unseen float outputs by {-result.float_sqnr:.1f} dB"
    return _finish(request, _prepare(request, other or _choose(request, exact)), reason)


def _choose(request: Request, relu6: str) -> Choice:
    """The scales under one treatment of saturating Clips."""
    options = EqualizationOptions(relu6=relu6, per_channel=request.options.per_channel)
    return choose(request.model, request.calibration, options)


def _prepare(request: Request, choice: Choice | None) -> Prepared:
    """Equalize as chosen, if so, and center for targets without zero points."""
    model, calibration = request.model, request.calibration
    record = centering = None
    if choice is not None:
        feeds = random_feeds(model) if request.samples is None else request.samples.proof
        model, record = carry_out(choice, feeds, request.batching)
        model = infer_shapes(model)
        calibration, _ = derive_calibration(calibration, record.exponents)
    graph = Graph(model)
    gains = input_gains(graph, find_classes(graph), calibration)
    if choice is not None and request.center and request.target.symmetric:
        centering = plan_centering(graph, calibration, gains, request.options.ranges)
        model = center_by(model, centering)
        calibration = derive_shifted(calibration, centering)
    return Prepared(model, calibration, gains, record, centering)


def _finish(request: Request, prepared: Prepared, reason: str) -> tuple[Model, QuantizationResult]:
    """Plan, settle layers, insert, measure."""
    model, samples = prepared.model, request.samples
    plan = plan_quantization(
        Graph(model), prepared.calibration, request.target, request.options, prepared.gains,
        fixed=prepared.centering.ranges if prepared.centering else {}, keep=request.keep,
    )  # fmt: skip
    settled = SettledLayers({}, {}, (), ())
    if samples is not None and (request.correct or request.adaptive):
        settled = settle_layers(
            model, plan, samples.correction, adaptive=request.adaptive, correct=request.correct,
            batching=request.batching, progress=request.progress,
        )  # fmt: skip
    quantized = insert(model, plan, weights=settled.weights, biases=settled.biases)
    narrowing = None
    if request.options.half and samples is not None:
        quantized, narrowing = narrow_rest(
            quantized, prepared.calibration, samples.correction, request.batching
        )
    float_sqnr = int8_sqnr = math.nan
    if samples is not None and samples.held_out:
        optimized, plain = run_reference(
            request.model, samples.held_out, batching=request.batching
        ).levels
        float_sqnr = compare_outputs(optimized, model).sqnr
        int8_sqnr = compare_outputs(plain, quantized).sqnr
    return quantized, QuantizationResult(
        request.normalization, prepared, reason, float_sqnr, int8_sqnr, plan,
        settled.corrections, settled.roundings, narrowing=narrowing,
    )  # fmt: skip
