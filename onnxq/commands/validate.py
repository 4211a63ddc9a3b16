"""Compare quantized models with the float one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxq.commands.bench import Timing, bench
from onnxq.commands.budget import limits_for, one_sample
from onnxq.commands.inputs import require_same_preprocessing, source_of
from onnxq.commands.provider import runtime_of
from onnxq.data.budget import plan_batching
from onnxq.data.classes import as_class_names
from onnxq.data.labels import SampleLabels, open_labels, read_characters
from onnxq.data.source import DataSource
from onnxq.data.states import streamed
from onnxq.errors import ModelError, UsageError
from onnxq.model.already import counted, quantized_operators
from onnxq.model.files import infer_shapes
from onnxq.model.interface import with_float_interface
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel
from onnxq.model.session import libraries_in_use
from onnxq.model.static import open_inputs, with_shapes
from onnxq.options.bench import BenchOptions, Place
from onnxq.options.validate import ValidateOptions
from onnxq.progress import Progress
from onnxq.quantization.details import recorded_preprocessing
from onnxq.shown import Shown
from onnxq.validation.compare import Row, compare
from onnxq.validation.gates import Gate, check_gates
from onnxq.validation.interface import require_float_output
from onnxq.validation.kernels import RuntimeKernels, kernels_of
from onnxq.validation.layers import LayerReport, measure_layers
from onnxq.validation.metrics import (
    AnyMetric,
    MetricLike,
    Task,
    metrics_named,
    once,
    takes_classes,
    takes_numbers,
)
from onnxq.validation.terms import Comparison

UNLABELLED = ("sqnr", "cosine")
"""Metrics by default."""

LABELLED = ("top1", *UNLABELLED)
"""The same of data with labels."""

OWN_STATES = "each model on its own states"
"""Said of streaming models: a step goes on from what its model got wrong in the one before."""


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """Metrics by model and execution, the float model first, and the gates.

    Attributes:
        note: what a reader must know of the data.
        layers: the layers of each quantized model, where they were asked for.
        latency: how long the models take; None where nobody asked.
        kernels: what runtimes of their own make of the quantized models, for each that was asked
            for.
    """

    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    samples: int
    note: str
    layers: tuple[LayerReport, ...] = ()
    latency: Timing | None = None
    kernels: tuple[RuntimeKernels, ...] = ()

    @property
    def executions(self) -> int:
        """Rows of each quantized model, which follow each other."""
        return len({row.execution for row in self.rows[1:]}) or 1

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


def validate(
    float_model: Model, models: Sequence[Model], options: ValidateOptions, progress: Progress
) -> Validation:
    """Measure all models on the same samples; see `onnxq.api.validate`."""
    runtime = runtime_of(options)
    _require_order(float_model, models)
    models = list(map(with_float_interface, models))
    float_model = _of_their_shapes(float_model, models)
    source = opened(options, float_model)
    classes = _names(options)
    for model in models:
        require_same_preprocessing(recorded_preprocessing(model), source, model.name)
    names = _metrics(options, source)
    first = metrics_named(names, classes)[0]
    gated = options.max_drop is not None or options.min_accuracy is not None
    relative = options.max_drop is not None or not isinstance(first, Task)
    if gated and relative and not models:
        raise UsageError("the gates have nothing to check", hint="name a quantized model")
    if gated:
        require_deciding(float_model, options, first)
    every = (float_model, *models)
    sample = one_sample(infer_shapes(float_model), source, runtime=runtime)
    limits = limits_for(every, options.batch_size, options.memory)
    comparison = Comparison(
        tuple(map(PortableModel.of, every)) if options.dask else (),
        names,
        tuple(execution.value for execution in options.executions),
        plan_batching(sample, limits),
        libraries_in_use(),
        options.outputs,
        _truth(options, source, classes, names),
        classes,
        sample.tokens,
    )
    rows, count = compare(every, source, comparison, dask=options.dask, progress=progress)
    gates = check_gates(rows, first, max_drop=options.max_drop, min_accuracy=options.min_accuracy)
    reports = [
        measure_layers(
            float_model,
            model,
            source,
            outputs=options.outputs,
            limits=limits,
            largest=sample.largest,
            progress=progress,
        )
        for model in (models if options.layers else ())
    ]
    own = OWN_STATES if streamed(source) is not None and models else ""
    note = "; ".join(text for text in (source.note, own, _left_out(rows, source)) if text)
    ran = kernels_of(models, comparison.executions)
    timing = bench(every, _timed(options, source), progress) if options.latency else None
    return Validation(rows, gates, count, note, tuple(reports), timing, ran)


def opened(options: ValidateOptions, model: Model) -> DataSource:
    """The data of the options."""
    reads_texts = any(map(takes_classes, options.metrics or ()))
    return source_of(options, model, classes=None if reads_texts else options.classes)


def metrics_by_default(labels: Path | None, source: DataSource) -> tuple[str, ...]:
    """The metrics where none is named: labels, with the data or beside them, are there for use."""
    return LABELLED if source.has_labels or labels is not None else UNLABELLED


def first_metric(options: ValidateOptions, source: DataSource) -> AnyMetric:
    """What gates look at."""
    return metrics_named(_metrics(options, source), _names(options))[0]


def require_deciding(float_model: Model, options: ValidateOptions, first: AnyMetric) -> None:
    """Raise `UsageError` where the first metric has nothing to look at in the model's outputs."""
    if not isinstance(first, Task):
        require_float_output(float_model, options.outputs, first.name)


def _metrics(options: ValidateOptions, source: DataSource) -> tuple[MetricLike, ...]:
    return once(options.metrics or metrics_by_default(options.labels, source))


def _timed(options: ValidateOptions, source: DataSource) -> BenchOptions:
    """On the providers of the executions; what is emulated is meant for another machine."""
    known = {place.value: place for place in Place}
    places = [known.get(each.value, Place.CPU) for each in options.executions]
    return BenchOptions(data=source, providers=tuple(dict.fromkeys(places)))


def _of_their_shapes(float_model: Model, models: Sequence[Model]) -> Model:
    """The float model with the sizes that are fixed in the quantized ones and open in it.

    Where these differ it stays as it is.
    """
    found = {
        spec.name: {
            each.shape for model in models for each in model.inputs if each.name == spec.name
        }
        for spec in open_inputs(float_model)
    }
    fixed = {
        name: tuple(size for size in shape if isinstance(size, int))
        for name, shapes in found.items()
        if len(shapes) == 1 and (shape := next(iter(shapes))) is not None
        and all(isinstance(size, int) for size in shape)
    }  # fmt: skip
    return with_shapes(float_model, fixed) if fixed.keys() == found.keys() else float_model


def _left_out(rows: Sequence[Row], source: DataSource) -> str:
    """What share of the outputs is padding and was not compared; "" for nothing."""
    shares = [output.left_out for row in rows for output in row.outputs]
    most = max(shares, default=0.0)
    return f"outputs without the {most:.0f} % that {source.axes.mask!r} masks" if most else ""


def _require_order(float_model: Model, models: Sequence[Model]) -> None:
    """Raise `ModelError` where the model that the others are compared with is quantized itself."""
    found = quantized_operators(float_model)
    if not found or not models:
        return
    floats = [model.name for model in models if not quantized_operators(model)]
    says = f"{float_model.name}, named as the float model, is quantized ({counted(found)})"
    if floats:
        raise ModelError(
            f"{says}, and {floats[0]}, named as a quantized one, is float: they are swapped",
            hint="name the float model first",
        )
    raise ModelError(f"{says}, as all others are", hint="name the float model first")


def _names(options: ValidateOptions) -> tuple[str, ...]:
    """What `--classes` says: names of classes, or the characters of a model that writes texts."""
    given = options.classes
    if given is None:
        return ()
    if any(map(takes_classes, options.metrics or ())):
        return tuple(given) if isinstance(given, (list, tuple)) else read_characters(Path(given))
    return as_class_names(given).names


def _truth(
    options: ValidateOptions,
    source: DataSource,
    classes: tuple[str, ...],
    metrics: Sequence[MetricLike],
) -> SampleLabels | None:
    """The labels in a file of their own, each where its sample is; None without one.

    Raises:
        UsageError: a metric compares with numbers, and they are none.
    """
    if options.labels is None:
        return None
    if source.count is None:
        raise UsageError("--labels needs data whose samples are counted", hint="give --samples")
    names = [source.sample_name(index) for index in range(source.count)]
    # Digits in a text file are scores to one metric, and what is written in a picture to another.
    numbers = any(map(takes_numbers, metrics)) and not any(map(takes_classes, metrics))
    known = () if options.classes is None else classes
    found = open_labels(options.labels, known, numbers=numbers)
    if numbers and found.holds != "numbers":
        wanting = next(str(each) for each in metrics if takes_numbers(each))
        raise UsageError(
            f"{options.labels} holds {found.holds}, {wanting} compares with numbers",
            hint="name the metric that reads them, such as --metric map, miou or cer",
        )
    return found.match(names, getattr(source, "geometry", None))
