"""What a Python program has in its hands: iterables, functions, loaders, datasets, readers.

Known by what they can do, so none of their packages is needed:

- an iterable, such as a list, a `torch` DataLoader or a Hugging Face dataset, read from its
  beginning for each pass; an iterator, which can be read once, is kept in memory;
- a dataset with a length and an index, which is no iterable;
- a function without arguments that returns an iterable;
- a `CalibrationDataReader` of ONNX Runtime's: `get_next()`, and `rewind()` where it has that.

An item is a dict of arrays by input name, a tuple of one array an input and perhaps the label, an
array, an image of Pillow's, or the path of an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.functions import LABEL, Items
from onnxq.errors import UsageError
from onnxq.options.shared import DATA

if TYPE_CHECKING:
    from onnxq.model.model import TensorSpec

LABELS = (LABEL, "labels")
SHUFFLED = ("RandomSampler", "WeightedRandomSampler", "SubsetRandomSampler")
"""Samplers of PyTorch's that give another order each time."""


def _iterable(value: object) -> bool:
    return hasattr(value, "__iter__")


def _is_indexed(value: object) -> bool:
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


# --- beginning anew --------------------------------------------------------------------------


def items_of(value: Any, samples: int | None) -> Items:
    """What begins the data anew for each pass.

    Args:
        samples: use no more than so many; of an iterator no more are taken.

    Raises:
        UsageError: it is no data, or gives them in another order each time.
    """
    if hasattr(value, "get_next"):
        return _of_reader(value, samples)
    sampler = type(getattr(value, "sampler", None)).__name__
    if sampler in SHUFFLED:
        raise UsageError(
            f"the {type(value).__name__} shuffles ({sampler}): each pass would see other samples",
            hint="make it with shuffle=False",
        )
    if isinstance(value, Iterator):
        kept = _kept(value, samples)
        return lambda: kept
    if _iterable(value):
        return lambda: value
    if _is_indexed(value):
        return lambda: (value[index] for index in range(len(value)))
    if callable(value):
        return value  # type: ignore[no-any-return]
    raise UsageError(f"data are a {type(value).__name__}", hint=f"give {DATA}")


def _kept(items: Iterator[Any], samples: int | None) -> list[Any]:
    """What can be read once only; copies, as an array may be filled again for the next item."""
    return [_copied(each) for each in islice(items, samples)]


def _copied(item: Any) -> Any:
    if type(item) in {list, tuple}:
        return type(item)(map(_copied, item))
    if type(item) is dict:
        return {key: _copied(value) for key, value in item.items()}
    if hasattr(item, "detach") and hasattr(item, "clone"):  # a tensor of PyTorch's
        return item.detach().clone()
    return item.copy() if isinstance(item, np.ndarray) else item


def _of_reader(reader: Any, samples: int | None) -> Items:
    def read() -> Iterator[Any]:
        while (feed := reader.get_next()) is not None:
            yield feed

    if not callable(getattr(reader, "rewind", None)):
        kept = _kept(read(), samples)
        return lambda: kept

    def again() -> Iterator[Any]:
        reader.rewind()
        return read()

    return again


# --- from items to feeds by input name --------------------------------------------------------


def is_picture(value: Any) -> bool:
    """Whether it is an image of Pillow's, or the path of one."""
    if isinstance(value, (str, os.PathLike)):
        return True
    return hasattr(value, "getbands") and hasattr(value, "convert")


def is_sequence(item: Any) -> bool:
    """Whether an item is a list of feeds: the steps of a sequence."""
    return (
        isinstance(item, (list, tuple))
        and bool(item)
        and all(isinstance(each, Mapping) for each in item)
    )


def named(item: Any, inputs: Sequence[TensorSpec]) -> Any:
    """An item as a dict by input name, with its label; what is none of the kinds, as it is."""
    if isinstance(item, Mapping):
        return _of_mapping(item, inputs)
    if isinstance(item, (list, tuple)) and item and _is_value(item[0]):
        values = dict(zip((spec.name for spec in inputs), item, strict=False))
        labelled = len(item) == len(inputs) + 1
        if labelled or len(item) == len(inputs):
            return {**values, LABEL: item[-1]} if labelled else values
        return {spec.name: item for spec in inputs} if len(inputs) == 1 else item
    return {inputs[0].name: item} if len(inputs) == 1 else item


def _is_value(value: Any) -> bool:
    return hasattr(value, "shape") or hasattr(value, "__array__") or is_picture(value)


def _of_mapping(item: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """A row of a dataset: with one input, its one image or its one value is that."""
    found = dict(item)
    taken = {spec.name for spec in inputs}
    if "labels" not in taken and LABEL not in found and _are_indices(found.get("labels")):
        found[LABEL] = found["labels"]
    if len(inputs) == 1 and inputs[0].name not in found:
        others = {key: value for key, value in found.items() if key not in LABELS}
        pictures = [value for value in others.values() if hasattr(value, "getbands")]
        values = pictures or [value for value in others.values() if _is_array(value)]
        if len(values) == 1:
            found[inputs[0].name] = values[0]
    return found


def _is_array(value: Any) -> bool:
    return not isinstance(value, str) and (_is_value(value) or isinstance(value, list))


def _are_indices(value: Any) -> bool:
    return value is not None and np.asarray(value).dtype.kind in "iu"
