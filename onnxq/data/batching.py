"""Batches made, joined and taken apart by the axis of each input and output that counts samples.

An input may have the samples on any axis, or on none: a recurrent state is 2×N×64, a sample rate a
scalar, an image of some detectors 3×H×W. One *sample* holds for each input its array without the
axis that counts samples, and the whole array where there is no such axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass

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
        beside: inputs with an open axis that counts something else than samples, and no other input
            has: perhaps the edges of a graph, whose nodes the first axis of another counts.
        mask: the input that says which positions of a sample count, see `onnxq.data.masks`; "" for
            none.
    """

    inputs: Axes
    outputs: Axes = field(default_factory=dict)
    fixed: int | None = None
    open: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()
    mask: str = ""

    def settled(self, axes: Axes) -> BatchAxes:
        """With the axes that the data told; without any, a sample is one whole feed."""
        inputs = {**self.inputs, **axes}
        if any(axis is not None for axis in inputs.values()):
            return replace(self, inputs=inputs, open={}, beside=frozenset())
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
