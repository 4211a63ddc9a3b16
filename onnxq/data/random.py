"""`random:N`: samples drawn from the input shapes, for smoke tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxq.data.source import Array, Batch, Sample, collect, spans
from onnxq.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

PREFIX = "random:"


@dataclass(frozen=True, eq=False)
class RandomSource:
    """Sample i depends on the seed and i alone, so shards and batch sizes draw the same."""

    spec: str
    count: int
    inputs: tuple[TensorSpec, ...]
    seed: int
    note: str = "random samples"
    has_labels: bool = False
    preprocessing: Preprocessing | None = None

    @cached_property
    def fingerprint(self) -> str:
        # What is drawn follows from these, and drawing all of it again may take long.
        recipe = f"random\0{self.seed}\0{self.count}\0{[str(spec) for spec in self.inputs]}"
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
        ranges = spans(self.count, self.inputs, batch_size, start, stop, first, step)
        indices = (index for begin, end in ranges for index in range(begin, end))
        return collect((self._draw(index) for index in indices), ranges)

    def _draw(self, index: int) -> Sample:
        generator = np.random.default_rng([self.seed, index])
        return {spec.name: _values(spec, generator) for spec in self.inputs}


def open_random(
    spec: str, inputs: Sequence[TensorSpec], *, samples: int | None = None, seed: int = 0
) -> RandomSource:
    """The source `random:N`: floats are standard normal, integers small and not negative.

    Raises `UsageError` where N is no positive number and `DataError` where an input's shape or
    element type leaves open what to draw.
    """
    number = spec.removeprefix(PREFIX)
    if not (number.isascii() and number.isdigit() and int(number)):
        raise UsageError(
            f"{spec!r}: {number!r} is no number of samples", hint="write for example random:16"
        )
    for item in inputs:
        _sample_shape(item)
        if item.dtype.kind not in "biuf" and item.dtype.name != "bfloat16":
            raise DataError(
                f"cannot draw random samples for input {item.name!r}: it is {item.dtype.name}",
                hint="give real samples as an .npz file",
            )
    count = int(number) if samples is None else min(samples, int(number))
    return RandomSource(spec, count, tuple(inputs), seed)


def _sample_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one sample, where the model fixes it."""
    if spec.shape is None:
        raise DataError(
            f"cannot draw random samples for input {spec.name!r}: the model does not say its shape",
            hint="give real samples as an .npz file",
        )
    shape: list[int] = []
    for size in spec.shape[1:]:
        if not isinstance(size, int):
            raise DataError(
                f"cannot draw random samples for {spec}: "
                f"the model leaves axis {len(shape) + 1} open",
                hint="fix this size in the model, or give real samples as an .npz file",
            )
        shape.append(size)
    return tuple(shape)


def _values(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = _sample_shape(spec)
    if spec.dtype.kind not in "biu":
        return generator.standard_normal(shape, np.float32).astype(spec.dtype)
    # int32 and int64 are indices as a rule, and 0 and 1 are valid in any table worth the name.
    high = 128 if spec.dtype.kind != "b" and spec.dtype.itemsize < 4 else 2
    return generator.integers(0, high, shape).astype(spec.dtype)
