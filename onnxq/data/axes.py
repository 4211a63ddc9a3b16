"""Find which axis of each input and output counts samples, as far as declared shapes tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from onnxq.data.batching import BatchAxes

if TYPE_CHECKING:
    from onnxq.model.model import Dimension, TensorSpec


_USUAL = frozenset({"N", "B"})
"""Letters that people give to the number of samples."""


def find_axes(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec] = ()) -> BatchAxes:
    """The axes that declared shapes tell.

    A dimension of one name that several inputs share counts the samples; else the first axis does
    where it is free. A first axis of fixed size counts them only where no input's is free: all
    first axes then have that size, or all inputs have an axis of size 1.
    """
    name = _shared_name(inputs, outputs)
    free = name is not None or any(spec.shape is None or _is_free(spec, 0) for spec in inputs)
    axes: dict[str, int | None]
    undecided: dict[str, tuple[int, ...]] = {}
    fixed: int | None = None
    # A dimension beside the one that counts samples does not count them elsewhere.
    named = [
        spec.shape for spec in inputs if spec.shape and name is not None and name in spec.shape
    ]
    beside = {size for shape in named for size in shape if isinstance(size, str)} - {name}
    if free:
        axes = {spec.name: _free_axis(spec, name, beside) for spec in inputs}
        likely = [spec for spec in inputs if spec.shape and not _is_named(spec, name)]
        undecided = {spec.name: _possible(spec, name) for spec in likely}
        if name is None and likely:
            # The first input is what the others are held against.
            first = next((spec for spec in likely if _is_free(spec, 0)), likely[0])
            undecided[first.name] = ()
    else:
        fixed, axes = _fixed_axes(inputs, outputs)
    if all(axis is None for axis in axes.values()):
        return BatchAxes(axes, {spec.name: None for spec in outputs}, 1)
    known = {size for spec in inputs for size in spec.shape or () if isinstance(size, str)}
    ends = {spec.name: _output_axis(spec, name, fixed, known) for spec in outputs}
    own = frozenset[str]()
    if name is not None and not _says_batch(name):
        own = frozenset(s.name for s in inputs if axes[s.name] is None and _has_own(s, inputs))
    return BatchAxes(axes, ends, fixed, undecided, own)


def _says_batch(name: str) -> bool:
    return "batch" in name.lower()


def _has_own(spec: TensorSpec, inputs: Sequence[TensorSpec]) -> bool:
    """Whether an input of several axes has an open one that no other input has."""
    others = {size for each in inputs if each is not spec for size in each.shape or ()}
    names = {size for size in spec.shape or () if isinstance(size, str)}
    return len(spec.shape or ()) > 1 and not names <= others


def _is_named(spec: TensorSpec, name: str | None) -> bool:
    return name is not None and (spec.shape or ()).count(name) == 1


def _is_free(spec: TensorSpec, axis: int) -> bool:
    shape = spec.shape or ()
    return axis < len(shape) and not isinstance(shape[axis], int)


def _shared_name(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str | None:
    """The name of the dimension that counts samples: it comes once in most inputs.

    It comes first in an input or an output, or its name says so, which counts most. Those of equal
    number are told apart by whether an input has them among its first two axes, unlike the width
    of images whose columns become the steps of an output; then by a usual letter, as in steps
    T×N×64; then by how many outputs, and then inputs, they come first in. A vector has but one
    dimension, so it says little.
    """
    shapes = [spec.shape for spec in inputs if spec.shape]
    ends = [spec.shape for spec in outputs if spec.shape]

    def rank(name: str) -> tuple[bool, int, bool, bool, int, int]:
        once = sum(shape.count(name) == 1 for shape in shapes if len(shape) > 1)
        first_out = sum(shape[0] == name for shape in ends)
        first_in = sum(shape[0] == name for shape in shapes)
        # Samples lie along the first axis, or behind steps or layers; not behind channels.
        front = any(shape.count(name) == 1 and shape.index(name) < 2 for shape in shapes)
        return _says_batch(name), once, front, name in _USUAL, first_out, first_in

    def follows(name: str) -> bool:
        """Whether it has a usual letter and comes behind steps."""
        behind = (shape[:2] for shape in shapes if isinstance(shape[0], str))
        return name in _USUAL and any(name in shape for shape in behind)

    names = [size for shape in shapes for size in shape if isinstance(size, str)]
    alone = {name for name in names if any(shape.count(name) == 1 for shape in shapes)}
    likely = [
        name
        for name in dict.fromkeys(names)
        if name in alone and (rank(name)[0] or any(rank(name)[4:]) or follows(name))
    ]
    return max(likely, key=rank, default=None)


def _free_axis(spec: TensorSpec, name: str | None, beside: Collection[str]) -> int | None:
    """The axis of an input, where some input's is free."""
    shape = spec.shape
    if shape is None:
        return 0
    if name is not None and _is_named(spec, name):
        return shape.index(name)
    if not shape or shape[0] in beside:
        return None
    if _is_free(spec, 0):
        return 0
    possible = _possible(spec, name)
    return possible[0] if len(possible) == 1 else None


def _possible(spec: TensorSpec, name: str | None) -> tuple[int, ...]:
    """The free axes; of those that have another name than what counts samples, none."""
    shape = spec.shape or ()
    return tuple(
        axis
        for axis, size in enumerate(shape)
        if size is None or (isinstance(size, str) and name is None)
    )


def _fixed_axes(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[int | None, dict[str, int | None]]:
    """The size and the axes where no first axis is free."""
    arrays = [spec for spec in inputs if spec.shape]
    firsts = {spec.shape[0] for spec in arrays if spec.shape}
    none = dict[str, int | None]({spec.name: None for spec in inputs})
    if len(firsts) == 1:
        (size,) = firsts
        if isinstance(size, int) and size > 0 and _counts_samples(size, arrays, outputs):
            return size, none | {spec.name: 0 for spec in arrays}
    matrices = [spec for spec in arrays if spec.shape and len(spec.shape) > 1]
    if matrices and all(1 in (spec.shape or ()) for spec in matrices):
        return 1, none | {s.name: s.shape.index(1) for s in matrices if s.shape}
    return 1, none


def _counts_samples(size: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether a first axis of fixed size is one of samples; where others are free, outputs tell."""
    if size == 1 or all(isinstance(each, int) for spec in inputs for each in spec.shape or ()):
        return True
    return any(spec.shape and spec.shape[0] == size for spec in outputs)


def _output_axis(
    spec: TensorSpec, name: str | None, fixed: int | None, known: set[str]
) -> int | None:
    shape: tuple[Dimension, ...] | None = spec.shape
    if shape is None:
        return 0
    if name is not None and shape.count(name) == 1:
        return shape.index(name)
    if not shape:
        return None
    if fixed is not None and shape[0] == fixed:
        return 0
    if not isinstance(shape[0], int):
        # A dimension of the inputs that does not count samples does not do so here either.
        return None if name is not None and shape[0] in known else 0
    if fixed is not None:
        return shape.index(1) if fixed == 1 and 1 in shape else None
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if not free and shape[0] == 1:
        # Of a model that takes one sample, whatever its inputs say.
        return 0
    return free[0] if len(free) == 1 and shape[free[0]] not in known else None
