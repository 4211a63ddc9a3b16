"""Which axis of each tensor counts tokens, so that padding can be left out of what is counted.

As with samples, it is what follows the inputs where the model runs twice: once with all tokens of a
sample, once with one fewer. A tensor whose shape does not follow, or does in several axes (as
attention scores do), has none, and all of it counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import Array, Feeds
from onnxq.data.masks import Real, real_positions
from onnxq.errors import ModelError
from onnxq.model.footprint import measure_shapes, tensors_in
from onnxq.model.graph import Graph

if TYPE_CHECKING:
    from onnxq.model.model import Model
    from onnxq.model.session import Runtime

Shape = tuple[int, ...]

LEAST_RANK = 3
"""Of a model of fixed length a matrix may be samples × features as well as samples × tokens."""


@dataclass(frozen=True)
class Tokens:
    """The token axes of a model's tensors.

    Attributes:
        axes: tensor → the axis that counts tokens, the first one counts samples; 0 where one axis
            holds all tokens of all samples.
    """

    axes: Mapping[str, int] = field(default_factory=dict)

    def real(self, name: str, shape: Shape, feeds: Mapping[str, Array]) -> NDArray[Any] | None:
        """Which values of a tensor are no padding, as an array that its shape broadcasts with.

        None where none is padding, or where the tensor has no axis of tokens.
        """
        found, axis = real_positions(feeds), self.axes.get(name)
        if found is None or axis is None:
            return None
        return _shaped(found, axis, shape)

    def of(self, values: Mapping[str, Any], feeds: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """`real` of several tensors, of those that hold padding."""
        shapes = {name: np.shape(each) for name, each in values.items() if name in self.axes}
        found = {name: self.real(name, shape, feeds) for name, shape in shapes.items()}
        return {name: each for name, each in found.items() if each is not None}

    def kept(self, name: str, values: Array, real: Real) -> Array | None:
        """A tensor without its padding: the tokens of all samples one after the other.

        It has the same axes, the first of size 1 where another counts tokens. None where the
        tensor has no such axis, and all of it counts.
        """
        axis = self.axes.get(name)
        if axis is None or _shaped(real, axis, values.shape) is None:
            return None
        if axis == 0:
            return np.asarray(values[real.ravel()])
        tokens = np.moveaxis(values, axis, 1)[real]
        return np.moveaxis(tokens[None], 1, axis)


NO_TOKENS = Tokens()


def _shaped(real: Real, axis: int, shape: Shape) -> NDArray[Any] | None:
    """The mask in the axes of a shape; None where that does not fit it."""
    samples, count = real.shape
    if axis == 0:
        fits = bool(shape) and shape[0] == samples * count
        return real.reshape(-1, *[1] * (len(shape) - 1)) if fits else None
    if len(shape) <= axis or (shape[0], shape[axis]) != (samples, count):
        return None
    sides = [1] * len(shape)
    sides[0], sides[axis] = samples, count
    return real.reshape(sides)


# --- finding the axes ------------------------------------------------------------------------


def measure_tokens(model: Model, samples: Feeds, runtime: Runtime) -> Tokens:
    """The token axes of all tensors, by running some samples, and once more with another length.

    A model that takes one length only is run with that: the axes are those of tensors of three and
    more axes of which just one behind the first is as long.
    """
    mask = samples.get(samples.axes.mask)
    if mask is None or mask.ndim != 2:
        return NO_TOKENS
    names = tensors_in(Graph(model))
    lengths = [mask.shape[1], mask.shape[1] - 1 if mask.shape[1] > 1 else 2]
    feeds = [samples, _of_length(samples, lengths[1])]
    try:
        one, other = measure_shapes(model, names, feeds, runtime)
    except ModelError:
        pass
    else:
        pairs = ((name, shape, other[name]) for name, shape in one.items())
        return Tokens(_found((n, _following(a, b, mask.shape, lengths)) for n, a, b in pairs))
    try:
        (shapes,) = measure_shapes(model, names, [samples], runtime)
    except ModelError:
        return NO_TOKENS
    return Tokens(_found((name, _as_long(shape, mask.shape)) for name, shape in shapes.items()))


def _of_length(samples: Feeds, length: int) -> Feeds:
    """The samples with another number of tokens in all inputs that have as many as the mask."""
    sides = samples[samples.axes.mask].shape
    changed = {
        name: np.resize(values[:, :1], (sides[0], length, *values.shape[2:]))
        if length > sides[1]
        else values[:, :length]
        for name, values in samples.items()
        if values.ndim > 1 and values.shape[:2] == sides and samples.axes.inputs.get(name) == 0
    }
    return Feeds({**samples.arrays, **changed}, samples.axes)


def _following(one: Shape, other: Shape, sides: Shape, lengths: Sequence[int]) -> int | None:
    """The axis that has the number of tokens, of all samples together if it is the first."""
    differing = [a for a, (x, y) in enumerate(zip(one, other, strict=False)) if x != y]
    if len(one) != len(other) or len(differing) != 1:
        return None
    (axis,) = differing
    share = 1 if axis else sides[0]
    follows = (one[axis], other[axis]) == (share * lengths[0], share * lengths[1])
    return axis if follows and (axis == 0 or one[0] == sides[0]) else None


def _as_long(shape: Shape, sides: Shape) -> int | None:
    """The same from one shape."""
    if len(shape) < LEAST_RANK or shape[0] != sides[0]:
        return None
    found = [axis for axis, side in enumerate(shape) if axis and side == sides[1]]
    return found[0] if len(found) == 1 else None


def _found(axes: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    return {name: axis for name, axis in axes if axis is not None}
