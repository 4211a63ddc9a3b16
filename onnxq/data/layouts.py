"""How arrays hold samples: along which of their axes, told by rank and shape."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.batching import Array, BatchAxes
from onnxq.data.checks import check_shape, convert, sizes
from onnxq.data.storage import MemoryColumn
from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.storage import Column
    from onnxq.model.model import Dimension, TensorSpec

Shape = tuple[int, ...]


class Holds(enum.Enum):
    """What a set of arrays is, one for each input."""

    ROWS = "rows"
    """Many samples: the first axis of an array counts them, or the axis of its input that does."""
    FEED = "feed"
    """What the model is fed at once, batch axes included; or, with one axis more, several feeds."""
    ITEM = "item"
    """One sample, without the axes that count samples; or as `FEED`."""


@dataclass(frozen=True)
class Layout:
    """How an array holds the samples of its input.

    Attributes:
        axis: of the array, counts the samples; None where the array is one for all of them.
        drop: axis of size 1 that a sample does not have.
        insert: axis of size 1 that a sample has besides.
        input_axis: the axis of the input that counts samples.
    """

    axis: int | None
    drop: int | None = None
    insert: int | None = None
    input_axis: int | None = None

    def sample(self, values: Array) -> Array:
        """Rows of samples, axis 0 counting them, as the model's samples are."""
        if self.drop is not None:
            return values.squeeze(self.drop + 1)
        return values if self.insert is None else np.expand_dims(values, self.insert + 1)


@dataclass(frozen=True)
class Arrangement:
    """The samples that a set of arrays holds, and the axes that count them in the model."""

    axes: BatchAxes
    layouts: Mapping[str, Layout]
    count: int


@dataclass(frozen=True, eq=False)
class SampleColumn:
    """The samples of one input, whatever the layout of the array that holds them."""

    column: Column
    layout: Layout

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.column.dtype

    def rows(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Array]:
        """Yield the samples of each half-open range, axis 0 counting them; the ranges ascend."""
        if self.layout.axis == 0:
            yield from map(self.layout.sample, self.column.rows(ranges))
            return
        whole = self.column.whole()
        if self.layout.axis is None:
            for begin, end in ranges:
                rows = np.broadcast_to(whole, (end - begin, *whole.shape))
                yield self.layout.sample(rows)
            return
        moved = np.moveaxis(whole, self.layout.axis, 0)
        for begin, end in ranges:
            yield self.layout.sample(moved[begin:end])


def arrange(
    shapes: Mapping[str, Shape],
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    where: str,
    *,
    holds: Holds,
    labels: int | None = None,
) -> Arrangement:
    """Find out how arrays of these shapes hold samples.

    Args:
        labels: the number of labels beside the arrays, if there are any.

    Raises:
        DataError: an array does not fit its input, the arrays disagree on the number of samples,
            or could be read in two ways.
    """
    options = {
        spec.name: list(_options(shapes[spec.name], spec, axes, holds))
        for spec in inputs
        if spec.name in shapes
    }
    for spec in inputs:
        if spec.name in options and not options[spec.name]:
            _refuse(shapes[spec.name], spec, axes, where, holds)
    count = _agreed(options, labels)
    whole = all(len(shapes[s.name]) == len(s.shape or ()) for s in inputs if s.name in shapes)
    if holds is not Holds.ROWS and whole and not axes.beside.isdisjoint(options):
        # What its first axis counts are no samples, for the array beside it cannot be cut.
        options, count = {name: [(None, Layout(None))] for name in options}, 1
    elif count is None and holds is not Holds.ROWS:
        single = {name: _as_one(each, axes) for name, each in options.items()}
        if all(single.values()):
            options, count = single, 1
    if count is None:
        raise _disagreement(options, where, labels)
    if not count:
        raise DataError(f"{where} holds no samples")
    chosen = {
        name: _only(name, [each for n, each in found if n == count] or _shared(found), where)
        for name, found in options.items()
    }
    told = {name: layout.input_axis for name, layout in chosen.items()}
    return Arrangement(axes.settled(told), chosen, count)


def sample_of(values: Array, spec: TensorSpec, axes: BatchAxes, where: str) -> Array:
    """An array of one sample, with or without the axis that counts samples, as a sample has it.

    A single number or text may stand for an array of one element.

    Raises `DataError` where it does not fit the input, or holds several samples.
    """
    if not values.ndim and spec.shape:
        values = values.reshape((1,) * (len(spec.shape) - (axes.inputs[spec.name] is not None)))
    arranged = arrange({spec.name: values.shape}, [spec], axes, where, holds=Holds.ITEM)
    if arranged.count != 1:
        raise DataError(
            f"{where}: input {spec.name!r} holds {arranged.count} samples",
            hint="each record holds one",
        )
    (rows,) = SampleColumn(MemoryColumn(values), arranged.layouts[spec.name]).rows([(0, 1)])
    return convert(rows[0], spec, where)


Option = tuple[int | None, Layout]
"""The number of samples, None for an array that they share, and the layout."""


def _options(shape: Shape, spec: TensorSpec, axes: BatchAxes, holds: Holds) -> Iterator[Option]:
    """The ways in which an array may hold the samples of an input, the likeliest first."""
    wanted, axis = spec.shape, axes.inputs[spec.name]
    if wanted is None:
        # Nothing tells whether the batch axis is there: items go without, others with it.
        if holds is Holds.ITEM or not shape:
            yield (1 if shape else None), Layout(None, input_axis=0 if shape else None)
        else:
            yield shape[0], Layout(0, input_axis=0)
        return
    if axis is not None:
        for each in dict.fromkeys((axis, *axes.open.get(spec.name, ()))):
            yield from _counted(shape, wanted, each, holds)
        return
    if len(shape) == len(wanted) and _fits(shape, wanted):
        yield None, Layout(None)
    if len(shape) == len(wanted) + 1 and _fits(shape[1:], wanted):
        yield shape[0], Layout(0)
    for other in axes.open.get(spec.name, ()):
        yield from _counted(shape, wanted, other, holds)
    yield from _beside_unit_axis(shape, wanted, holds)


def _beside_unit_axis(
    shape: Shape, wanted: tuple[Dimension, ...], holds: Holds
) -> Iterator[Option]:
    """The ways where samples lack an axis of size 1 that the input has."""
    for unit in (each for each, size in enumerate(wanted) if size == 1):
        rest = _without(wanted, unit)
        if len(shape) == len(rest) and holds is Holds.ITEM and _fits(shape, rest):
            yield 1, Layout(None, insert=unit)
        rows = len(shape) == len(wanted) and holds is Holds.ROWS and shape[0] != 1
        if rows and _fits(shape[1:], rest):
            yield shape[0], Layout(0, insert=unit)
            return


def _counted(
    shape: Shape, wanted: tuple[Dimension, ...], axis: int, holds: Holds
) -> Iterator[Option]:
    """The ways where the input has an axis that counts samples."""
    rest = _without(wanted, axis)
    if len(shape) == len(wanted):
        if _fits(_without(shape, axis), rest):
            yield shape[axis], Layout(axis, input_axis=axis)
        if axis and holds is Holds.ROWS and _fits(shape[1:], rest):
            yield shape[0], Layout(0, input_axis=axis)
    elif len(shape) == len(wanted) + 1 and shape[axis + 1] == 1:
        if _fits(_without(shape[1:], axis), rest):
            yield shape[0], Layout(0, drop=axis, input_axis=axis)
    elif len(shape) == len(rest) and holds is Holds.ITEM and _fits(shape, rest):
        yield 1, Layout(None, input_axis=axis)


def _without(shape: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _fits(shape: Shape, wanted: tuple[Dimension, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or got == want for got, want in zip(shape, wanted, strict=True)
    )


def _refuse(shape: Shape, spec: TensorSpec, axes: BatchAxes, where: str, holds: Holds) -> None:
    """Raise `DataError` that says what was expected of an array that no layout fits."""
    axis, wanted = axes.inputs[spec.name], spec.shape or ()
    if axis == 0:
        item = holds is Holds.ITEM
        hint = "leave the batch axis out, or yield whole batches" if item else ""
        check_shape((1, *shape) if item else shape, spec, where, hint=hint)
    shown = [*wanted]
    if axis is not None:
        shown[axis] = "N"
    raise DataError(
        f"{where}: input {spec.name!r} has shape {sizes(shape)}, the model expects {sizes(shown)}",
        hint="give the input as the model takes it, or samples of it along a first axis",
    )


def _agreed(options: Mapping[str, Sequence[Option]], labels: int | None) -> int | None:
    """The number of samples that all arrays may hold, as far as they count any; None for none."""
    possible = [{count for count, _ in found} for found in options.values()]
    likely = [found[0][0] for found in options.values() if found]
    if labels is not None:
        possible.append({labels})
        likely.append(labels)
    others = [count for counts in possible for count in sorted(filter(None, counts))]
    for count in dict.fromkeys([*likely, 1, *others]):
        if count is not None and all({count, None} & counts for counts in possible):
            return count
    return None


def _as_one(options: Sequence[Option], axes: BatchAxes) -> list[Option]:
    """The options by which the arrays are one sample, where an axis was only likely to count some:
    then it counts something else, as that of another input may, such as nodes beside edges.
    """
    single = [(count, layout) for count, layout in options if count in {1, None}]
    return single or ([(None, Layout(None))] if axes.open else [])


def _shared(options: Sequence[Option]) -> list[Layout]:
    return [layout for count, layout in options if count is None]


def _disagreement(
    options: Mapping[str, Sequence[Option]], where: str, labels: int | None
) -> DataError:
    likely = {name: found[0][0] for name, found in options.items() if found}
    likely |= {} if labels is None else {"labels": labels}
    found = ", ".join(f"{n!r} has {count}" for n, count in likely.items() if count is not None)
    return DataError(
        f"{where}: the arrays disagree on the number of samples: {found}",
        hint="the first axis of every array counts the samples",
    )


def _only(name: str, layouts: Sequence[Layout], where: str) -> Layout:
    if len(layouts) > 1 and {layout.input_axis for layout in layouts} == {layouts[0].input_axis}:
        first, second = (layout.axis for layout in layouts[:2])
        raise DataError(
            f"{where}: axis {first} or axis {second} of array {name!r} may count the samples",
            hint="give another number of samples, or a folder of .npz files of one feed each",
        )
    return layouts[0]
