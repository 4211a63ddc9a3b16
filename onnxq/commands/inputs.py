"""What users hand over, as values: models, data, calibrations, or the paths of any of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.calibration import files as calibration_files
from onnxq.calibration.not_finite import harmless_inputs
from onnxq.calibration.statistics import Calibration
from onnxq.data import DataSource, Preprocessing, open_data
from onnxq.data.classes import Classes
from onnxq.data.python_values import require_shareable
from onnxq.data.sizes import parse_shapes
from onnxq.data.states import parse_states
from onnxq.errors import DataError, UsageError
from onnxq.model import files as model_files
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.trials import run_trials
from onnxq.options.fields import Options, options_of
from onnxq.options.values import path_of
from onnxq.quantization.details import recorded_preprocessing

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
ModelLike = Model | PathLike | ModelProto | bytes
"""A model, its file, its protocol buffer, or what lies in its file."""

Models = Sequence[ModelLike] | ModelLike
Data = PathLike | Array | Mapping[str, Array] | DataSource | Iterable[Any] | Callable[[], Any] | Any
"""Samples: see `onnxq.data.open` and `onnxq.data.handed`."""

Preprocess = str | Mapping[str, Any] | Preprocessing | Callable[[Any], Any]
"""How images become inputs, or a function from what the data yield to feeds."""


def as_model(model: ModelLike) -> Model:
    """Accept a model in any form.

    Raises:
        ModelError: it is refused.
        UsageError: it is nothing of the kind.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, os.PathLike)):
        return model_files.load(path_of(model, "model"))
    if isinstance(model, (bytes, ModelProto)):
        return model_files.read(model)
    raise UsageError(
        f"a model must be a path, an onnxq.Model, an onnx.ModelProto or the bytes of a file, "
        f"not {type(model).__name__}"
    )


def as_models(models: Models) -> list[Model]:
    """Accept models in any form, or one."""
    one = isinstance(models, (Model, str, os.PathLike, bytes, ModelProto))
    if one or not isinstance(models, Iterable):
        return [as_model(cast("ModelLike", models))]
    return [as_model(cast("ModelLike", each)) for each in models]


def as_preprocessing(given: Preprocess | None) -> Preprocessing | Callable[[Any], Any] | None:
    """Read text, and configurations of other tools; a function stays one."""
    if isinstance(given, str):
        return Preprocessing.parse(given)
    return Preprocessing.of(given) if isinstance(given, Mapping) else given


def as_source(
    data: Data,
    model: Model,
    *,
    preprocess: Preprocess | None = None,
    samples: int | None = None,
    allow_nonfinite: bool = False,
    classes: Sequence[str] | PathLike | None = None,
    states: Sequence[str] = (),
    input_shapes: Sequence[str] = (),
    mask: str | None = None,
    tokenizer: PathLike | None = None,
) -> DataSource:
    """Open data for a model; a `DataSource` passes through.

    Args:
        allow_nonfinite: pass NaN and Inf on; without it only where float operators alone read them.
        states: "OUT=IN" for each state of a streaming model, see `onnxq.data.states`.
        input_shapes: "NAME:1x3x320x320", sizes for random samples where the model has none.
        classes: names of the model's classes in its order, or a file of them: what class folders
            are called.
        mask: the input that says which positions count, "none" for none; see `onnxq.data.masks`.
        tokenizer: the tokenizer.json that makes texts samples.
    """
    if hasattr(data, "batches") and hasattr(data, "sample_name"):
        return cast("DataSource", data)
    parsed = as_preprocessing(preprocess)
    spec = Path(data) if isinstance(data, os.PathLike) else data
    return open_data(
        spec,
        model.inputs,
        model=model,
        preprocessing=parsed,
        samples=samples,
        nonfinite=None if allow_nonfinite else harmless_inputs(Graph(model)),
        states=parse_states(states, model),
        shapes=parse_shapes(input_shapes, model.inputs),
        classes=_classes(model, spec, classes),
        mask=mask,
        tokenizer=None if tokenizer is None else Path(tokenizer),
    )


def _classes(model: Model, spec: object, names: Sequence[str] | PathLike | None) -> Classes:
    """What is known of the model's classes.

    Class folders need their number: where the model does not declare it, running it tells.
    """
    known = Classes.of(model.outputs, names)
    unsaid = known.count is None and isinstance(spec, (str, Path)) and Path(spec).is_dir()
    scores = model.outputs[0] if model.outputs else None
    if not unsaid or scores is None or (scores.shape is not None and len(scores.shape) != 2):
        return known
    # An output may be no tensor but a sequence.
    runs = run_trials(model, [scores.name])
    shapes = [values[scores.name].shape for values in runs if scores.name in values]
    if len({shape[1:] for shape in shapes}) != 1:
        return known
    seen = replace(scores, shape=(None, *shapes[0][1:]))
    return Classes(Classes.of([seen]).count, known.names)


_READING = (
    "data", "preprocess", "samples", "allow_nonfinite", "classes", "states", "input_shapes", "mask",
    "tokenizer",
)  # fmt: skip
"""Options that say which data, and how they are read; a command has some of them."""


def source_of(options: Options, model: Model, **instead: Any) -> DataSource:
    """The data of a command, read as its options say.

    Args:
        instead: values of `as_source` that are not the options'.
    """
    said = {name: getattr(options, name) for name in _READING if name in options_of(type(options))}
    said |= instead
    if getattr(options, "dask", None) is not None:
        require_shareable(said["data"], said.get("preprocess"))
    return as_source(model=model, **said)


def as_calibration(calibration: Calibration | PathLike, model: Model) -> Calibration:
    """Load if need be; refuse the calibration of another model."""
    named = "the calibration"
    if not isinstance(calibration, Calibration):
        named = str(calibration)
        calibration = calibration_files.load(Path(calibration))
    if calibration.provenance.model != model.fingerprint:
        raise DataError(
            f"{named} was made for another model than {model.name}",
            hint="run onnxq calibrate on this model",
        )
    return calibration


def require_same_preprocessing(expected: str, source: DataSource | None, what: str) -> None:
    """Raise `DataError` where data are preprocessed otherwise than `what`, as far as both say."""
    given = str(source.preprocessing) if source and source.preprocessing else ""
    if source is not None and given and expected and given != expected:
        raise DataError(
            f"{source.spec}: preprocessed as {given!r}, but {what} used {expected!r}",
            hint="use the same --preprocess, or --tokenizer",
        )


def source_for(quantized: Model, options: Options) -> DataSource:
    """`source_of`, preprocessed as the data that the model was quantized with."""
    source = source_of(options, quantized)
    require_same_preprocessing(recorded_preprocessing(quantized), source, quantized.name)
    return source
