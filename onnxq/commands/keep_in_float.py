"""The search for layers to raise, or to keep in float, by what `validate` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxq.commands.costliest import RANKING_SAMPLES, Made, candidates, ranked_layers
from onnxq.commands.inputs import as_source
from onnxq.commands.validate import UNLABELLED, Validation, validate
from onnxq.data.budget import Limits
from onnxq.data.source import DataSource
from onnxq.model.model import Model
from onnxq.options.quantize import QuantizeOptions
from onnxq.options.shared import Provider
from onnxq.options.validate import ValidateOptions
from onnxq.quantization import quantize as stage
from onnxq.quantization.request import Request
from onnxq.quantization.search import (
    FLOAT,
    Bounds,
    Candidate,
    Criterion,
    Measurement,
    Trial,
    search,
)
from onnxq.validation.interface import require_float_output


def keep_in_float(
    model: Model,
    request: Request,
    made: Made,
    source: DataSource,
    max_drop: float,
    bounds: Bounds,
    limits: Limits,
) -> Made:
    """The quantized model with as few layers raised as hold the gate, and the record of it.

    Args:
        model: the float model, as it was given.
        request: for `made`, which has no layer raised that the request has not.
        source: samples to measure on.
        max_drop: how far the first metric may fall.
        limits: what may run at once.
    """
    options = ValidateOptions(
        data=source, outputs=request.outputs, max_drop=max_drop,
        batch_size=limits.exactly or limits.batch_size, memory=limits.memory,
        provider=Provider(request.batching.base.provider),
    )  # fmt: skip

    def measure(trial: Model) -> Validation:
        return validate(model, [trial], options, request.progress)

    def tried(made: Made, validation: Validation) -> Trial[Made]:
        gate, row = validation.gates[0], validation.rows[1]
        return Trial(made, Measurement(next(iter(row.values.values())), gate.value, gate.passed))

    def attempt(layers: Sequence[Candidate]) -> Trial[Made]:
        again = replace(request, again=made[1]).raised(layers, "--max-drop")
        other = stage.quantize(again)
        return tried(other, measure(other[0]))

    first = measure(made[0])
    (metric, value), gate = next(iter(first.rows[0].values.items())), first.gates[0]
    criterion = Criterion(
        metric, first.rows[0].units[metric], value, max_drop, gate.unit, first.samples
    )
    (best, record), found = search(
        criterion,
        tried(made, first),
        lambda: _steps(request, made, source, limits),
        attempt,
        bounds,
    )
    return best, replace(record, search=found, mixed=made[1].mixed)


def source_of_gate(model: Model, options: QuantizeOptions) -> DataSource:
    """The samples that `max_drop` is held on.

    Raises:
        UsageError: nothing of what the model gives can decide there.
    """
    found = as_source(
        options.validate_data, model, preprocess=options.preprocess,
        allow_nonfinite=options.allow_nonfinite, states=options.states, mask=options.mask,
        tokenizer=options.tokenizer,
    )  # fmt: skip
    if not found.has_labels:
        require_float_output(
            model, options.outputs, UNLABELLED[0],
            "give --validate-data with labels, or let onnxq tune decide by another --metric",
        )  # fmt: skip
    return found


def _steps(request: Request, made: Made, source: DataSource, limits: Limits) -> list[Candidate]:
    """What to raise: each layer to wider activations where there are some, then each to float."""
    wider = request.scheme.wider if request.scheme.static is not None else None
    ranked = ranked_layers(request, made, source, RANKING_SAMPLES, limits)
    floats = candidates(request, made, ranked, FLOAT)
    if wider is None:
        return floats
    first = candidates(request, made, ranked, wider.name)
    return [*(each for each in first if each.node not in request.wider), *floats]
