"""How long models take, side by side: interleaved, warm, medians with their spread.

What a machine does besides, and how warm it is, changes from second to second. So the models take
turns, each round in another order, and a ratio compares turns of one round. A turn runs a model
once unmeasured, which brings its weights back into the caches, and then for long enough to time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import samples_in
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.progress import SILENT, Progress

if TYPE_CHECKING:
    import onnxruntime as ort

Feeds = Mapping[str, NDArray[Any]]

LEAST, MOST = 5, 200
"""Rounds."""

TURN = 2e-3
"""Seconds that a turn is measured for, at least: a faster model runs several times in it."""


@dataclass(frozen=True)
class Spread:
    """A quantity measured many times: its median and its lower and upper quartile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | NDArray[np.float64]) -> Spread:
        low, median, high = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Latency:
    """How long one model takes for a run.

    Attributes:
        size: bytes of the model.
        threads: intra-operator threads.
        samples: of a run, in the first of the feeds.
        rounds: how often it was measured.
        wall, cpu: time on the clock, and time of all cores together; milliseconds.
        ratio, cpu_ratio: to the first model's in the same round.
    """

    model: str
    size: int
    provider: str
    threads: int
    samples: int
    rounds: int
    wall: Spread
    cpu: Spread
    ratio: Spread
    cpu_ratio: Spread


@dataclass(frozen=True)
class Contender:
    """A model that is ready to run.

    Attributes:
        feeds: what it runs on, by turns.
    """

    model: Model
    provider: str
    threads: int
    feeds: tuple[Feeds, ...]
    session: ort.InferenceSession

    def run(self, number: int) -> None:
        run(self.session, None, self.feeds[number % len(self.feeds)])

    def time(self, number: int, times: int = 1) -> tuple[float, float]:
        """Seconds of a run, on the clock and of all cores together; the mean of so many."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            self.run(number)
        return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


def open_contender(
    model: Model, feeds: Sequence[Feeds], *, provider: str = "cpu", threads: int = 1
) -> Contender:
    """Open a model as a user of ONNX Runtime does.

    Raises `ModelError` where it is refused, `ProviderError` where the provider is not there.
    """
    # Threads that wait in a loop for the next run would take the cores from the other models.
    session = open_session(model, provider=provider, threads=threads, yields=True)
    return Contender(model, provider, threads, tuple(feeds), session)


def measure(
    contenders: Sequence[Contender],
    *,
    seconds: float,
    least: int = LEAST,
    most: int = MOST,
    progress: Progress = SILENT,
) -> tuple[Latency, ...]:
    """Time the models, all of them together for about so many seconds.

    Args:
        least, most: rounds to make, however long or short they take.

    Raises:
        ModelError: a model does not run.
    """
    once = [_warm(each) for each in contenders]
    times = [max(1, math.ceil(TURN / max(wall, 1e-9))) for wall in once]
    turns = [wall * (1 + count) for wall, count in zip(once, times, strict=True)]
    rounds = int(np.clip(seconds / max(sum(turns), 1e-9), least, most))
    found = np.empty((rounds, len(contenders), 2))
    order = list(range(len(contenders)))
    with progress.track("time the models", rounds) as advance:
        for number in range(rounds):
            for index in order[number % len(order) :] + order[: number % len(order)]:
                contenders[index].run(number)
                found[number, index] = contenders[index].time(number, times[index])
            advance(1)
    return tuple(
        _latency(each, found[:, index], found[:, 0]) for index, each in enumerate(contenders)
    )


def _warm(contender: Contender) -> float:
    """Seconds of a run, once all memory is taken."""
    for number in range(len(contender.feeds)):
        contender.run(number)
    return contender.time(0)[0]


def _latency(
    contender: Contender, found: NDArray[np.float64], first: NDArray[np.float64]
) -> Latency:
    # Of a clock's tick or less nothing can be said; it must not end in a division by zero.
    ratios = found / np.maximum(first, 1e-9)
    return Latency(
        contender.model.name, contender.model.size, contender.provider, contender.threads,
        samples_in(contender.feeds[0]), len(found),
        *(Spread.of(1e3 * found[:, kind]) for kind in (0, 1)),
        *(Spread.of(ratios[:, kind]) for kind in (0, 1)),
    )  # fmt: skip
