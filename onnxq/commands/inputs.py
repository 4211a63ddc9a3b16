"""What users hand over, as values: models, data, calibrations, or the paths of any of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import files as calibration_files
from onnxq.calibration.not_finite import harmless_inputs
from onnxq.calibration.statistics import Calibration
from onnxq.data import DataSource, Preprocessing, open_data
from onnxq.data.classes import Classes
from onnxq.data.sizes import parse_shapes
from onnxq.data.states import parse_states
from onnxq.errors import DataError
from onnxq.model import files as model_files
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.trials import run_trials
from onnxq.options.fields import Options, options_of
from onnxq.quantization.details import recorded_preprocessing

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
Models = Sequence[Model | PathLike] | Model | PathLike
Data = PathLike | Array | Mapping[str, Array] | DataSource


def as_model(model: Model | PathLike) -> Model:
    """Accept a model or its path."""
    return model if isinstance(model, Model) else model_files.load(model)


def as_models(models: Models) -> list[Model]:
    """Accept models or their paths, or one of either."""
    if isinstance(models, (Model, str, os.PathLike)):
        return [as_model(models)]
    return [as_model(each) for each in models]


def as_source(
    data: Data,
    model: Model,
    *,
    preprocess: str | Preprocessing | None = None,
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
    if not isinstance(data, (str, os.PathLike, np.ndarray, Mapping)):
        return data
    parsed = Preprocessing.parse(preprocess) if isinstance(preprocess, str) else preprocess
    spec = data if isinstance(data, (str, np.ndarray, Mapping)) else Path(data)
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
    return as_source(model=model, **(said | instead))


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
