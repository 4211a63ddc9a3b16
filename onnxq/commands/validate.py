"""Compare quantized models with the float one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.commands.inputs import as_source, require_same_preprocessing
from onnxq.data.source import DataSource
from onnxq.errors import UsageError
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel
from onnxq.model.session import libraries_in_use
from onnxq.options.validate import ValidateOptions
from onnxq.progress import Progress
from onnxq.quantization.details import recorded_preprocessing
from onnxq.shown import Shown
from onnxq.validation.compare import Comparison, Row, compare
from onnxq.validation.gates import Gate, check_gates
from onnxq.validation.layers import LayerReport, measure_layers
from onnxq.validation.metrics import METRICS, metric_named

DEFAULT_METRICS = ("top1", "sqnr", "cosine")
"""Those of them that need labels only where the data have some."""


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """Metrics by model and execution, the float model first, and the gates.

    Attributes:
        note: what a reader must know of the data.
        layers: the layers of each quantized model, where they were asked for.
    """

    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    samples: int
    note: str
    layers: tuple[LayerReport, ...] = ()

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


def validate(
    float_model: Model, models: Sequence[Model], options: ValidateOptions, progress: Progress
) -> Validation:
    """Measure all models on the same samples; see `onnxq.api.validate`."""
    source = as_source(
        options.data,
        float_model,
        preprocess=options.preprocess,
        samples=options.samples,
        classes=options.classes,
    )
    for model in models:
        require_same_preprocessing(recorded_preprocessing(model), source, model.name)
    names = options.metrics or _default_metrics(source)
    gated = metric_named(names[0])
    for name in names[1:]:
        metric_named(name)
    relative = options.min_accuracy is not None and not gated.needs_labels
    if not models and (options.max_drop is not None or relative):
        raise UsageError("the gates have nothing to check", hint="name a quantized model")
    every = (float_model, *models)
    comparison = Comparison(
        tuple(map(PortableModel.of, every)) if options.dask else (),
        names,
        tuple(execution.value for execution in options.executions),
        options.batch_size,
        libraries_in_use(),
    )
    rows, count = compare(every, source, comparison, dask=options.dask, progress=progress)
    gates = check_gates(rows, gated, max_drop=options.max_drop, min_accuracy=options.min_accuracy)
    reports = [
        measure_layers(float_model, model, source, batch_size=options.batch_size, progress=progress)
        for model in (models if options.layers else ())
    ]
    return Validation(rows, gates, count, source.note, tuple(reports))


def _default_metrics(source: DataSource) -> tuple[str, ...]:
    return tuple(
        name for name in DEFAULT_METRICS if source.has_labels or not METRICS[name].needs_labels
    )
