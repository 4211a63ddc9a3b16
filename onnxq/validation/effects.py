"""What the own error of each layer, by itself, does to the outputs of the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import decibels
from onnxq.data.source import samples_in
from onnxq.progress import SILENT, Advance, Progress
from onnxq.validation.bench import Bench, Parts

Array = NDArray[Any]
Feeds = Mapping[str, Array]

WORST = 8
"""Layers, the worst of the first look, that are measured on all probes."""


@dataclass(frozen=True)
class Looks:
    """The probes: batches that all layers are measured on, and those for the worst layers only."""

    first: Sequence[Feeds]
    rest: Sequence[Feeds]


@dataclass(frozen=True)
class Effects:
    """Powers at the parts of the outputs, each (parts,), summed over the probes.

    Attributes:
        signal: of the float model's outputs.
        total: of the quantized model's error.
        noise: layer output → of the error if this layer alone is quantized.
        estimated: layers whose noise was scaled up from the first look.
        first_look: samples of it.
    """

    signal: Array
    total: Array
    noise: Mapping[str, Array]
    estimated: frozenset[str]
    first_look: int

    def relative(self, noise: Array) -> float:
        """Σ over the parts of noise over signal; parts without a signal count for nothing."""
        return _relative(noise, self.signal)

    def sqnr(self, noise: Array) -> float:
        """Of the worst part that has a signal, dB."""
        return min(
            (decibels(s, n) for s, n in zip(self.signal, noise, strict=True) if s > 0),
            default=decibels(float(self.signal.sum()), float(noise.sum())),
        )


def _relative(noise: Array, signal: Array) -> float:
    present = signal > 0
    return float((noise[present] / signal[present]).sum())


class Batches(Protocol):
    """Whoever looks at each batch of the probes as it passes."""

    def add(self, feeds: Feeds, exact: Feeds, own: Feeds) -> Mapping[str, Array]:
        """Take one batch; returns the quantized model's outputs."""
        ...


def measure_effects(
    bench: Bench, looks: Looks, errors: Batches, progress: Progress = SILENT
) -> Effects:
    """Measure all layers on the first look, the worst of them on the other probes too."""
    worst = min(WORST, len(bench.layers)) if looks.rest else 0
    steps = len(bench.layers) * len(looks.first) + worst * len(looks.rest)
    with progress.track("measure layers", steps) as advance:
        first = _measure(bench, looks.first, bench.layers, errors, advance)
        order = sorted(bench.layers, key=lambda n: -_relative(first.noise[n], first.signal))
        rest = _measure(bench, looks.rest, order[:worst], errors, advance)
    signal = first.signal + rest.signal
    noise = {name: first.noise[name] + rest.noise[name] for name in order[:worst]}
    estimated = [name for name in bench.layers if looks.rest and name not in noise]
    # What the probes have more of than the first look, they have of every layer.
    before = sum((first.noise[name] for name in noise), np.zeros(len(signal)))
    after = sum(noise.values(), np.zeros(len(signal)))
    factors = np.divide(after, before, out=np.ones(len(signal)), where=before > 0)
    noise |= {name: first.noise[name] * (factors if looks.rest else 1.0)
              for name in bench.layers if name not in noise}  # fmt: skip
    return Effects(
        signal, first.total + rest.total, noise, frozenset(estimated),
        sum(map(samples_in, looks.first)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Powers:
    signal: Array
    total: Array
    noise: Mapping[str, Array]


def _measure(
    bench: Bench,
    batches: Sequence[Feeds],
    layers: Sequence[str],
    errors: Batches,
    advance: Advance,
) -> _Powers:
    parts: Parts = bench.parts
    nothing = np.zeros(len(parts.parts))
    signal, total = nothing.copy(), nothing.copy()
    noise = {name: nothing.copy() for name in layers}
    for feeds in batches:
        exact = bench.exact_values(feeds)
        own = bench.from_exact(bench.own, feeds, exact)
        signal += parts.signal(exact)
        total += parts.noise(errors.add(feeds, exact, own), exact)
        for name in layers:
            error = (own[name] - exact[name]).astype(np.float32)
            if error.any():
                noise[name] += parts.noise(bench.with_error(exact, name, error), exact)
            advance(1)
    return _Powers(signal, total, noise)
