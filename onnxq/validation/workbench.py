"""What runs to measure layers: the float model, the quantized one whole and in pieces.

Layers are measured window by window, each with sessions of its own, as all layers' tensors at once
may be more than there is memory for. How many samples run at once, and on how many threads, follows
from the model and its data alone: the memory decides nothing but the windows, and the numbers
are the same whatever it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.calibration.passes import with_group
from onnxq.data.ahead import WORKERS
from onnxq.data.batching import as_feeds, regroup, samples_in
from onnxq.data.budget import SMALL, TENSORS, USUAL, Limits, OneSample
from onnxq.data.masks import real_positions
from onnxq.data.tokens import Tokens
from onnxq.errors import ModelError
from onnxq.model.footprint import measure_footprint
from onnxq.model.graph import Graph
from onnxq.model.memory import hand_back
from onnxq.model.model import Model
from onnxq.model.session import Runtime, open_session, run, with_outputs
from onnxq.validation.cut import OWN, cut
from onnxq.validation.interface import choose_outputs
from onnxq.validation.output_parts import Parts, parts_of
from onnxq.validation.pairing import Pairing, pair
from onnxq.validation.powers import difference
from onnxq.validation.same_shapes import of_same_shapes
from onnxq.validation.suffix import RunSuffix, stages_of, suffix_of
from onnxq.validation.windows import (
    Need,
    Window,
    all_in_one,
    bytes_of,
    join_windows,
    window_of_each,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session

Array = NDArray[Any]
Feeds = Mapping[str, Array]

MEMORY_FOR_TENSORS = 1 << 24
"""Bytes that the paired tensors of one batch may take, where it has several samples."""


@dataclass(frozen=True)
class Pace:
    """How batches run; it follows from the model and the data.

    Attributes:
        size: samples of a batch; None where the model fixes it.
        large: whether a batch takes much memory: then one runs at a time, on all cores, and no
            session keeps memory.
    """

    size: int | None
    large: bool

    @property
    def workers(self) -> int:
        """Batches that run side by side."""
        return 1 if self.large else WORKERS

    def open(self, model: ModelProto, *, keep_qdq: bool = False) -> Session:
        """A session with its part of the cores."""
        return open_session(model, keep_qdq=keep_qdq, **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """Of `open_session`."""
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        return {
            "threads": threads, "yields": True, "lean": self.large, "arena": not self.large,
        }  # fmt: skip

    def batches(self, batches: Iterable[Feeds]) -> list[Feeds]:
        """The same samples in batches of this size."""
        found = list(batches)
        if self.size is None or (self.size == 1 and all(samples_in(each) == 1 for each in found)):
            return found
        return regroup(found, self.size)


@dataclass(frozen=True)
class Bench:
    """Two models, and what is measured of them at a time.

    Attributes:
        outputs: names of the model's outputs that errors are measured at.
        parts: of these outputs, what has a signal and a noise of its own.
        pace: how batches run.
        windows: the layers, in the order of the model.
        sample: the largest one.
        footprint: bytes of all tensors of the float model, of the largest sample.
    """

    pairing: Pairing
    outputs: tuple[str, ...]
    parts: Parts
    pace: Pace
    windows: tuple[Window, ...]
    sample: Feeds
    footprint: int
    _opened: list[OpenWindow] = field(default_factory=list)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' outputs."""
        return tuple(layer.output for layer in self.pairing.layers)

    def open(self) -> Iterator[OpenWindow]:
        """Each window with its sessions, those of one at a time."""
        for window in self.windows:
            if not self._opened or self._opened[0].window is not window:
                self.close()
                self._opened.append(open_window(self, window))
            yield self._opened[0]

    def close(self) -> None:
        """Let go of the sessions."""
        self._opened.clear()
        if self.pace.large:
            hand_back()


@dataclass(frozen=True)
class OpenWindow:
    """Some layers, and what runs to measure them.

    Attributes:
        exact: the float model.
        standing: the quantized model.
    """

    bench: Bench
    window: Window
    exact: Session
    standing: Session

    @cached_property
    def own(self) -> Session:
        """The quantized model's layers, each fed with the float model's values."""
        return self._pieces(self.bench.pairing.quantized, keep_qdq=True)

    @cached_property
    def rounded_weights(self) -> Session:
        """The same of it without Q/DQ."""
        return self._pieces(self.bench.pairing.stripped)

    @cached_property
    def behind(self) -> dict[str, RunSuffix]:
        """Layer output → the float model from its stage on."""
        bench, reads = self.bench, sorted(self.window.behind - set(self.bench.sample))
        found = run(self.exact, reads, bench.sample) if reads else []
        known = {**bench.sample, **dict(zip(reads, found, strict=True))}
        return {
            name: opened
            for stage in self.window.stages
            for opened in [
                suffix_of(bench.pairing.exact, stage, bench.outputs).open(
                    known, **bench.pace.options
                )
            ]
            for name in stage
        }

    def exact_values(self, feeds: Feeds) -> dict[str, Array]:
        """The float model's outputs, the window's tensors, and what is computed from."""
        wanted = {*self.bench.outputs, *self.window.shown} - set(feeds)
        names = [each.name for each in self.exact.get_outputs() if each.name in wanted]
        return {**feeds, **dict(zip(names, run(self.exact, names, feeds), strict=True))}

    def standing_values(self, feeds: Feeds) -> tuple[dict[str, Array], dict[str, Array]]:
        """The quantized model's outputs, and its layers' on its own scale."""
        names = list(dict.fromkeys([*self.bench.outputs, *self.window.layers]))
        found = dict(zip(names, run(self.standing, names, feeds), strict=True))
        outputs = {name: found[name] for name in self.bench.outputs}
        return outputs, {name: found[name] for name in self.window.layers}

    def from_exact(self, session: Session, feeds: Feeds, exact: Feeds) -> dict[str, Array]:
        """Layer output → its value computed from exact inputs, on the quantized model's scale."""
        layers, pairing = self.window.layers, self.bench.pairing
        given = {name: pairing.to_quantized(name, exact[name]) for name in self.window.own}
        results = run(session, [name + OWN for name in layers], {**given, **feeds})
        return dict(zip(layers, results, strict=True))

    def errors(self, values: dict[str, Array], exact: Feeds) -> Iterator[tuple[str, Array]]:
        """Layer output → its error, on the float model's scale; each of `values` is let go of."""
        for name in list(values):
            got = self.bench.pairing.to_exact(name, values.pop(name))
            yield name, difference(got, exact[name])

    def real(self, name: str, values: Array, feeds: Feeds) -> Array:
        """A tensor with zeros where the samples are padding."""
        real = self.bench.parts.tokens.real(name, values.shape, feeds)
        return values if real is None else np.where(real, values, values.dtype.type(0))

    def kept(self, exact: Feeds, feeds: Feeds) -> Feeds:
        """Tensors of the float model without padding, see `Tokens.kept`."""
        real = real_positions(feeds)
        if real is None:
            return exact
        found = {
            name: self.bench.parts.tokens.kept(name, each, real) for name, each in exact.items()
        }
        return {name: exact[name] if each is None else each for name, each in found.items()}

    def _pieces(self, model: Model, *, keep_qdq: bool = False) -> Session:
        layers = set(self.window.layers)
        return self.bench.pace.open(
            cut(model, self.bench.pairing.tensors, layers), keep_qdq=keep_qdq
        )


def open_window(bench: Bench, window: Window) -> OpenWindow:
    """Open what every measurement of a window runs.

    What is an output decides what ONNX Runtime fuses, so the others' tensors count too.
    """
    exact, pairing = {spec.name for spec in bench.pairing.exact.inputs}, bench.pairing
    every = all_in_one(bench.windows)
    shown = {*bench.outputs, *window.shown} - exact
    others = {*pairing.tensors, *every.shown} - shown - exact
    standing = list(dict.fromkeys([*bench.outputs, *window.layers]))
    unseen = [name for name in every.layers if name not in standing]
    return OpenWindow(
        bench, window,
        bench.pace.open(with_group(pairing.exact, sorted(shown), sorted(others))),
        bench.pace.open(with_group(pairing.quantized, standing, unseen), keep_qdq=True),
    )  # fmt: skip


def open_bench(
    float_model: Model,
    quantized: Model,
    batches: Sequence[Feeds],
    outputs: Sequence[str] = (),
    *,
    limits: Limits = USUAL,
    largest: Feeds | None = None,
) -> Bench:
    """Pair the models and plan how they run; tensors are not paired whose shapes differ.

    Args:
        batches: some samples, to see shapes and the outputs' parts on.
        outputs: names of outputs to measure at, () for all.
        largest: the largest sample; by default the first of the batches.

    Raises:
        UsageError: no such output.
        ModelError: a model does not run, or what it records of its scales does not fit its tensors.
    """
    chosen, sample = choose_outputs(float_model, outputs), as_feeds(largest or batches[0])
    fixed = sample.axes.fixed
    sample = sample if fixed else sample.take([0])
    pairing = pair(float_model, quantized)
    given = [sample, *map(as_feeds, batches)]
    given = given if fixed else [each.take([0]) for each in given]
    pairing = of_same_shapes(pairing, float_model, quantized, given)
    sizes = measure_footprint(pairing.exact, sample, Runtime()).sizes
    footprint = sum(sizes.values())
    each = bytes_of(pairing.tensors, sizes)
    most = limits.exactly or limits.batch_size
    size = None if fixed else int(np.clip(MEMORY_FOR_TENSORS // max(each, 1), 1, most))
    pace = Pace(size, each * (size or 1) > SMALL)
    tokens = OneSample(pairing.exact, lambda: sample).tokens
    pace, parts = _started(pairing.exact, pace, chosen, batches, tokens)
    sizes = {name: taken * (pace.size or 1) for name, taken in sizes.items()}
    layers = [layer.output for layer in pairing.layers]
    stages = stages_of(layers, sizes, pairing.exact.size)
    need = Need(pairing, chosen, sizes, Graph(pairing.exact))
    room = int(TENSORS * limits.budget) // pace.workers
    windows = join_windows(window_of_each(pairing, stages, chosen), need, room)
    return Bench(pairing, chosen, parts, pace, windows, sample, footprint)


def _started(
    exact: Model, pace: Pace, outputs: Sequence[str], batches: Sequence[Feeds], tokens: Tokens
) -> tuple[Pace, Parts]:
    """The parts of the outputs, and the pace that the model bears: it may take one sample only."""
    session = pace.open(with_outputs(exact, outputs))
    try:
        return pace, parts_of(session, outputs, pace.batches(batches), tokens)
    except ModelError:
        if pace.size in {None, 1}:
            raise
        single = replace(pace, size=1)
        return single, parts_of(session, outputs, single.batches(batches), tokens)
