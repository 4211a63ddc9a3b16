"""What to quantize, how, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from onnxq.calibration.statistics import Calibration
from onnxq.closeness import OutputCloseness, worst
from onnxq.data.budget import WHOLE, Batching
from onnxq.data.sizes import Shapes
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.equalization.centering import Centering
from onnxq.equalization.equalize import Equalization
from onnxq.equalization.prepare import Prepared
from onnxq.formats.scheme import Scheme
from onnxq.model.model import Model
from onnxq.model.narrow import Narrowing
from onnxq.model.normalize import Normalization
from onnxq.options.effort import USUAL, Effort
from onnxq.progress import Progress
from onnxq.quantization.account import Account
from onnxq.quantization.clipping import Clipped
from onnxq.quantization.correct import BiasCorrection
from onnxq.quantization.interface import IntegerInterface
from onnxq.quantization.plan import QuantizationOptions, QuantizationPlan
from onnxq.quantization.rounding import Rounding
from onnxq.quantization.samples import MeasuredOn, Samples
from onnxq.quantization.search import FLOAT, Candidate, Mixed, Search
from onnxq.quantization.shares import Uneven
from onnxq.quantization.weighed import Weighed
from onnxq.shown import Shown
from onnxq.targets import Target

LOW_SQNR = 20.0
"""dB below which a quantized model is hardly of use: the error is a tenth of the outputs."""


@dataclass(frozen=True, repr=False)
class QuantizationResult(Shown):
    """What `quantize` did.

    Attributes:
        normalization: batch norms folded, constants computed.
        prepared: the float model that was quantized, and how it came about.
        relu6_reason: why saturating Clips were treated as they were.
        float_sqnr: float model after against before equalization, dB: of the worst output, or
            group of slices in one; inf where identical, NaN where not measured.
        quantized_sqnr: quantized against float model, dB on the same samples.
        closeness: the same, each output; () where not measured.
        measured_on: the samples of both: held out, or where they are few those that the model was
            made with; None where not measured.
        costliest: the layers with the largest shares of the error, where `quantized_sqnr` is below
            `LOW_SQNR`; () where it is not, or they are not known.
        plan: every node and tensor.
        clipped: tensors whose ranges leave out values that matter.
        ranges: why the ranges are what they are, where gradients told; the costliest first.
        interface: inputs and outputs that are integers; None where nobody asked.
        uneven: tensors that have one scale with others whose values are far larger.
        corrections: what bias correction did to each layer.
        roundings: what adaptive rounding did to each layer.
        search: what the search for layers to raise did; None where none was asked for.
        mixed: what sparing the worst layers did; None where it was not asked for.
        narrowing: what became of the float remainder; None where it was to stay float32.
        account: size, share of the arithmetic in integers, speed; None until the model is final.
    """

    normalization: Normalization
    prepared: Prepared
    relu6_reason: str
    float_sqnr: float
    quantized_sqnr: float
    plan: QuantizationPlan
    corrections: tuple[BiasCorrection, ...]
    roundings: tuple[Rounding, ...] = ()
    search: Search | None = None
    mixed: Mixed | None = None
    narrowing: Narrowing | None = None
    measured_on: MeasuredOn | None = None
    costliest: tuple[Candidate, ...] = ()
    closeness: tuple[OutputCloseness, ...] = ()
    uneven: tuple[Uneven, ...] = ()
    clipped: tuple[Clipped, ...] = ()
    ranges: tuple[Weighed, ...] = ()
    account: Account | None = None
    interface: IntegerInterface | None = None

    @property
    def quantized_sqnr_error(self) -> float:
        """Standard error of `quantized_sqnr`, dB; NaN where it cannot be told."""
        part = worst(self.closeness, lambda each: each.sqnr)
        return math.nan if part is None else part.sqnr_error

    @property
    def equalization(self) -> Equalization | None:
        """What equalization did; None where it was not asked for."""
        return self.prepared.equalization

    @property
    def centering(self) -> Centering | None:
        """What was centered; None where it was not asked for."""
        return self.prepared.centering


@dataclass(frozen=True)
class Request:
    """What to quantize, how, and with what.

    Attributes:
        calibration: of `model`; None for a scheme that leaves activations in float.
        outputs: names of those that are measured, () for all.
        shapes: input → sizes for random samples, which prove where there are no others.
        batching: how samples run; the result does not depend on it.
        tokens: which axes count tokens, so that padding does not count.
        again: an earlier result for the same request; its equalization is used as it is.
        keep: node → why it stays in float.
        wider: nodes that compute with the wider scheme of theirs.
        effort: how much is tried.
    """

    model: Model
    normalization: Normalization
    calibration: Calibration | None
    samples: Samples | None
    target: Target
    options: QuantizationOptions
    equalize: bool
    center: bool
    correct: bool
    adaptive: bool
    progress: Progress
    outputs: tuple[str, ...] = ()
    shapes: Shapes = field(default_factory=dict)
    batching: Batching = WHOLE
    tokens: Tokens = NO_TOKENS
    again: QuantizationResult | None = None
    keep: Mapping[str, str] = field(default_factory=dict)
    wider: frozenset[str] = frozenset()
    effort: Effort = USUAL

    @property
    def scheme(self) -> Scheme:
        """What nodes are to compute with."""
        return self.options.scheme_on(self.target)

    def raised(self, layers: Iterable[Candidate], asked: str) -> Request:
        """The same with these layers raised, besides those that are; `asked` says by what."""
        layers = tuple(layers)
        floats = {each.node: each.why(asked) for each in layers if each.becomes == FLOAT}
        wider = self.wider.union(each.node for each in layers) - floats.keys()
        return replace(self, keep={**self.keep, **floats}, wider=wider)
