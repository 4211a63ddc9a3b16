"""The search for layers to keep in float, by what `validate` measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnxq.commands.costliest import Made, candidate, ranked_layers
from onnxq.commands.validate import Validation, validate
from onnxq.data.budget import Limits
from onnxq.data.source import DataSource
from onnxq.model.model import Model
from onnxq.options.validate import ValidateOptions
from onnxq.quantization import quantize as stage
from onnxq.quantization.request import Request
from onnxq.quantization.search import (
    Bounds,
    Candidate,
    Criterion,
    Measurement,
    Trial,
    search,
)

RANKING_SAMPLES = 32
"""Samples on which the search for layers to keep in float ranks them."""


def keep_in_float(
    model: Model,
    request: Request,
    made: Made,
    source: DataSource,
    max_drop: float,
    bounds: Bounds,
    limits: Limits,
) -> Made:
    """The quantized model with as few layers in float as hold the gate, and the record of it.

    Args:
        model: the float model, as it was given.
        request: for `made`, which has all layers quantized.
        source: samples to measure on.
        max_drop: how far the first metric may fall.
        limits: what may run at once.
    """
    options = ValidateOptions(
        data=source, outputs=request.outputs, max_drop=max_drop,
        batch_size=limits.exactly or limits.batch_size, memory=limits.memory,
    )  # fmt: skip

    def measure(trial: Model) -> Validation:
        return validate(model, [trial], options, request.progress)

    def tried(made: Made, validation: Validation) -> Trial[Made]:
        gate, row = validation.gates[0], validation.rows[1]
        return Trial(made, Measurement(next(iter(row.values.values())), gate.value, gate.passed))

    def attempt(keep: Mapping[str, str]) -> Trial[Made]:
        other = stage.quantize(replace(request, again=made[1], keep=keep))
        return tried(other, measure(other[0]))

    first = measure(made[0])
    (metric, value), gate = next(iter(first.rows[0].values.items())), first.gates[0]
    criterion = Criterion(
        metric, first.rows[0].units[metric], value, max_drop, gate.unit, first.samples
    )
    (best, record), found = search(
        criterion,
        tried(made, first),
        lambda: _ranked(request, made, source, limits),
        attempt,
        bounds,
    )
    return best, replace(record, search=found)


def _ranked(request: Request, made: Made, source: DataSource, limits: Limits) -> list[Candidate]:
    """The layers that can stay in float, the most harmful first."""
    _, result = made
    return [
        candidate(layer, result)
        for layer in ranked_layers(request, made, source, RANKING_SAMPLES, limits)
        if layer.name in result.plan.weighted or layer.op_type in request.target.residual
    ]
