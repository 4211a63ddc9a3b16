"""Data that a Python program hands over, opened: see `onnxq.data.handed` for the kinds."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from onnxq.data.arrays import IN_MEMORY, memory_columns, open_arrays
from onnxq.data.decode import decode_image, loaded
from onnxq.data.folders import ImageFile
from onnxq.data.functions import LABEL, FunctionSource, Items, as_array
from onnxq.data.handed import is_picture, is_sequence, items_of, named
from onnxq.data.image_input import for_input, picture_axes, require_one_input
from onnxq.data.images import images_of
from onnxq.errors import DataError, UsageError

if TYPE_CHECKING:
    from onnxq.data.batching import BatchAxes
    from onnxq.data.preprocess import Preprocessing
    from onnxq.data.source import DataSource
    from onnxq.model.model import TensorSpec

Transform = Callable[[Any], Any]
"""A function of the user's: from what the data yield, of paths the image, to feeds."""


def is_transform(preprocessing: object) -> TypeGuard[Transform]:
    """Whether it is a function of the user's rather than a `Preprocessing`."""
    return callable(preprocessing)


def _divided(
    given: Preprocessing | Transform | None,
) -> tuple[Transform | None, Preprocessing | None]:
    return (given, None) if is_transform(given) else (None, cast("Preprocessing | None", given))


def open_values(
    value: Any,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    preprocessing: Preprocessing | Transform | None,
    samples: int | None,
    optional: Collection[str],
) -> DataSource:
    """Anything but a path.

    Raises:
        UsageError: it is no data, or preprocessing for what takes none.
        DataError: the data do not fit the model.
    """
    _refuse_splits(value)
    transform, plain = _divided(preprocessing)
    arrays = isinstance(value, Mapping) or hasattr(value, "__array__")
    if isinstance(value, Mapping) and transform is not None:
        refuse_preprocessing(transform, "a dictionary of arrays")
    if arrays and transform is None:
        refuse_preprocessing(plain, IN_MEMORY)
        columns = memory_columns(value if isinstance(value, Mapping) else as_array(value), inputs)
        return open_arrays(columns, IN_MEMORY, inputs, axes, samples=samples, optional=optional)
    files = image_files(value) if transform is None else None
    if files is not None:
        return images_of(files, "<list>", inputs, axes, preprocessing=plain, samples=samples)
    return open_handed(
        value, inputs, axes,
        preprocessing=plain, transform=transform, samples=samples, optional=optional,
    )  # fmt: skip


def _refuse_splits(value: Any) -> None:
    splits = (
        [key for key, each in value.items() if hasattr(each, "features")]
        if isinstance(value, Mapping)
        else []
    )
    if splits:
        raise UsageError(
            f"data are a {type(value).__name__} of several datasets",
            hint=f"give one of them: {', '.join(map(repr, splits))}",
        )


def refuse_preprocessing(preprocessing: object | None, text: str) -> None:
    """Raise `UsageError` where there is some: what `text` names takes none."""
    if preprocessing is not None:
        raise UsageError(
            f"{text} takes no preprocessing: only images do",
            hint="leave it out; arrays are fed as they are",
        )


def require_shareable(value: Any, preprocessing: object) -> None:
    """Raise `UsageError` for what only this process can read."""
    named = isinstance(value, (str, os.PathLike, Mapping))
    known = named or hasattr(value, "__array__") or hasattr(value, "batches") or image_files(value)
    if not known or is_transform(preprocessing):
        what = "data of Python's" if not known else "a function as preprocess"
        raise UsageError(
            f"{what} cannot be sent to other processes",
            hint="leave dask out, or give data as a path or file.py:function",
        )


def image_files(value: Any) -> list[ImageFile] | None:
    """Files of images and their labels, where a list holds nothing else; None otherwise."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    found: list[ImageFile] = []
    for item in value:
        path, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        whole = label is None or (isinstance(label, int) and not isinstance(label, bool))
        if not isinstance(path, (str, os.PathLike)) or not whole:
            return None
        found.append(ImageFile(Path(path), label))
    return found


# --- feeds of what was handed over ---------------------------------------------------------------


def open_handed(
    value: Any,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    preprocessing: Preprocessing | None = None,
    transform: Transform | None = None,
    samples: int | None = None,
    optional: Collection[str] = (),
    spec: str = "",
) -> FunctionSource:
    """The data as a source. The first item tells whether they are images.

    Raises:
        UsageError: it is no data, or preprocessing for what are no images.
        DataError: images without preprocessing, or for a model of several inputs.
    """
    spec = spec or _spec(value)
    handed = Handed(items_of(value, samples), spec, tuple(inputs), transform=transform)
    fed = FunctionSource(spec, tuple(inputs), axes, handed, samples, optional)
    if not _shows_a_picture(fed.first, inputs):
        if preprocessing is not None:
            raise UsageError(
                f"{spec} takes no preprocessing: only images do",
                hint="leave it out, or give a function that makes feeds of what it yields",
            )
        return fed
    require_one_input(inputs, spec)
    complete = for_input(preprocessing, inputs[0], spec)
    return replace(
        fed,
        declared=picture_axes(complete, inputs[0], axes),
        items=replace(handed, preprocessing=complete),
        preprocessing=complete,
    )


def _shows_a_picture(feeds: Any, inputs: Sequence[TensorSpec]) -> bool:
    return isinstance(feeds, Mapping) and any(
        is_picture(feeds.get(spec.name)) for spec in inputs if spec.dtype.kind != "U"
    )


def _spec(value: Any) -> str:
    """What messages call it."""
    name = getattr(value, "__name__", "<")
    return f"<{type(value).__name__ if '<' in name else name}>"


@dataclass(frozen=True)
class Handed:
    """The items as feeds by input name.

    Attributes:
        begin: begins the data anew.
        preprocessing: makes images arrays.
        transform: a function of the user's that comes first, and makes images arrays itself.
    """

    begin: Items
    spec: str
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None = None
    transform: Transform | None = None

    def __call__(self) -> Iterator[Any]:
        items = self.begin()
        return (self._feeds(item, f"{self.spec}[{n}]") for n, item in enumerate(items))

    def _feeds(self, item: Any, name: str) -> Any:
        if self.transform is not None:
            item = _transformed(self.transform, item, name)
        if is_sequence(item):
            return [self._feed(step, name) for step in item]
        return self._feed(item, name)

    def _feed(self, item: Any, name: str) -> Any:
        found = named(item, self.inputs)
        if self.preprocessing is None:
            return found
        (spec,) = self.inputs
        picture = found.get(spec.name)
        if not is_picture(picture):
            raise DataError(f"{name} is no image, as the first one is")
        return {**found, spec.name: decode_image(_path(picture), self.preprocessing, spec, name)}


def _transformed(transform: Transform, item: Any, name: str) -> Any:
    """What the user's function makes of an item; it gets images, not their paths."""
    if isinstance(item, (str, os.PathLike)):
        item = loaded(_path(item), name)
    elif isinstance(item, tuple) and item and isinstance(item[0], (str, os.PathLike)):
        # An image of a class folder, with its label.
        made = transform(loaded(_path(item[0]), name))
        return _labelled(made, item[1]) if len(item) > 1 else made
    return transform(item)


def _labelled(made: Any, label: Any) -> Any:
    if isinstance(made, Mapping):
        return {**made, LABEL: label}
    return (made, label)


def _path(picture: Any) -> Any:
    return Path(picture) if isinstance(picture, (str, os.PathLike)) else picture
