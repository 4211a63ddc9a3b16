"""Whether pictures fit a model's input, and how: its declaration completes the preprocessing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.preprocess import WHITE
from onnxq.data.settings import PRESETS
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.data.batching import BatchAxes
    from onnxq.data.geometry import Sides
    from onnxq.data.preprocess import Layout, Preprocessing
    from onnxq.model.model import Dimension, TensorSpec

LAYOUTS_BY_AXES: dict[int, tuple[Layout, Layout]] = {4: ("nchw", "nhwc"), 3: ("chw", "hwc")}
"""The layouts of pictures by the number of axes: channels first, channels last."""


def require_one_input(inputs: Sequence[TensorSpec], where: str) -> None:
    """Raise `DataError` for a model that images alone cannot feed."""
    if len(inputs) != 1:
        raise DataError(
            f"{where}: images feed one input, the model has {len(inputs)}: "
            f"{', '.join(repr(item.name) for item in inputs)}",
            hint="give an .npz file with one array for each input",
        )


def for_input(preprocessing: Preprocessing | None, spec: TensorSpec, where: str) -> Preprocessing:
    """The preprocessing with what the model's declaration says: the layout, whole numbers.

    An input of integers takes the pixels as they are, 0…255; of int8 less 128, −128…127.

    Raises `DataError` where it is missing or cannot fit, whatever the images.
    """
    if preprocessing is None:
        raise DataError(
            f"{where}: images need preprocessing",
            hint=f'pass --preprocess {"|".join(PRESETS)} or "resize=96,crop=96,mean=0.5,std=0.5"',
        )
    found = replace(preprocessing, layout=_layout(preprocessing, spec, where))
    if spec.dtype.kind in "biu":
        found = _of_integers(found, spec, where)
    size = found.size
    if size and any(
        isinstance(want, int) and got != want
        for got, want in zip(size, _sides(found, spec), strict=True)
    ):
        raise DataError(
            f"{where}: preprocessing gives {size[0]}×{size[1]} pixels, the model takes {spec}",
            hint=size_hint(found, spec),
        )
    return found


def sample_shape(preprocessing: Preprocessing, size: Sides) -> tuple[int, ...]:
    """The shape of one sample of this (height, width), without the batch axis."""
    channels = preprocessing.channels
    return (channels, *size) if preprocessing.channels_first else (*size, channels)


def batched(preprocessing: Preprocessing, spec: TensorSpec) -> TensorSpec:
    """The input as a batch of pictures has it, where the model itself takes one at a time."""
    if spec.shape is None or preprocessing.batched:
        return spec
    return replace(spec, shape=(None, *spec.shape))


def picture_axes(preprocessing: Preprocessing, spec: TensorSpec, axes: BatchAxes) -> BatchAxes:
    """Which axis counts pictures: none where the model takes one at a time."""
    return axes if preprocessing.batched else axes.settled({spec.name: None})


def size_hint(preprocessing: Preprocessing, spec: TensorSpec) -> str:
    wanted = "x".join(
        str(side) if isinstance(side, int) else "?" for side in _sides(preprocessing, spec)
    )
    if preprocessing.letterbox is not None:
        return f"pass --preprocess with letterbox={wanted}"
    return f"pass --preprocess with {'resize' if preprocessing.crop is None else 'crop'}={wanted}"


def _sides(preprocessing: Preprocessing, spec: TensorSpec) -> tuple[Dimension, ...]:
    """Height and width as the input declares them."""
    if spec.shape is None:
        return (None, None)
    return spec.shape[-2:] if preprocessing.channels_first else spec.shape[-3:-1]


def _layout(preprocessing: Preprocessing, spec: TensorSpec, where: str) -> Layout:
    """The layout asked for, if the input can have it; else the one that its shape tells."""
    asked = preprocessing.layout
    if spec.shape is None:
        return asked or "nchw"
    layouts = LAYOUTS_BY_AXES.get(len(spec.shape))
    if layouts is None:
        raise DataError(
            f"{where}: images have four axes, or three without a batch, the model takes {spec}",
            hint="give an .npz file",
        )
    if asked is not None and asked not in layouts:
        raise DataError(
            f"{where}: layout={asked} has another number of axes than the model's {spec}",
            hint=f"pass layout={layouts[0]} or layout={layouts[1]}, or leave layout out",
        )
    # Channels first comes first: what fits both is far more often that.
    ends = dict(zip(layouts, (spec.shape[-3], spec.shape[-1]), strict=True))
    fitting = [each for each in layouts if _may_be(ends[each], preprocessing.channels)]
    sure = [each for each in fitting if isinstance(ends[each], int)]
    if asked is not None and asked in fitting:
        return asked
    if asked is None and fitting and (sure or len(spec.shape) == 4):
        return (sure or fitting)[0]
    if asked is None and fitting:
        raise DataError(
            f"{where}: the model takes {spec}, which does not say where the channels lie",
            hint=f"pass layout={' or layout='.join(fitting)}; "
            "if the first axis counts images, give an .npz file",
        )
    raise DataError(
        f"{where}: preprocessing gives {preprocessing.channels} channels"
        f"{f' in layout {asked}' if asked else ''}, the model takes {spec}",
        hint=f"pass layout={fitting[0]}, or leave layout out"
        if fitting
        else _channel_hint(list(ends.values())),
    )


def _may_be(size: Dimension, channels: int) -> bool:
    return not isinstance(size, int) or size == channels


def _channel_hint(ends: Sequence[Dimension]) -> str:
    for channels, color in ((3, "rgb"), (1, "gray")):
        if channels in ends:
            return f"pass color={color}"
    return "give an .npz file instead of images"


def _of_integers(preprocessing: Preprocessing, spec: TensorSpec, where: str) -> Preprocessing:
    if spec.dtype.kind == "b":
        raise DataError(
            f"{where}: images become numbers, the model takes {spec}",
            hint=f"give an .npz file of {spec.dtype.name}",
        )
    dtype: np.dtype[Any] = spec.dtype
    bounds = np.iinfo(dtype)
    # A narrow signed type holds the pixels around zero.
    middle = 0 if bounds.max >= WHITE else -int(bounds.min)
    whole = replace(preprocessing, scale=float(WHITE), mean=(float(middle),), std=(1.0,))
    as_they_are = [replace(whole, scale=scale, mean=(0.0,)) for scale in (1.0, float(WHITE))]
    if preprocessing not in [whole, *as_they_are]:
        raise DataError(
            f"{where}: the model takes {spec}, the pixels as they are: "
            "mean, std and scale do not apply",
            hint="leave them out of --preprocess; such a model normalizes by itself",
        )
    return whole
