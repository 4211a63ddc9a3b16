"""Which axis of each input and output counts samples; batches made, joined and taken apart by it.

An input may have the samples on any axis, or on none: a recurrent state is 2×N×64, a sample rate a
scalar, an image of some detectors 3×H×W. One *sample* holds for each input its array without the
axis that counts samples, and the whole array where there is no such axis.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxq.model.model import Dimension, TensorSpec

Array = NDArray[Any]
Sample = Mapping[str, Array]
"""One sample: for each model input its array, without the axis that counts samples."""

Axes = Mapping[str, int | None]


@dataclass(frozen=True)
class BatchAxes:
    """Which axis counts samples.

    Attributes:
        inputs: input → axis; None where all samples of a batch are fed the same array.
        outputs: output → axis, as far as declared shapes tell; None where it has none.
        fixed: the number of samples that the model was exported for: 1 where no input has an axis
            that counts them; None where it takes any.
        open: input whose shape does not tell for certain → the axes that may count its samples;
            the data tell which one does, if any.
        mask: the input that says which positions of a sample count, see `onnxq.data.masks`; "" for
            none.
    """

    inputs: Axes
    outputs: Axes = field(default_factory=dict)
    fixed: int | None = None
    open: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    mask: str = ""

    def settled(self, axes: Axes) -> BatchAxes:
        """With the axes that the data told; without any, a sample is one whole feed."""
        inputs = {**self.inputs, **axes}
        if any(axis is not None for axis in inputs.values()):
            return replace(self, inputs=inputs, open={})
        return BatchAxes(inputs, dict.fromkeys(self.outputs), 1)

    def output(self, name: str) -> int | None:
        """The axis of an output; the first where nothing is known of it."""
        return self.outputs.get(name, 0)

    def singly(self) -> BatchAxes:
        """For a model that is given one sample at a time."""
        return replace(self, fixed=1)


@dataclass(frozen=True, eq=False)
class Feeds(Mapping[str, Array]):
    """What a model is fed at once: arrays by input name."""

    arrays: Mapping[str, Array]
    axes: BatchAxes

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def samples(self) -> int:
        """How many samples it holds; 1 where no input counts them."""
        counted = ((self.axes.inputs.get(name), values) for name, values in self.arrays.items())
        return next((values.shape[axis] for axis, values in counted if axis is not None), 1)

    def take(self, rows: Sequence[int]) -> Feeds:
        """The samples of these indices."""
        taken = {
            name: values if axis is None else np.take(values, rows, axis)
            for name, values, axis in self._each()
        }
        return Feeds(taken, self.axes)

    def sample(self, row: int) -> Sample:
        return {
            name: values if axis is None else values[(slice(None),) * axis + (row,)]
            for name, values, axis in self._each()
        }

    def singles(self) -> list[Feeds]:
        """Each sample as a batch of its own."""
        return [self.take([row]) for row in range(self.samples)]

    def _each(self) -> Iterator[tuple[str, Array, int | None]]:
        return ((n, values, self.axes.inputs.get(n)) for n, values in self.arrays.items())


def as_feeds(feeds: Mapping[str, Array]) -> Feeds:
    """Arrays from elsewhere, axis 0 of each, scalars apart, counts samples."""
    if isinstance(feeds, Feeds):
        return feeds
    axes = {name: 0 if np.ndim(values) else None for name, values in feeds.items()}
    return Feeds(feeds, BatchAxes(axes))


def one_by_one(batches: Iterable[Mapping[str, Array]]) -> list[Mapping[str, Array]]:
    """Each sample as a batch of its own, where the model takes any."""
    apart: list[Mapping[str, Array]] = []
    for feeds in map(as_feeds, batches):
        apart += [feeds] if (feeds.axes.fixed or 1) > 1 else feeds.singles()
    return apart


def samples_in(feeds: Mapping[str, Array]) -> int:
    """How many samples a batch of inputs holds."""
    return as_feeds(feeds).samples


def elements_of_sample(feeds: Mapping[str, Array]) -> float:
    """Elements of all inputs that a sample of a batch has."""
    return sum(values.size for values in feeds.values()) / samples_in(feeds)


def stack(samples: Sequence[Sample], axes: BatchAxes) -> Feeds:
    """Samples that are `alike` as one batch."""
    arrays = {}
    for name, first in samples[0].items():
        axis = axes.inputs.get(name)
        each = [sample[name] for sample in samples]
        arrays[name] = first if axis is None else np.stack(each, axis)
    return Feeds(arrays, axes)


def alike(one: Sample, other: Sample, axes: BatchAxes) -> bool:
    """Whether two samples fit one batch: arrays of the same shapes, and what is shared the same."""
    return all(
        array.shape == other[name].shape
        and (axes.inputs.get(name) is not None or _same(array, other[name]))
        for name, array in one.items()
    )


def _same(one: Array, other: Array) -> bool:
    return one is other or np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


def regroup(batches: Iterable[Mapping[str, Array]], size: int) -> list[Mapping[str, Array]]:
    """The same samples in batches of `size`, where their shapes and what they share allow."""
    groups: list[tuple[list[Sample], BatchAxes]] = []
    for feeds in map(as_feeds, batches):
        for sample in map(feeds.sample, range(feeds.samples)):
            fitting = (g for g, axes in groups if axes == feeds.axes and alike(g[0], sample, axes))
            group = next(fitting, None)
            if group is None:
                groups.append(([sample], feeds.axes))
            else:
                group.append(sample)
    return [
        stack(group[start : start + size], axes)
        for group, axes in groups
        for start in range(0, len(group), size)
    ]


def join(parts: Sequence[Array], axis: int | None) -> Array:
    """One output of several batches as that of all their samples.

    Where the output has no axis that counts samples, the parts become rows of a new first one.
    Raises `ValueError` where their shapes disagree.
    """
    if axis is None:
        return np.stack(parts)
    return np.concatenate([np.atleast_1d(part) for part in parts], axis)


# --- finding the axes ------------------------------------------------------------------------


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
    return BatchAxes(axes, ends, fixed, undecided)


def _is_named(spec: TensorSpec, name: str | None) -> bool:
    return name is not None and (spec.shape or ()).count(name) == 1


def _is_free(spec: TensorSpec, axis: int) -> bool:
    shape = spec.shape or ()
    return axis < len(shape) and not isinstance(shape[axis], int)


def _shared_name(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str | None:
    """The name of the dimension that counts samples: it comes once in most inputs.

    It comes first in an input or an output, or its name says so, which counts most. Those of equal
    number are told apart by how many outputs, and then inputs, they come first in. A vector has
    but one dimension, so it says little.
    """
    shapes = [spec.shape for spec in inputs if spec.shape]
    ends = [spec.shape for spec in outputs if spec.shape]

    def rank(name: str) -> tuple[bool, int, int, int]:
        once = sum(shape.count(name) == 1 for shape in shapes if len(shape) > 1)
        first_out = sum(shape[0] == name for shape in ends)
        first_in = sum(shape[0] == name for shape in shapes)
        return "batch" in name.lower(), once, first_out, first_in

    names = [size for shape in shapes for size in shape if isinstance(size, str)]
    alone = {name for name in names if any(shape.count(name) == 1 for shape in shapes)}
    likely = [
        name
        for name in dict.fromkeys(names)
        if name in alone and (rank(name)[0] or any(rank(name)[2:]))
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
