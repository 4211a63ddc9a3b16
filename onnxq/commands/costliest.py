"""Which layers cost most, where the quantized model came out badly."""

from __future__ import annotations

from onnxq.data.source import DataSource
from onnxq.errors import DataError, ModelError
from onnxq.model.model import Model
from onnxq.quantization.quantize import LOW_SQNR, QuantizationResult, Request
from onnxq.quantization.search import Candidate
from onnxq.validation.layers import measure_layers

NAMED = 3
"""Layers that are named."""

PROBES = 8
"""Samples that they are found on."""


def costliest(
    request: Request, quantized: Model, result: QuantizationResult, source: DataSource | None
) -> tuple[Candidate, ...]:
    """The layers with the largest shares of the error; () where it is small or they are unknown."""
    if source is None or not result.quantized_sqnr < LOW_SQNR:
        return ()
    try:
        report = measure_layers(
            result.prepared.model,
            quantized,
            source,
            outputs=request.outputs,
            probes=PROBES,
            whole=False,
            progress=request.progress,
        )
    except (DataError, ModelError):
        # The quantized model is good all the same; `validate --layers` says what is in the way.
        return ()
    return tuple(
        Candidate(layer.name, layer.share, layer.name in result.plan.weighted)
        for layer in report.layers[:NAMED]
        if layer.share > 0
    )
