"""Which layers of a quantized model cost most."""

from __future__ import annotations

from onnxq.data.budget import Limits
from onnxq.data.source import DataSource
from onnxq.errors import DataError, ModelError
from onnxq.model.model import Model
from onnxq.quantization.request import LOW_SQNR, QuantizationResult, Request
from onnxq.quantization.search import FLOAT, Candidate
from onnxq.validation.layers import LayerError, measure_layers

Made = tuple[Model, QuantizationResult]
"""A quantized model and its record."""

NAMED = 3
"""Layers that are named."""

PROBES = 8
"""Samples that they are found on."""

RANKING_SAMPLES = 32
"""Samples on which layers are ranked that are to be raised."""


def ranked_layers(
    request: Request, made: Made, source: DataSource, probes: int, limits: Limits
) -> tuple[LayerError, ...]:
    """The layers, the most harmful first, found on so many samples."""
    quantized, result = made
    return measure_layers(
        result.prepared.model,
        quantized,
        source,
        outputs=request.outputs,
        probes=probes,
        whole=False,
        limits=limits,
        progress=request.progress,
    ).layers


def candidate(layer: LayerError, result: QuantizationResult, becomes: str = FLOAT) -> Candidate:
    return Candidate(layer.name, layer.share, layer.name in result.plan.weighted, becomes)


def ranked(
    request: Request, made: Made, source: DataSource, limits: Limits, becomes: str
) -> list[Candidate]:
    """The layers that can become that, the most harmful first."""
    result = made[1]
    return [
        candidate(layer, result, becomes)
        for layer in ranked_layers(request, made, source, RANKING_SAMPLES, limits)
        if becomes != FLOAT
        or layer.name in result.plan.weighted
        or layer.op_type in request.target.residual
    ]


def costliest(
    request: Request, made: Made, source: DataSource | None, limits: Limits
) -> tuple[Candidate, ...]:
    """The layers with the largest shares of the error; () where it is small or they are unknown."""
    if source is None or not made[1].quantized_sqnr < LOW_SQNR:
        return ()
    try:
        layers = ranked_layers(request, made, source, PROBES, limits)
    except (DataError, ModelError):
        # The quantized model is good all the same; `validate --layers` says what is in the way.
        return ()
    return tuple(candidate(layer, made[1]) for layer in layers[:NAMED] if layer.share > 0)
