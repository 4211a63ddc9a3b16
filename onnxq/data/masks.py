"""Which positions of a sample are padding: an input of the model, its mask, says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import Array, as_feeds
from onnxq.errors import UsageError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from onnxq.data.batching import BatchAxes
    from onnxq.model.model import TensorSpec

USUAL = "attention_mask"
"""The input that is taken for a mask without being named, where it can be one."""

NONE = "none"
"""What switches that off."""

Real = NDArray[np.bool_]
"""(samples, tokens): which positions are no padding."""


def find_mask(asked: str | None, inputs: Sequence[TensorSpec], axes: BatchAxes) -> str:
    """The name of the mask among a model's inputs; "" where it has none.

    Args:
        asked: an input's name, "none", or None for the usual one if the model has it.
        axes: which axes count samples.

    Raises:
        UsageError: no such input, or it is none of samples × tokens.
    """
    by_name = {spec.name: spec for spec in inputs}
    if asked is None:
        spec = by_name.get(USUAL)
        return USUAL if spec is not None and _can_be(spec, axes) else ""
    # A model may have an input of that name.
    if asked == NONE and NONE not in by_name:
        return ""
    if asked not in by_name:
        raise UsageError(
            f"--mask: the model has no input {asked!r}",
            hint=suggest(asked, by_name, of="its inputs") or f"{NONE} for no mask",
        )
    if not _can_be(by_name[asked], axes):
        raise UsageError(
            f"--mask: the input {asked!r} is no mask of samples × tokens",
            hint=f"name an input of two axes, the first of which counts samples, or {NONE}",
        )
    return asked


def _can_be(spec: TensorSpec, axes: BatchAxes) -> bool:
    ranked = spec.shape is None or len(spec.shape) == 2
    return ranked and axes.inputs.get(spec.name) == 0 and spec.dtype.kind in "biuf"


def real_positions(feeds: Mapping[str, Array]) -> Real | None:
    """Which positions of a batch are no padding; None where none is, or nothing says so.

    Of a mask of floats that holds nothing positive, what is added to attention scores, zeros are
    the real positions.
    """
    name = as_feeds(feeds).axes.mask
    values = feeds.get(name) if name else None
    if values is None or values.ndim != 2:
        return None
    real: NDArray[Any] = values > 0
    if values.dtype.kind == "f":
        real = np.where(real.any(axis=1, keepdims=True), real, values == 0)
    return None if real.all() else real


def has_padding(batches: Iterable[Mapping[str, Array]]) -> bool:
    """Whether any position of some batches is padding."""
    return any(real_positions(feeds) is not None for feeds in batches)
