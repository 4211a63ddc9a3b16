"""The proof: run both models on the same inputs and compare every bit of their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import samples_in
from onnxq.data.budget import WHOLE, Batching
from onnxq.data.gather import BATCH_SIZE, gather, run_batches
from onnxq.data.random import random_feeds
from onnxq.data.shelf import Shelf, Values
from onnxq.data.sizes import Shapes
from onnxq.data.source import DataSource
from onnxq.model.model import Model
from onnxq.model.session import exact_equal

Feeds = Mapping[str, NDArray[Any]]
Output = NDArray[Any] | list[Any] | dict[Any, Any] | None
"""What ONNX Runtime gives for a tensor, a sequence, a map or an absent optional value."""

PROOF_SAMPLES = 16
"""Samples on which equalization proves that the float outputs stay the same."""

REAL_TOLERANCE = 1e-5
"""Largest relative difference allowed with real scales, of the output's largest magnitude."""


@dataclass(frozen=True)
class Proof:
    """What the comparison found.

    Attributes:
        samples: number of samples compared, at both optimization levels of ONNX Runtime.
        identical: whether every output bit agreed.
        difference: largest absolute difference over the largest output magnitude.
        sqnr: power of the outputs over that of their change, dB; inf where identical.
    """

    samples: int
    identical: bool
    difference: float
    sqnr: float


class Outputs:
    """What a model gave for each group of samples, its outputs in order."""

    def __init__(self, groups: Iterable[Sequence[Output]], shelf: Shelf) -> None:
        self._tensors: dict[int, Values] = {}
        self._groups: list[list[Output | _Place]] = []
        for group in groups:
            self._groups.append([self._keep(*each, shelf) for each in enumerate(group)])

    def __iter__(self) -> Iterator[list[Output]]:
        for group in self._groups:
            yield [self._tensors[v.output][v.group] if isinstance(v, _Place) else v for v in group]

    def _keep(self, output: int, value: Output, shelf: Shelf) -> Output | _Place:
        if not isinstance(value, np.ndarray):
            return value
        values = self._tensors.setdefault(output, shelf.values())
        values.append(value)
        return _Place(output, len(values) - 1)


@dataclass(frozen=True)
class _Place:
    """Where an output is: its number, and that of the group among those that have it."""

    output: int
    group: int


@dataclass(frozen=True)
class Reference:
    """What a model computes: for each optimization level its outputs for each of the feeds.

    What exceeds the room for results waits in temporary files.
    """

    feeds: tuple[Feeds, ...]
    outputs: Mapping[bool, Outputs]
    batching: Batching

    @property
    def levels(self) -> tuple[Reference, ...]:
        """One reference for each optimization level."""
        return tuple(replace(self, outputs={key: value}) for key, value in self.outputs.items())


def run_reference(
    model: Model,
    feeds: Iterable[Feeds],
    *,
    levels: Sequence[bool] = (True, False),
    batching: Batching = WHOLE,
) -> Reference:
    """Run a model on every set of inputs, at each optimization level (True: optimized)."""
    kept, shelf = tuple(feeds), Shelf(batching.room, copies=batching.large)
    outputs = {
        level: Outputs(run_batches(model, None, kept, optimize=level, batching=batching), shelf)
        for level in levels
    }
    return Reference(kept, outputs, batching)


def compare_outputs(reference: Reference, after: Model) -> Proof:
    """Run another model as the reference was run and compare their outputs."""
    samples = sum(map(samples_in, reference.feeds))
    identical, worst, signal, noise = True, 0.0, 0.0, 0.0
    for level, wanted in reference.outputs.items():
        found = run_batches(
            after, None, reference.feeds, optimize=level, batching=reference.batching
        )
        for first, second in zip(wanted, found, strict=True):
            for a, b in _tensors(first, second):
                signal += _power(a)
                if exact_equal(a, b):
                    continue
                identical = False
                if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind != "f":
                    return Proof(samples, False, float("inf"), float("-inf"))
                scale = max(float(np.abs(a).max(initial=0.0)), 1e-30)
                worst = max(worst, float(np.abs(a - b).max(initial=0.0)) / scale)
                noise += _power(a - b)
    sqnr = float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))
    return Proof(samples, identical, worst, sqnr)


def _tensors(first: Output, second: Output) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The pairs of tensors in two outputs of one model; sequences of two lengths make one pair."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        first, second = [*first.values()], [second[key] for key in first]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for a, b in zip(first, second, strict=True):
            yield from _tensors(a, b)
    else:
        yield _as_array(first), _as_array(second)


def _as_array(value: Output) -> NDArray[Any]:
    """The tensor; anything else as one object, which equals only its like."""
    if isinstance(value, (list, dict)):
        boxed = np.empty((), object)
        boxed[()] = value
        return boxed
    return np.asarray(value)


def _power(values: NDArray[Any]) -> float:
    return float(np.square(values, dtype=np.float64).sum()) if values.dtype.kind == "f" else 0.0


def proof_feeds(
    model: Model, source: DataSource | None, size: int = BATCH_SIZE, shapes: Shapes | None = None
) -> list[Feeds]:
    """Inputs for the proof, from data where there are any, in batches of `size`.

    Args:
        shapes: input → sizes for random samples where the model leaves them open.
    """
    if source is None:
        return random_feeds(model, shapes=shapes or {})
    return gather(source, PROOF_SAMPLES, size=size)
