"""Which of several candidates is taken, and which are worth a look."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from onnxq.commands.attempt import Outcome
from onnxq.commands.candidates import HELPS, Candidate

SAME_TIME, SAME_SIZE = 1.1, 1.1
"""Ratios up to which times and sizes count as equal: what timing again may change, and what differs
where only scales do. (SqueezeNet's w8a8 and w7a8, which run the same kernels, differed by 8 %.)"""

PAYS = 0.9
"""Share of the float model's time up to which a model is faster than it."""


FINALISTS = 3
"""Rows between which times that were taken at different moments do not decide."""


@dataclass(frozen=True)
class Row:
    """A candidate with what it came to.

    Attributes:
        work: what decides the speed where nothing is timed: the mean width of activations, bits.
        holds: whether it is within the gate; None where there is none.
        reused: whether an earlier run has measured it.
        pareto: whether no other is better in one of SQNR, size and time, and as good in the rest.
    """

    candidate: Candidate
    outcome: Outcome
    work: float
    holds: bool | None = None
    reused: bool = False
    pareto: bool = False
    chosen: bool = False

    @property
    def works(self) -> bool:
        return not self.outcome.failure

    @property
    def distinct(self) -> bool:
        """Whether it works, and no earlier row has the same model."""
        return self.works and not self.outcome.same_as

    @property
    def sqnr(self) -> float:
        """Of the worst output, dB; −inf where nothing could be compared."""
        return -math.inf if math.isnan(self.outcome.sqnr) else self.outcome.sqnr


def time_of(rows: Sequence[Row]) -> Callable[[Row], float]:
    """Time by that of the float model; the work where none of the rows is timed."""
    if all(row.outcome.speed is None for row in rows):
        return lambda row: row.work
    return lambda row: math.inf if row.outcome.speed is None else row.outcome.speed.ratio


def choose(
    rows: Sequence[Row], float_size: int, among: Collection[int] | None = None
) -> tuple[int | None, str]:
    """The row to take, and why that one; None where none is within the gate, or none works.

    Within a gate the fastest counts, then the smallest, then the closest to the float model.
    Without one the closest of those that pay, then the fastest, then the smallest.

    Args:
        among: numbers of the rows that may be taken; None for all.
    """
    able = range(len(rows)) if among is None else among
    working = [number for number in sorted(able) if rows[number].distinct]
    time = time_of([rows[number] for number in working])
    timed = any(rows[number].outcome.speed is not None for number in working)
    fastest, same = ("fastest", SAME_TIME) if timed else ("narrowest", 1.0)
    if any(rows[number].holds is not None for number in working):
        holding = [number for number in working if rows[number].holds]
        if not holding:
            return None, "none is within the gate"
        pool = _least(holding, lambda each: time(rows[each]), same)
        pool = _least(pool, lambda each: rows[each].outcome.size, SAME_SIZE)
        why = f"the {fastest} within the gate, of equals the smallest, then the closest"
        return max(pool, key=lambda each: (rows[each].sqnr, -each)), why
    if not working:
        return None, "none could be made"
    smaller = [number for number in working if rows[number].outcome.size < float_size]
    paying = [number for number in smaller if timed and time(rows[number]) <= PAYS]
    pool, of = paying or smaller or working, "those that could be made"
    if paying:
        of = "those that are smaller and faster than the float model"
    elif smaller:
        of = "those that are smaller than the float model"
    best = max(rows[number].sqnr for number in pool)
    pool = [number for number in pool if rows[number].sqnr >= best - HELPS]
    pool = _least(pool, lambda each: time(rows[each]), same)
    why = f"the closest to the float model of {of}, of equals the {fastest}, then the smallest"
    return min(pool, key=lambda each: (rows[each].outcome.size, each)), why


def finalists(rows: Sequence[Row], float_size: int) -> list[int]:
    """The row that `choose` takes, and those that it would take without that one, and so on."""
    found: list[int] = []
    among = set(range(len(rows)))
    while len(found) < FINALISTS:
        best, _ = choose(rows, float_size, among)
        if best is None:
            break
        found.append(best)
        among.remove(best)
    return found


def _least(numbers: Sequence[int], value: Callable[[int], float], same: float) -> list[int]:
    """Those whose value is the least, or counts as equal to it."""
    least = min(map(value, numbers))
    return [each for each in numbers if value(each) <= least * same]


def marked(rows: Sequence[Row], chosen: int | None) -> list[Row]:
    """The rows with what `pareto` and `chosen` say."""
    working = [row for row in rows if row.distinct]
    time = time_of(working)

    def steps(row: Row) -> tuple[float, float, float]:
        """SQNR, size and time in steps of what counts as equal; more is better."""
        return (
            row.sqnr if math.isinf(row.sqnr) else round(row.sqnr / HELPS),
            -round(math.log(max(row.outcome.size, 1)) / math.log(SAME_SIZE)),
            -_step(time(row)),
        )

    places = [steps(row) for row in working]

    def beaten(place: tuple[float, float, float]) -> bool:
        return any(
            other != place and all(a >= b for a, b in zip(other, place, strict=True))
            for other in places
        )

    return [
        replace(row, pareto=row.distinct and not beaten(steps(row)), chosen=number == chosen)
        for number, row in enumerate(rows)
    ]


def _step(time: float) -> float:
    return time if math.isinf(time) else round(math.log(max(time, 1e-9)) / math.log(SAME_TIME))
