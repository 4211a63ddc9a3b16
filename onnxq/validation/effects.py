"""What the own error of each layer, by itself, does to the outputs of the float model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import decibels
from onnxq.data.ahead import map_ahead
from onnxq.data.batching import samples_in
from onnxq.errors import ModelError, ResourceError
from onnxq.progress import SILENT, Advance, Progress
from onnxq.validation.first_order import Slopes
from onnxq.validation.powers import power
from onnxq.validation.workbench import Bench, OpenWindow

Array = NDArray[Any]
Feeds = Mapping[str, Array]

WORST = 8
"""Layers, the worst of what was estimated, that are measured on all probes."""


@dataclass(frozen=True)
class Looks:
    """Batches of probes.

    Attributes:
        slopes: what tells effects by gradients; None for nothing.
        singly: probes that it looks at, one by one.
        first: those that all other layers are run on.
        probes: all of them, for the worst layers.
    """

    slopes: Slopes | None
    singly: Sequence[Feeds]
    first: Sequence[Feeds]
    probes: Sequence[Feeds]


@dataclass(frozen=True)
class Effects:
    """Powers at the parts of the outputs, each (parts,), summed over the probes.

    Attributes:
        signal: of the float model's outputs.
        total: of the quantized model's error.
        noise: layer output → of the error if this layer alone is quantized.
        estimated: layers whose noise follows from gradients, or from runs on a few samples.
        first_look: samples that they were estimated on; all probes where none was.
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


Errors = Iterator[tuple[str, Array]]


class Effect(Protocol):
    """Tells, of layers' own errors, the powers at the parts of the outputs, on one batch."""

    def __call__(self, feeds: Feeds, exact: Feeds, errors: Errors) -> Mapping[str, Array]: ...


class Finder(Protocol):
    """Opens an `Effect` of some layers in each window."""

    @property
    def layers(self) -> Collection[str]: ...

    def open(self, opened: OpenWindow) -> Effect: ...


@dataclass(frozen=True)
class Runs:
    """Finds effects by running what lies behind each of the layers."""

    layers: Collection[str] = ()

    def open(self, opened: OpenWindow) -> Effect:
        chosen = [name for name in opened.window.layers if name in self.layers]
        behind = {name: opened.behind[name] for name in chosen}
        parts = opened.bench.parts

        def effect(feeds: Feeds, exact: Feeds, errors: Errors) -> dict[str, Array]:
            noise = {name: np.zeros(len(parts.parts)) for name in chosen}
            for name, error in errors:
                if name in behind and error.any():
                    changed = behind[name](exact, name, error.astype(np.float32, copy=False))
                    noise[name] = parts.noise({**exact, **changed}, exact, feeds)
            return noise

        return effect


NOTHING = Runs()


def powers(opened: OpenWindow, feeds: Feeds, effect: Effect, *, standing: bool = True) -> Powers:
    """Of one batch and a window's layers.

    Args:
        effect: tells what the layers' own errors do at the outputs.
        standing: run the quantized model too.
    """
    parts, layers = opened.bench.parts, opened.window.layers
    real = partial(opened.real, feeds=feeds)
    exact = opened.exact_values(feeds)
    errors = {name: np.array([power(real(name, exact[name])), 0.0, 0.0]) for name in layers}
    total = np.zeros(len(parts.parts))
    if standing:
        outputs, values = opened.standing_values(feeds)
        total = parts.noise(outputs, exact, feeds)
        for name, error in opened.errors(values, exact):
            errors[name][1] = power(real(name, error))
    values = opened.from_exact(opened.own, feeds, exact) if layers else {}

    def own() -> Errors:
        for name, error in opened.errors(values, exact):
            errors[name][2] = power(real(name, error))
            yield name, error

    noise = effect(feeds, exact, own())
    return Powers(samples_in(feeds), parts.signal(exact, feeds), total, noise, errors)


def added(
    bench: Bench,
    batches: Callable[[], Iterable[Feeds]],
    finder: Finder = NOTHING,
    *,
    standing: bool = True,
    advance: Advance = lambda _: None,
) -> Powers:
    """Of all batches, which run side by side.

    Args:
        batches: gives them, once for each window.
        finder: finds the effects on the model's outputs.
        standing: run the quantized model too.
        advance: is told of the samples, for each window.
    """
    found: Powers | None = None
    for opened in bench.open():
        part = _added(opened, batches(), finder, standing, advance)
        found = part if found is None else found | part
    if found is None:  # pragma: no cover - there is a window, if of no layer
        raise ValueError("no window")
    return found


def _added(
    opened: OpenWindow, batches: Iterable[Feeds], finder: Finder, standing: bool, advance: Advance
) -> Powers:
    nothing, names = np.zeros(len(opened.bench.parts.parts)), opened.window.layers
    chosen = [name for name in names if name in finder.layers]
    total = Powers(0, nothing, nothing, dict.fromkeys(chosen, nothing),
                   dict.fromkeys(names, np.zeros(3)))  # fmt: skip
    _ = opened.own if names else None  # before several threads ask for it
    effect, workers = finder.open(opened), opened.bench.pace.workers

    def work(feeds: Feeds) -> Powers:
        return powers(opened, feeds, effect, standing=standing)

    for each in map_ahead(work, batches, workers=workers, ahead=1):
        total += each
        advance(each.samples)
    return total


def measure_effects(
    bench: Bench, looks: Looks, progress: Progress = SILENT
) -> tuple[Effects, Powers]:
    """Estimate the effects of all layers, and measure those of the worst on all probes.

    Returns:
        The effects, and the powers of all probes.
    """
    count = sum(map(samples_in, looks.probes))
    exhaustive = looks.slopes is None and sum(map(samples_in, looks.first)) == count
    choose = len(bench.layers) > WORST and not exhaustive
    estimates = _estimates(bench, looks, progress) if choose else []
    relative = {
        name: _relative(noise, each.signal)
        for each in estimates
        for name, noise in each.noise.items()
    }
    order = sorted(relative, key=lambda name: -relative[name])
    worst = order[:WORST] if estimates else bench.layers
    with progress.track("measure layers", count * len(bench.windows)) as advance:
        whole = added(bench, lambda: looks.probes, Runs(worst), advance=advance)
    noise = dict(whole.noise)
    for each in estimates:
        noise |= _scaled(each, whole)
    looked = estimates[0].samples if estimates else count
    estimated = frozenset(noise) - frozenset(worst)
    return Effects(whole.signal, whole.total, noise, estimated, looked), whole


def _estimates(bench: Bench, looks: Looks, progress: Progress) -> list[Powers]:
    """Rough effects of all layers: by gradients, and by runs of those that have none."""
    found: list[Powers] = []
    if looks.slopes is not None:
        try:
            found.append(_finite(_look(bench, looks.singly, looks.slopes, progress)))
        except (ModelError, ResourceError):
            # The model itself runs: there are always the runs.
            found.clear()
    known = {name for each in found for name in each.noise}
    left = [name for name in bench.layers if name not in known]
    return found + ([_look(bench, looks.first, Runs(left), progress)] if left else [])


def _look(bench: Bench, batches: Sequence[Feeds], finder: Finder, progress: Progress) -> Powers:
    count = sum(map(samples_in, batches)) * len(bench.windows)
    with progress.track("look at layers", count) as advance:
        return added(bench, lambda: batches, finder, standing=False, advance=advance)


def _finite(found: Powers) -> Powers:
    noise = {name: each for name, each in found.noise.items() if np.isfinite(each).all()}
    return replace(found, noise=noise)


def _scaled(rough: Powers, whole: Powers) -> dict[str, Array]:
    """What was estimated, for all probes.

    What the worst layers came to more than they were estimated at, the others do, too.
    """
    names = [name for name in rough.noise if name in whole.noise]
    nothing = np.zeros(len(whole.signal))
    before = sum((rough.noise[name] for name in names), nothing)
    after = sum((whole.noise[name] for name in names), nothing)
    usual = np.full(len(before), whole.samples / max(rough.samples, 1))
    factors = np.divide(after, before, out=usual, where=before > 0)
    return {name: each * factors for name, each in rough.noise.items() if name not in names}
