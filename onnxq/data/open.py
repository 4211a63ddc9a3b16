"""Find out what kind of data a path, or a value, is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.arrays import IN_MEMORY, open_hdf5, open_memory, open_npy, open_npz
from onnxq.data.functions import FunctionSource, parse_function
from onnxq.data.images import open_images
from onnxq.data.model_zoo import is_model_zoo, open_model_zoo
from onnxq.data.random import PREFIX, open_random
from onnxq.data.source import Array, DataSource, fixed_batch
from onnxq.data.tables import is_dataset, open_table
from onnxq.data.tar import open_tar
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.classes import Classes
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

KINDS = (
    "data are an .npz, .npy, .h5, .parquet or .tar file, a folder of images or of class folders, a "
    "folder of test_data_set_*, a Hugging Face dataset on disk, file.py:function, or random:N"
)
"""What a hint says about `--data`."""

FILES: Mapping[str, Callable[..., DataSource]] = MappingProxyType(
    {".npz": open_npz, ".npy": open_npy, ".h5": open_hdf5, ".hdf5": open_hdf5}
)

RECORDS: Mapping[str, Callable[..., DataSource]] = MappingProxyType(
    {".tar": open_tar, ".parquet": open_table}
)
"""Files that may hold images, and then take preprocessing."""


def open_data(
    spec: str | Path | Array | Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    *,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    seed: int = 0,
    allow_nonfinite: bool = False,
    classes: Classes | None = None,
) -> DataSource:
    """Open the data a user named, or handed over, for a model with these inputs.

    Args:
        spec: a path, "random:N", one array for a one-input model, or arrays by input name
            (and "labels").
        inputs: what the model must be fed.
        preprocessing: how images become arrays; only images take one.
        samples: use no more than so many samples: the first ones, of images spread over classes.
        seed: of `random:N`.
        allow_nonfinite: pass NaN and Inf on instead of refusing them.
        classes: the model's, of which a folder of class folders may have a part.

    Raises:
        DataError: the data are missing, unreadable, of unknown kind, or do not fit the model.
        ModelError: the model has no inputs, or none with a common batch axis.
        UsageError: an argument makes no sense for these data.
    """
    if not inputs:
        raise ModelError("the model has no inputs to feed")
    fixed_batch(inputs)
    if samples is not None and samples < 1:
        raise UsageError(f"the number of samples must be at least 1, not {samples}")
    if isinstance(spec, (Mapping, np.ndarray)):
        _refuse_preprocessing(preprocessing, IN_MEMORY)
        return open_memory(spec, inputs, samples=samples, allow_nonfinite=allow_nonfinite)
    text = str(spec)
    if text.startswith(PREFIX):
        _refuse_preprocessing(preprocessing, text)
        return open_random(text, inputs, samples=samples, seed=seed)
    function = parse_function(text)
    if function is not None:
        _refuse_preprocessing(preprocessing, text)
        return FunctionSource(text, tuple(inputs), *function, samples, allow_nonfinite)
    path = _existing(text)
    options: dict[str, Any] = {"samples": samples, "allow_nonfinite": allow_nonfinite}
    with_images = RECORDS.get(path.suffix.lower())
    if path.is_dir() and is_dataset(path):
        with_images = open_table
    elif path.is_dir() and not is_model_zoo(path):
        with_images = functools.partial(open_images, classes=classes)
    if with_images is None:
        _refuse_preprocessing(preprocessing, text)
        return _array_opener(path, text)(path, text, inputs, **options)
    source = with_images(path, text, inputs, preprocessing=preprocessing, **options)
    if source.preprocessing is None:
        _refuse_preprocessing(preprocessing, text)
    return source


def _array_opener(path: Path, text: str) -> Callable[..., DataSource]:
    """What opens data that hold no images."""
    opener = open_model_zoo if path.is_dir() else FILES.get(path.suffix.lower())
    if opener is None:
        raise DataError(f"{text} is no data file onnxq knows", hint=KINDS)
    return opener


def _refuse_preprocessing(preprocessing: Preprocessing | None, text: str) -> None:
    if preprocessing is not None:
        raise UsageError(
            f"{text} takes no preprocessing: only images do",
            hint="leave it out; arrays are fed as they are",
        )


def _existing(text: str) -> Path:
    path = Path(text)
    try:
        if text and path.exists():
            return path
        near = suggest(path.name, (each.name for each in path.parent.iterdir()))
    except OSError:  # no such parent folder, a name too long, no permission
        near = ""
    raise DataError(f"there are no data at {text!r}", hint=near or KINDS)
