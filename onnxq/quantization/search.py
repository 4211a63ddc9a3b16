"""The search for the layers to raise, so that a quantized model holds a gate.

Layers compute on wider activations where the target has some, then in float, in order of their
share of the output error: first all of them are wider, then one after the other is float. The
number of these steps doubles
until the gate holds, then the smallest number that holds is found by halving: 2·log₂(n) trials
instead of n. Each trial plans and corrects anew from the same calibration and equalization, and
is measured as it would be written, so a step that does not help is seen as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from onnxq.options.quantize import MAX_MINUTES, MAX_TRIALS

Made = TypeVar("Made")

FLOAT = "float"
"""What a layer becomes that is not quantized."""


@dataclass(frozen=True)
class Candidate:
    """A layer that can be raised.

    Attributes:
        node: its node.
        share: of the output error, %.
        weighted: whether it has a weight; one weighted layer stays quantized whatever happens.
        becomes: the scheme that it computes with, or `FLOAT`.
    """

    node: str
    share: float
    weighted: bool = True
    becomes: str = FLOAT

    def why(self, asked: str) -> str:
        """Why it stays in float, as the plan and the metadata say it."""
        return f"{asked} keeps it in float: {self.share:.2g} % of the output error"


@dataclass(frozen=True)
class Mixed:
    """What `--mixed` did.

    Attributes:
        share: what was asked for.
        layers: those that were raised, the most harmful first.
        sqnr_before, sqnr_after: of the quantized model without and with it, dB; NaN where not
            measured.
    """

    share: float
    layers: tuple[Candidate, ...]
    sqnr_before: float
    sqnr_after: float


@dataclass(frozen=True)
class Bounds:
    """What a search may cost: models made and measured, and time until the last one starts."""

    trials: int = MAX_TRIALS
    minutes: float = MAX_MINUTES


@dataclass(frozen=True)
class Criterion:
    """What must hold: `metric` may fall by `max_drop` below `float_value`, over `samples`.

    Units: of the metric, and of its drop. A metric that compares with the float model has no
    `float_value` (NaN).
    """

    metric: str
    unit: str
    float_value: float
    max_drop: float
    drop_unit: str
    samples: int


@dataclass(frozen=True)
class Measurement:
    """What one model gives: the metric, how far it fell, whether that is within the gate."""

    value: float
    drop: float
    passed: bool


@dataclass(frozen=True)
class Step:
    """One trial.

    Attributes:
        kept: number of layers that were raised; one counts twice that was wider, and is float.
        added: those of them that the step before has not.
        becomes: what each of these was raised to.
        value, drop, passed: what it measured.
    """

    kept: int
    added: tuple[str, ...]
    value: float
    drop: float
    passed: bool
    becomes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """The record.

    Attributes:
        criterion: what the trials were held to.
        steps: trials, in order of the number of layers raised.
        kept: the layers that are raised in the result, the most harmful first.
        passed: whether the result holds the gate.
        ended: why no further trial was made.
    """

    criterion: Criterion
    steps: tuple[Step, ...]
    kept: tuple[Candidate, ...]
    passed: bool
    ended: str


@dataclass(frozen=True)
class Trial(Generic[Made]):
    """A model that was made, and what it measured."""

    made: Made
    measured: Measurement


def search(
    criterion: Criterion,
    first: Trial[Made],
    rank: Callable[[], Sequence[Candidate]],
    attempt: Callable[[Sequence[Candidate]], Trial[Made]],
    bounds: Bounds,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Made, Search]:
    """Raise as few layers as hold the gate.

    Args:
        criterion: what `Measurement.passed` means, for the record.
        first: the trial with no layer raised.
        rank: what to raise in this order, the most harmful first; called only if the first trial
            fails. A layer may be there twice, wider first.
        attempt: makes and measures a model with these layers raised.
        bounds: where to give up.
        clock: seconds.

    Returns:
        The smallest trial that holds the gate, else the one with the smallest drop; the record.
    """
    end = clock() + 60 * bounds.minutes
    trials = {0: first}
    order: Sequence[Candidate] = () if first.measured.passed else rank()
    # The last weighted layer is never put back: what would be left is no quantized model.
    most = max((i for i, each in enumerate(order) if each.weighted), default=0)
    ended = ""
    while not ended:
        size = _next(trials, most)
        if size is None:
            ended = _verdict(trials, len(_raised(order[:most])))
        elif len(trials) >= bounds.trials:
            ended = f"{bounds.trials} trials were made"
        elif clock() >= end:
            ended = f"{bounds.minutes:g} minutes are over"
        else:
            trials[size] = attempt(_raised(order[:size]))
    passing = [size for size, trial in sorted(trials.items()) if trial.measured.passed]
    best = passing[0] if passing else min(trials, key=lambda s: (trials[s].measured.drop, s))
    steps: list[Step] = []
    for size, trial in sorted(trials.items()):
        added = order[steps[-1].kept if steps else 0 : size]
        measured = trial.measured
        steps.append(
            Step(
                size,
                tuple(each.node for each in added),
                measured.value,
                measured.drop,
                measured.passed,
                tuple(each.becomes for each in added),
            )
        )
    record = Search(criterion, tuple(steps), _raised(order[:best]), bool(passing), ended)
    return trials[best].made, record


def _raised(steps: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Each layer as the last step that has it leaves it."""
    return tuple({each.node: each for each in steps}.values())


def _next(trials: Mapping[int, Trial[Made]], most: int) -> int | None:
    """The number of layers to try next; None where the smallest that holds is known, or none."""
    passing = min((size for size, t in trials.items() if t.measured.passed), default=None)
    failing = max((size for size in trials if passing is None or size < passing), default=-1)
    if passing is None:
        return min(max(1, 2 * failing), most) if failing < most else None
    middle = (failing + passing) // 2
    return middle if middle > failing else None


def _verdict(trials: Mapping[int, Trial[Made]], raised: int) -> str:
    if trials[0].measured.passed:
        return "every layer can be quantized"
    if any(trial.measured.passed for trial in trials.values()):
        return "one layer less in float does not hold"
    return f"it does not hold with {raised} layers raised, which leaves one quantized"
