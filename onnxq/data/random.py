"""Random samples, drawn from the input shapes: `random:N` for smoke tests, proofs without data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from onnxq.data.axes import find_axes
from onnxq.data.batching import Array, BatchAxes, Feeds, Sample, stack
from onnxq.data.fitted import fit
from onnxq.data.sizes import Shapes, find_shapes
from onnxq.data.source import Batch, collect, spans
from onnxq.errors import DataError, UsageError
from onnxq.model.graph import Graph
from onnxq.model.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import Model, TensorSpec

PREFIX = "random:"

SMALLEST_TABLE = 2
"""Rows that any table has which an integer may be an index of: 0 and 1 are always drawn."""


@dataclass(frozen=True, eq=False)
class RandomSource:
    """Sample i depends on the seed and i alone, so shards and batch sizes draw the same.

    Attributes:
        shapes: of each input, the axis that counts samples included.
        rows: integer input → the number of rows of the table that it indexes.
    """

    spec: str
    count: int
    inputs: tuple[TensorSpec, ...]
    axes: BatchAxes
    seed: int
    shapes: Shapes
    rows: Mapping[str, int]
    note: str = "random samples"
    has_labels: bool = False
    preprocessing: Preprocessing | None = None

    @cached_property
    def fingerprint(self) -> str:
        # What is drawn follows from these, and drawing all of it again may take long.
        what = [str(spec) for spec in self.inputs], sorted(self.shapes.items())
        recipe = f"random\0{self.seed}\0{self.count}\0{what}\0{sorted(self.rows.items())}"
        return hashlib.sha256(recipe.encode()).hexdigest()

    def sample_name(self, index: int) -> str:
        return f"{self.spec}[{index}]"

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        stop: int | None = None,
        first: int = 0,
        step: int = 1,
    ) -> Iterator[Batch]:
        ranges = spans(self.count, self.axes, batch_size, start, stop, first, step)
        indices = (index for begin, end in ranges for index in range(begin, end))
        drawn = (_draw(self.inputs, self.axes, self.rows, self.shapes, self.seed, index)
                 for index in indices)  # fmt: skip
        return collect(drawn, ranges, self.axes)


def open_random(
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    model: Model | None = None,
    samples: int | None = None,
    seed: int = 0,
    shapes: Shapes = MappingProxyType({}),
) -> RandomSource:
    """The source `random:N`: standard normal floats, small integers, empty text.

    Where the model fixes its batch size, N is raised to fill the last batch. Sizes that the model
    leaves open are found by running it.

    Args:
        inputs: those to draw for.
        model: what is run; without it no size may be open.
        shapes: input → its shape, of those that are settled.

    Raises:
        UsageError: N is no positive number.
        DataError: an input is of a type that cannot be drawn, or the model runs with no sizes.
    """
    number = spec.removeprefix(PREFIX)
    if not (number.isascii() and number.isdigit() and len(number) < 19 and int(number)):
        raise UsageError(
            f"{spec!r}: {number!r} is no number of samples", hint="write for example random:16"
        )
    for item in inputs:
        if item.dtype.kind == "O":
            raise DataError(
                f"input {item.name!r} takes a sequence or a map, which onnxq cannot feed"
            )
        if item.dtype.kind not in "biufU" and item.dtype.name != "bfloat16":
            raise DataError(
                f"cannot draw random samples for input {item.name!r}: it is {item.dtype.name}",
                hint="give real samples as an .npz file",
            )
    rows = {} if model is None else _tables(model)
    size = axes.fixed or 1

    def batch(shapes: Shapes) -> Feeds:
        draw = partial(_draw, inputs, axes, rows, shapes, seed)
        return stack([draw(index) for index in range(size)], axes)

    found = find_shapes(inputs, axes, model, batch, shapes)
    count = size * math.ceil((int(number) if samples is None else min(samples, int(number))) / size)
    return RandomSource(spec, count, tuple(inputs), axes, seed, found, rows)


def _draw(
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    rows: Mapping[str, int],
    shapes: Shapes,
    seed: int,
    index: int,
) -> Sample:
    generator = np.random.default_rng([seed, index])
    # What all samples of a batch share is the same in all of them, else no two fit one batch.
    common = np.random.default_rng(seed)
    counts = any(axis is not None for axis in axes.inputs.values())
    return {
        spec.name: _values(
            spec, axes, rows, shapes[spec.name],
            common if counts and axes.inputs[spec.name] is None else generator,
        )
        for spec in inputs
    }  # fmt: skip


def _values(
    spec: TensorSpec,
    axes: BatchAxes,
    rows: Mapping[str, int],
    whole: tuple[int, ...],
    generator: np.random.Generator,
) -> Array:
    axis = axes.inputs[spec.name]
    shape = whole if axis is None else (*whole[:axis], *whole[axis + 1 :])
    if spec.dtype.kind == "U":
        return np.full(shape, "")
    if spec.dtype.kind not in "biu":
        return generator.standard_normal(shape, np.float32).astype(spec.dtype)
    # int32 and int64 are indices as a rule, and 0 and 1 are valid in any table worth the name.
    narrow = spec.dtype.kind != "b" and spec.dtype.itemsize < 4
    high = rows.get(spec.name, 128 if narrow else SMALLEST_TABLE)
    return generator.integers(0, high, shape).astype(spec.dtype)


def _tables(model: Model) -> dict[str, int]:
    """Integer input → rows of the smallest constant table that it indexes, embeddings as a rule."""
    graph = Graph(model)
    found: dict[str, int] = {}
    for name in graph.inputs:
        for use in graph.consumers(name):
            row, table = operator_of(use.node), use.node.input(0)
            if row is None or not row.looks_up or use.position != 1:
                continue
            shape, axis = graph.shape(table), int(use.node.attributes.get("axis", 0))
            size = shape[axis] if shape and graph.is_constant(table) else None
            if isinstance(size, int):
                found[name] = min(size, found.get(name, size))
    return found


def random_feeds(
    model: Model, *, samples: int = 4, shapes: Shapes = MappingProxyType({})
) -> list[Mapping[str, Array]]:
    """Random samples in batches of two, for a model without data. Raises as `open_random`."""
    axes = find_axes(model.inputs, model.outputs)
    source = open_random(f"{PREFIX}{samples}", model.inputs, axes, model=model, shapes=shapes)
    return [batch.feeds for batch in fit(source, model).batches(2)]
