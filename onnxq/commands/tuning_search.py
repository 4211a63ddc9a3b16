"""The trials of `tune`: which is next, what becomes of it, and the best model so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from onnxq.cluster import Cluster
from onnxq.commands.account import speed_of
from onnxq.commands.attempt import Attempt, Outcome, Piece, attempt, attempt_piece, made
from onnxq.commands.bench import bench
from onnxq.commands.candidates import ROUNDS, Candidate, activation_bits, expected_seconds
from onnxq.commands.choice import Row, choose, finalists
from onnxq.commands.quantize import calibration_of, ground_of
from onnxq.commands.tuning_state import State
from onnxq.data.source import DataSource
from onnxq.errors import ModelError, OnnxqError
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel
from onnxq.options import recipe
from onnxq.options.bench import BenchOptions
from onnxq.options.quantize import QuantizeOptions
from onnxq.options.tune import TuneOptions
from onnxq.options.validate import ValidateOptions
from onnxq.progress import Progress
from onnxq.targets import Target

SECONDS = 1.0
"""Time for which a candidate and the float model are timed together."""

Tell = Callable[[Row, int], object]
"""Told of each candidate as it is done, and how many were before."""


@dataclass(frozen=True)
class Run:
    """What stays the same in all trials.

    Attributes:
        base: how every candidate is quantized, but for what it changes; as a recipe has it.
        source: of the calibration data, opened.
        judging: how candidates are validated, with the data opened.
        untimed: why none can be timed here; "" where they can.
    """

    model: Model
    target: Target
    base: QuantizeOptions
    source: DataSource
    judging: ValidateOptions
    state: State
    untimed: str
    progress: Progress

    def asked(self, candidate: Candidate, known: frozenset[str] = frozenset()) -> Attempt:
        options = candidate.options(self.base)
        ready = replace(options, data=self.source)
        return Attempt(ready, self.judging, recipe.written(options), known)


class Search:
    """The rows so far, and the best model so far."""

    def __init__(
        self, run: Run, options: TuneOptions, float_size: int, since: float, tell: Tell
    ) -> None:
        self.rows: list[Row] = []
        self.left: list[Candidate] = []
        self._run = run
        self._options = options
        self._float_size = float_size
        self._end = since + options.budget
        self._tell = tell
        self._models: dict[Candidate, Model] = {}
        self._judged: dict[str, Row] = {}

    def try_all(
        self, candidates: Sequence[Candidate], number: int, cluster: Cluster | None
    ) -> None:
        """Try those that are expected to end within the budget, so many at a time as can run."""
        pending = [each for each in candidates if not self._recall(each)]
        if not pending:
            return
        size = 1 if cluster is None else cluster.threads
        label = f"round {number} of {len(ROUNDS)}"
        with self._run.progress.track(label, len(pending)) as advance:
            while pending:
                now, pending = self._next(pending, size)
                if not now:
                    self.left += pending
                    return
                for candidate, outcome, model in self._attempted(now, cluster):
                    self._add(candidate, outcome, model)
                    advance(1)

    def chosen(self) -> tuple[int | None, str]:
        """The number of the row to take, and why; those that are near it are timed together."""
        best, why = choose(self.rows, self._float_size)
        if best is None or self.rows[best].outcome.speed is None:
            return best, why
        near = [best, *(each for each in self._wanted() if each != best and self._at_hand(each))]
        if len(near) > 1:
            self._time_together({each: self.model_of(self.rows[each].candidate) for each in near})
        return choose(self.rows, self._float_size, near)

    def _at_hand(self, number: int) -> bool:
        """Whether the row's model is kept, or the budget has room to make it again: which rows are
        among the best changes with those that come later.
        """
        candidate = self.rows[number].candidate
        room = self._end - time.monotonic()
        return self._known(candidate) is not None or self._expected(candidate) <= room

    def model_of(self, candidate: Candidate) -> Model:
        """The candidate's model: kept, or made again."""
        known = self._known(candidate)
        if known is None:
            run = self._run
            with run.progress.track(f"make {candidate.name} again", None):
                known, _ = made(run.model, run.asked(candidate), run.state, run.progress)
            self._models[candidate] = known
        return known

    def _known(self, candidate: Candidate) -> Model | None:
        state = self._run.state
        known = self._models.get(candidate)
        return state.model(state.name_of(candidate.settings)) if known is None else known

    def _time_together(self, models: Mapping[int, Model]) -> None:
        """Replace the rows' times, taken at different moments, by those of one series."""
        run = self._run
        with run.progress.track("time the best together", None), suppress(OnnxqError):
            options = BenchOptions(data=run.judging.data, seconds=SECONDS * len(models))
            before, *after = bench([run.model, *models.values()], options, run.progress).rows
            for number, timed in zip(models, after, strict=True):
                row = self.rows[number]
                outcome = replace(row.outcome, speed=speed_of(before, timed))
                self.rows[number] = replace(row, outcome=outcome)

    def _recall(self, candidate: Candidate) -> bool:
        """Take what an earlier run has found; whether it has."""
        state = self._run.state
        known = state.outcome(state.name_of(candidate.settings))
        if known is None:
            return False
        self._append(candidate, known, reused=True)
        return True

    def _next(
        self, pending: Sequence[Candidate], size: int
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Those to try now, and the rest; nothing to try where the budget has room for none."""
        remaining = self._end - time.monotonic()
        # Those that are begun first tell how long the others may take.
        able = [each for each in pending if not self.rows or self._expected(each) <= remaining]
        now = able[:size]
        return now, [each for each in pending if each not in now]

    def _expected(self, candidate: Candidate) -> float:
        taken = {row.candidate: row.outcome.seconds for row in self.rows if row.distinct}
        return expected_seconds(candidate, self._run.target, taken)

    def _attempted(
        self, candidates: Sequence[Candidate], cluster: Cluster | None
    ) -> Iterator[tuple[Candidate, Outcome, Model | None]]:
        """Each candidate with what it came to, as they are done."""
        run = self._run
        if cluster is None:
            for candidate in candidates:
                before = run.state.calibrating
                with run.progress.track(candidate.name, None):
                    asked = run.asked(candidate, frozenset(self._judged))
                    outcome, model = attempt(run.model, asked, run.state, run.progress)
                seconds = outcome.seconds - (run.state.calibrating - before)
                yield candidate, replace(outcome, seconds=seconds), model
            return
        pieces = [self._piece(candidate) for candidate in candidates]
        for number, (outcome, content) in cluster.map(attempt_piece, pieces):
            yield candidates[number], outcome, _unpacked(content)

    def _piece(self, candidate: Candidate) -> Piece:
        """For a worker, with the calibration that it needs."""
        run, asked = self._run, self._run.asked(candidate, frozenset(self._judged))
        with suppress(ModelError):  # the worker says so, of this candidate
            calibration_of(ground_of(run.model, asked.quantize), run.progress, run.state)
        return Piece(
            PortableModel.of(run.model), asked, run.state.calibrations(), self._options.libraries
        )

    def _add(self, candidate: Candidate, outcome: Outcome, model: Model | None) -> None:
        """Time it, keep what is known of it, and its model if it is the best so far."""
        run = self._run
        first = self._judged.get(outcome.content)
        if first is not None:
            outcome = _like(outcome, first)
        elif model is not None and run.untimed:
            outcome = replace(outcome, untimed=run.untimed)
        elif model is not None:
            with run.progress.track(f"time {candidate.name}", None):
                outcome = _timed(run, outcome, model)
        row = self._append(candidate, outcome, reused=False)
        name = run.state.name_of(candidate.settings)
        wanted = [self.rows[number].candidate for number in self._wanted()]
        if model is not None and row.candidate in wanted:
            self._models[candidate] = model
            run.state.keep_model(name, model)
        self._models = {each: known for each, known in self._models.items() if each in wanted}
        run.state.keep_only([run.state.name_of(each.settings) for each in wanted])
        # Last: what is kept without it is made again.
        run.state.keep_outcome(name, outcome)

    def _wanted(self) -> list[int]:
        """The rows whose models are kept: the best, where they are timed the next best, too, and
        the first, which others are compared with.
        """
        found = finalists(self.rows, self._float_size)
        if self._run.untimed:
            return found[:1]
        return [*found, *([0] if self.rows and self.rows[0].distinct and 0 not in found else [])]

    def _append(self, candidate: Candidate, outcome: Outcome, *, reused: bool) -> Row:
        max_drop = self._options.max_drop
        holds = None if max_drop is None or outcome.failure else outcome.drop <= max_drop
        work = activation_bits(candidate, self._run.target)
        row = Row(candidate, outcome, work, holds, reused)
        self.rows.append(row)
        if outcome.content and not outcome.same_as:
            self._judged[outcome.content] = row
        self._tell(row, len(self.rows) - 1)
        return row


def _unpacked(content: bytes) -> Model | None:
    return PortableModel(None, content, "").unpack() if content else None


def _like(outcome: Outcome, first: Row) -> Outcome:
    """The outcome of a model that another candidate has, too."""
    own = outcome.same_as or first.candidate.name
    return replace(first.outcome, size=outcome.size, seconds=outcome.seconds, same_as=own)


def _timed(run: Run, outcome: Outcome, model: Model) -> Outcome:
    """With the time of both models, in turns."""
    try:
        options = BenchOptions(data=run.judging.data, seconds=SECONDS)
        before, after = bench([run.model, model], options, run.progress).rows
    except OnnxqError as error:
        return replace(outcome, untimed=error.message)
    return replace(outcome, speed=speed_of(before, after))
