"""Find out what kind of data a path, or a value, is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxq.data.arrays import IN_MEMORY, open_arrays
from onnxq.data.axes import find_axes
from onnxq.data.batching import BatchAxes
from onnxq.data.feed_folders import is_model_zoo, npz_files, open_feeds
from onnxq.data.fitted import FittedSource, run_singly
from onnxq.data.folders import find_images, spread
from onnxq.data.functions import FileFunction, FunctionSource, parse_function
from onnxq.data.hdf5 import hdf5_columns
from onnxq.data.images import open_images
from onnxq.data.layout_by_run import layout_by_run
from onnxq.data.masks import find_mask
from onnxq.data.preprocess import Preprocessing
from onnxq.data.python_values import (
    Transform,
    is_transform,
    open_handed,
    open_values,
    refuse_preprocessing,
)
from onnxq.data.random import PREFIX, open_random
from onnxq.data.sizes import Shapes
from onnxq.data.source import DataSource
from onnxq.data.states import States, StreamedSource
from onnxq.data.storage import Column, npy_column, npz_columns
from onnxq.data.tables import is_dataset, open_table
from onnxq.data.tar import open_tar
from onnxq.data.texts import open_texts, parse_texts
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.model.portable import PortableModel
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.classes import Classes
    from onnxq.model.model import Model, TensorSpec

KINDS = (
    "data are an .npz, .npy, .h5, .parquet or .tar file, texts in a .txt, .jsonl or .parquet file, "
    "a folder of images, of class folders or of .npz files, a folder of test_data_set_*, a Hugging "
    "Face dataset on disk, file.py:function, or random:N"
)
"""What a hint says about `--data`."""

Columns = Callable[[Path], Mapping[str, Column]]

ARRAYS: Mapping[str, Columns] = MappingProxyType(
    {
        ".npz": npz_columns,
        ".npy": lambda path: {path.stem: npy_column(path)},
        ".h5": hdf5_columns,
        ".hdf5": hdf5_columns,
    }
)
"""Files of one array for each input."""

RECORDS: Mapping[str, Callable[..., DataSource]] = MappingProxyType(
    {".tar": open_tar, ".parquet": open_table}
)
"""Files that may hold images, and then take preprocessing."""


def open_data(
    spec: Any,
    inputs: Sequence[TensorSpec],
    *,
    model: Model | None = None,
    preprocessing: Preprocessing | Transform | None = None,
    samples: int | None = None,
    seed: int = 0,
    nonfinite: Collection[str] | None = frozenset(),
    states: States = MappingProxyType({}),
    shapes: Shapes = MappingProxyType({}),
    classes: Classes | None = None,
    mask: str | None = None,
    tokenizer: Path | None = None,
) -> DataSource:
    """Open the data a user named, or handed over, for a model with these inputs.

    Args:
        spec: a path, "random:N", one array for a one-input model, arrays by input name
            (and "labels"), or what `onnxq.data.handed` knows.
        inputs: what the model must be fed.
        model: with it, its outputs help to tell which axes count samples, it is run to see
            whether it takes batches, and to find sizes for random samples.
        preprocessing: how images become arrays; only images take one. Or a function that makes
            feeds of images, or of what is handed over.
        samples: use no more than so many samples: the first ones, of images spread over classes.
        seed: of `random:N`.
        nonfinite: inputs that may hold NaN and Inf; None for all.
        states: input → the output of the step before that it takes; needs the model.
        shapes: of `random:N`, input → shape.
        classes: the model's, of which a folder of class folders may have a part.
        mask: the input that says which positions count; see `find_mask`.
        tokenizer: the tokenizer.json that makes texts samples.

    Raises:
        DataError: the data are missing, unreadable, of unknown kind, or do not fit the model.
        ModelError: the model has no inputs.
        UsageError: an argument makes no sense for these data.
    """
    if not inputs:
        raise ModelError("the model has no inputs to feed")
    if samples is not None and samples < 1:
        raise UsageError(f"the number of samples must be at least 1, not {samples}")
    axes = find_axes(inputs, () if model is None else model.outputs)
    kept = frozenset(states)
    random = isinstance(spec, str) and spec.startswith(PREFIX)
    texts = _texts(spec, tokenizer)
    if random:
        refuse_preprocessing(preprocessing, str(spec))
        fed = [item for item in inputs if item.name not in states]
        source: DataSource = open_random(
            str(spec), fed, axes, model=model, samples=samples, seed=seed, shapes=shapes
        )
    elif shapes:
        raise UsageError("--input-shape is for random samples", hint="leave it out")
    elif texts is not None:
        refuse_preprocessing(preprocessing, str(spec))
        source = open_texts(texts, str(spec), inputs, axes, tokenizer=tokenizer, samples=samples)
    else:
        if isinstance(preprocessing, Preprocessing) and model is not None:
            preprocessing = layout_by_run(preprocessing, inputs, model)
        source = _opened(spec, inputs, axes, preprocessing, samples, kept, classes)
    if states and model is not None:
        if source.axes.fixed not in {None, 1}:
            raise UsageError(f"--state needs a model of batch size 1, not {source.axes.fixed}")
        source = StreamedSource(source, PortableModel.of(model), tuple(inputs), states)
    singly = None if model is None else run_singly(source, model)
    return FittedSource(source, nonfinite, singly, find_mask(mask, inputs, source.axes))


def _texts(spec: Any, tokenizer: Path | None) -> tuple[Path, str] | None:
    """The file and field of texts that were named; None for other data.

    Raises:
        DataError: there is no such file.
        UsageError: a tokenizer for data that are no texts.
    """
    named = isinstance(spec, (str, Path))
    found = parse_texts(str(spec), tokenized=tokenizer is not None) if named else None
    if found is not None:
        _existing(str(found[0]))
    elif tokenizer is not None:
        what = str(spec) if named else IN_MEMORY
        raise UsageError(
            f"{what} takes no tokenizer: only texts do",
            hint="leave --tokenizer out, or give a .txt, .jsonl or .parquet file",
        )
    return found


def _opened(
    spec: Any,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    preprocessing: Preprocessing | Transform | None,
    samples: int | None,
    optional: Collection[str],
    classes: Classes | None,
) -> DataSource:
    """The data as they lie there; those that may hold images take preprocessing."""
    if not isinstance(spec, (str, Path)):
        return open_values(
            spec, inputs, axes,
            preprocessing=preprocessing, samples=samples, optional=optional,
        )  # fmt: skip
    text = str(spec)
    function = parse_function(text)
    if function is not None:
        refuse_preprocessing(preprocessing, text)
        items = FileFunction(*function)
        return FunctionSource(text, tuple(inputs), axes, items, samples, optional)
    path = _existing(text)
    feeds = path.is_dir() and (is_model_zoo(path) or bool(npz_files(path)))
    read = ARRAYS.get(path.suffix.lower())
    if feeds and not is_dataset(path):
        refuse_preprocessing(preprocessing, text)
        return open_feeds(path, text, inputs, axes, samples=samples, optional=optional)
    if read is not None and not path.is_dir():
        refuse_preprocessing(preprocessing, text)
        return open_arrays(read(path), text, inputs, axes, samples=samples, optional=optional)
    if path.is_dir() and not is_dataset(path) and is_transform(preprocessing):
        found, doubt = find_images(path, classes)
        files = found if samples is None else spread(found, samples)
        fed = open_handed(
            files, inputs, axes, transform=preprocessing, optional=optional, spec=text
        )
        return replace(fed, doubt=doubt)
    if is_transform(preprocessing):
        raise UsageError(
            f"{text}: preprocess is a function, which a folder of images and what Python programs "
            "hold take",
            hint="load the samples in Python, and give them as data",
        )
    opener = RECORDS.get(path.suffix.lower())
    if path.is_dir():
        opener = open_table if is_dataset(path) else functools.partial(open_images, classes=classes)
    if opener is None:
        raise DataError(f"{text} is no data file onnxq knows", hint=KINDS)
    needed = [item for item in inputs if item.name not in optional]
    source = opener(path, text, needed, axes, preprocessing=preprocessing, samples=samples)
    if source.preprocessing is None:
        refuse_preprocessing(preprocessing, text)
    return source


def _existing(text: str) -> Path:
    path = Path(text)
    try:
        if text and path.exists():
            return path
        near = suggest(path.name, (each.name for each in path.parent.iterdir()))
    except OSError:  # no such parent folder, a name too long, no permission
        near = ""
    raise DataError(f"there are no data at {text!r}", hint=near or KINDS)
