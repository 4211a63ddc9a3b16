"""What the own error of each layer, by itself, does to the outputs of the float model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import decibels
from onnxq.data.ahead import map_ahead
from onnxq.data.batching import samples_in
from onnxq.progress import SILENT, Advance, Progress
from onnxq.validation.powers import power
from onnxq.validation.suffix import RunSuffix
from onnxq.validation.workbench import Bench, OpenWindow

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


@dataclass(frozen=True)
class Powers:
    """Σ x² over samples.

    Attributes:
        signal, total: see `Effects`.
        noise: layer output → see `Effects`; of the layers that were asked for.
        layers: layer output → (3,) of its exact values, its error as it stands, its own error.
    """

    samples: int
    signal: Array
    total: Array
    noise: Mapping[str, Array]
    layers: Mapping[str, Array]

    def __add__(self, other: Powers) -> Powers:
        """Of other samples too."""
        return Powers(
            self.samples + other.samples, self.signal + other.signal, self.total + other.total,
            {name: mine + other.noise[name] for name, mine in self.noise.items()
             if name in other.noise},
            {name: mine + other.layers[name] for name, mine in self.layers.items()},
        )  # fmt: skip

    def __or__(self, other: Powers) -> Powers:
        """Of other layers too, on the same samples."""
        return replace(
            self, noise={**self.noise, **other.noise}, layers={**self.layers, **other.layers}
        )


def powers(opened: OpenWindow, feeds: Feeds, behind: Mapping[str, RunSuffix]) -> Powers:
    """Of one batch and a window's layers.

    Args:
        behind: layer output → what lies behind it, of the layers whose effect on the model's
            outputs is measured.
    """
    parts, layers = opened.bench.parts, opened.window.layers
    real = partial(opened.real, feeds=feeds)
    exact = opened.exact_values(feeds)
    outputs, values = opened.standing_values(feeds)
    total = parts.noise(outputs, exact, feeds)
    errors = {name: np.array([power(real(name, exact[name])), 0.0, 0.0]) for name in layers}
    for name, error in opened.errors(values, exact):
        errors[name][1] = power(real(name, error))
    noise = {name: np.zeros(len(parts.parts)) for name in behind}
    values = opened.from_exact(opened.own, feeds, exact) if layers else {}
    for name, error in opened.errors(values, exact):
        errors[name][2] = power(real(name, error))
        if name in behind and errors[name][2] > 0:
            changed = behind[name](exact, name, error.astype(np.float32, copy=False))
            noise[name] = parts.noise({**exact, **changed}, exact, feeds)
    return Powers(samples_in(feeds), parts.signal(exact, feeds), total, noise, errors)


def added(
    bench: Bench,
    batches: Callable[[], Iterable[Feeds]],
    layers: Collection[str] = (),
    *,
    advance: Advance = lambda _: None,
) -> Powers:
    """Of all batches, which run side by side.

    Args:
        batches: gives them, once for each window.
        layers: outputs of those whose effect on the model's outputs is measured.
        advance: is told of the samples, for each window.
    """
    found: Powers | None = None
    for opened in bench.open():
        part = _added(opened, batches(), layers, advance)
        found = part if found is None else found | part
    if found is None:  # pragma: no cover - there is a window, if of no layer
        raise ValueError("no window")
    return found


def _added(
    opened: OpenWindow, batches: Iterable[Feeds], layers: Collection[str], advance: Advance
) -> Powers:
    nothing, names = np.zeros(len(opened.bench.parts.parts)), opened.window.layers
    chosen = [name for name in names if name in layers]
    behind = {name: opened.behind[name] for name in chosen}
    total = Powers(0, nothing, nothing, dict.fromkeys(chosen, nothing),
                   dict.fromkeys(names, np.zeros(3)))  # fmt: skip
    _ = opened.own if names else None  # before several threads ask for it
    work, workers = partial(powers, opened, behind=behind), opened.bench.pace.workers
    for each in map_ahead(work, batches, workers=workers, ahead=1):
        total += each
        advance(each.samples)
    return total


def measure_effects(
    bench: Bench, looks: Looks, progress: Progress = SILENT
) -> tuple[Effects, Powers]:
    """Measure all layers on the first look, the worst of them on the other probes too.

    Returns:
        The effects, and the powers of all probes.
    """
    probes = sum(map(samples_in, [*looks.first, *looks.rest]))
    with progress.track("measure layers", probes * len(bench.windows)) as advance:
        first = added(bench, lambda: looks.first, bench.layers, advance=advance)
        order = sorted(bench.layers, key=lambda n: -_relative(first.noise[n], first.signal))
        worst = order[:WORST] if looks.rest else order
        whole = first + added(bench, lambda: looks.rest, worst, advance=advance)
    # What the probes have more of than the first look, they have of every layer.
    before = sum((first.noise[name] for name in worst), np.zeros(len(whole.signal)))
    after = sum((whole.noise[name] for name in worst), np.zeros(len(whole.signal)))
    factors = np.divide(after, before, out=np.ones(len(before)), where=before > 0)
    estimated = {name: first.noise[name] * factors for name in order if name not in worst}
    noise = {name: whole.noise[name] for name in worst} | estimated
    effects = Effects(whole.signal, whole.total, noise, frozenset(estimated), first.samples)
    return effects, whole
