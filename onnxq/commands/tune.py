"""Try many ways to quantize a model, and take the best of those that hold a gate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from onnxq.cluster import Cluster, connected
from onnxq.commands.account import HERE
from onnxq.commands.attempt import (
    Attempt,
    Metric,
    Outcome,
    Piece,
    attempt,
    attempt_piece,
    made,
    metrics_of,
)
from onnxq.commands.bench import bench
from onnxq.commands.candidates import ROUNDS, Candidate, activation_bits, schemes_of
from onnxq.commands.choice import Row, choose, marked
from onnxq.commands.inputs import source_of
from onnxq.commands.machine_target import with_target
from onnxq.commands.quantize import calibration_of, ground_of
from onnxq.commands.tuning_state import State, key_of
from onnxq.commands.validate import opened, validate
from onnxq.data.python_values import require_shareable
from onnxq.data.sizes import parse_shapes
from onnxq.data.source import DataSource
from onnxq.errors import ModelError, OnnxqError
from onnxq.model.already import require_float
from onnxq.model.cuda import refusal_of_tensorrt
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel
from onnxq.model.static import with_shapes
from onnxq.options import recipe
from onnxq.options.bench import BenchOptions
from onnxq.options.fields import options_of
from onnxq.options.quantize import QuantizeOptions
from onnxq.options.shared import BATCH_SIZE
from onnxq.options.tune import TuneOptions
from onnxq.options.validate import ValidateOptions
from onnxq.progress import Progress
from onnxq.quantization.account import Speed
from onnxq.shown import Shown
from onnxq.targets import SHIPPED, Target, target_named

SECONDS = 1.0
"""Time for which a candidate and the float model are timed together."""

FLOAT = "float"
"""What the state calls the float model's own outcome."""

Tell = Callable[[Row, int], object]
"""Told of each candidate as it is done, and how many were before."""


@dataclass(frozen=True, repr=False)
class Tuning(Shown):
    """What `tune` found.

    Attributes:
        target: that was tuned for, and its `resolved` note where it was `auto`.
        metric: the one that a gate looks at; `drop_unit` is that of its drop.
        floats: the float model's metrics.
        rows: the candidates in the order in which they were tried.
        why: the reason for the row that was chosen, or for none.
        left: candidates that the budget left out.
        untimed: why nothing was timed; "" where candidates were.
        options: of the row that was chosen, for `quantize`; None for none.
        recipe: the same as TOML; "" for none.
        seconds: of this run.
    """

    model: str
    target: str
    resolved: str
    execution: str
    metric: str
    max_drop: float | None
    drop_unit: str
    float_size: int
    floats: Mapping[str, Metric]
    samples: int
    rows: tuple[Row, ...]
    why: str
    left: tuple[Candidate, ...]
    untimed: str
    options: QuantizeOptions | None
    recipe: str
    budget: float
    seconds: float

    @property
    def chosen(self) -> Row | None:
        return next((row for row in self.rows if row.chosen), None)

    @property
    def ended(self) -> bool:
        """Whether all candidates were tried."""
        return not self.left


@dataclass(frozen=True)
class _Run:
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


def tune(
    model: Model,
    options: TuneOptions,
    progress: Progress,
    tell: Tell = lambda _row, _before: None,
) -> tuple[Model | None, Tuning]:
    """Try candidates within the budget; see `onnxq.api.tune`.

    Args:
        tell: told of each candidate as it is done.
    """
    since = time.monotonic()
    require_float(model)
    run, resolved = _begin(model, options, progress)
    schemes = schemes_of(run.target, [each.value for each in options.schemes])
    floats = _float_outcome(run)
    search = _Search(run, options, floats.size, since, tell)
    with _workers(options.dask) as cluster:
        for number, round_ in enumerate(ROUNDS, start=1):
            found = {row.candidate: row.outcome.sqnr if row.works else math.nan
                     for row in search.rows}  # fmt: skip
            search.try_all(round_(run.target, schemes, found), number, cluster)
            if search.left:
                break
    if not any(row.works for row in search.rows):
        raise ModelError(_all_failed(model, search.rows), hint="onnxq inspect shows the plan")
    chosen, why = choose(search.rows, floats.size)
    rows = marked(search.rows, chosen)
    best = None if chosen is None else rows[chosen].candidate
    taken = None if best is None else best.options(run.base)
    tuning = Tuning(
        model.name, run.target.name, resolved, options.execution.value,
        next(iter(floats.metrics)), options.max_drop,
        next((row.outcome.drop_unit for row in rows if row.works), ""),
        floats.size, floats.metrics, floats.samples, tuple(rows), why, tuple(search.left),
        run.untimed, taken, "" if taken is None else recipe.written(taken), options.budget,
        time.monotonic() - since,
    )  # fmt: skip
    return None if best is None else search.model_of(best), tuning


def _begin(model: Model, options: TuneOptions, progress: Progress) -> tuple[_Run, str]:
    """Open what all trials need; what is wrong with it ends here, before the long work."""
    base, resolved = with_target(_base(options))
    target = target_named(base.target)
    schemes_of(target, [each.value for each in options.schemes])
    judging = _judging(options)
    if options.dask is not None:
        for data in (options.data, options.validate_data):
            require_shareable(data, options.preprocess)
    fixed = with_shapes(model, parse_shapes(options.input_shapes, model.inputs))
    source = source_of(base, fixed, input_shapes=())
    checked = opened(judging, fixed)
    given = {
        "data": (options.data, source), "validate_data": (options.validate_data, checked),
    }  # fmt: skip
    key = {} if options.state is None else key_of(model, options, given)
    state = State(options.state, key, model.size)
    judging = replace(judging, data=checked)
    run = _Run(model, target, base, source, judging, state, _untimed(target), progress)
    return run, resolved


def _base(options: TuneOptions) -> QuantizeOptions:
    """What every candidate has in common, as `onnxq quantize` takes it."""
    same = options_of(QuantizeOptions).keys() & options_of(TuneOptions).keys()
    same -= {"validate_data", "max_drop"}
    values = {name: getattr(options, name) for name in same}
    values["batch_size"] = options.batch_size or BATCH_SIZE
    return QuantizeOptions(**values, speed=False)


def _judging(options: TuneOptions) -> ValidateOptions:
    """How candidates are compared with the float model; every drop is told."""
    same = options_of(ValidateOptions).keys() & options_of(TuneOptions).keys()
    same -= {"data", "samples", "max_drop", "dask"}
    values = {name: getattr(options, name) for name in same}
    return ValidateOptions(
        **values, data=options.validate_data, executions=(options.execution,), max_drop=math.inf
    )


def _untimed(target: Target) -> str:
    """Why candidates are not timed on this machine; "" where they can be."""
    if target.runtime == HERE:
        return ""
    refusal = refusal_of_tensorrt() if target.name in SHIPPED and target.runtime == "cuda" else None
    if refusal is not None:
        return f"made for {target.runs_on}, and {refusal}"
    return f"made for {target.runs_on}, which onnxq does not time"


def _float_outcome(run: _Run) -> Outcome:
    """The float model's own metrics: a wrong metric or missing labels end the command here."""
    name = run.state.name_of({"model": FLOAT})
    known = run.state.outcome(name)
    if known is not None:
        return known
    found = validate(run.model, [], replace(run.judging, max_drop=None), run.progress)
    outcome = Outcome(metrics_of(found.rows[0]), size=run.model.size, samples=found.samples)
    run.state.keep_outcome(name, outcome)
    return outcome


@contextmanager
def _workers(address: str | None) -> Iterator[Cluster | None]:
    if address is None:
        yield None
        return
    with connected(address) as cluster:
        yield cluster


class _Search:
    """The rows so far, and the best model so far."""

    def __init__(
        self, run: _Run, options: TuneOptions, float_size: int, since: float, tell: Tell
    ) -> None:
        self.rows: list[Row] = []
        self.left: list[Candidate] = []
        self._run = run
        self._options = options
        self._float_size = float_size
        self._end = since + options.budget
        self._tell = tell
        self._best: tuple[Candidate, Model] | None = None
        self._judged: dict[str, Row] = {}

    def try_all(
        self, candidates: Sequence[Candidate], number: int, cluster: Cluster | None
    ) -> None:
        """Try those that are expected to end within the budget, so many at a time as can run."""
        pending = [each for each in candidates if not self._recall(each)]
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

    def model_of(self, candidate: Candidate) -> Model:
        """The candidate's model: kept, or made again."""
        if self._best is not None and self._best[0] == candidate:
            return self._best[1]
        state = self._run.state
        known = state.model(state.name_of(candidate.settings))
        if known is not None:
            return known
        with self._run.progress.track(f"make {candidate.name} again", None):
            return made(self._run.model, self._run.asked(candidate), state, self._run.progress)[0]

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
        # The first tells how long the others may take.
        able = [each for each in pending if not self.rows or self._expected(each) <= remaining]
        now = able[: size if self.rows else 1]
        return now, [each for each in pending if each not in now]

    def _expected(self, candidate: Candidate) -> float:
        """Seconds: the longest of the same scheme so far, or else of all."""
        same = [row.outcome.seconds for row in self.rows
                if row.candidate.scheme == candidate.scheme and row.works]  # fmt: skip
        return max(same or [row.outcome.seconds for row in self.rows], default=0.0)

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
        chosen, _ = choose(self.rows, self._float_size)
        if model is not None and chosen is not None and self.rows[chosen] is row:
            self._best = (candidate, model)
            run.state.keep_model(name, model)
        # Last: what is kept without it is made again.
        run.state.keep_outcome(name, outcome)

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


def _timed(run: _Run, outcome: Outcome, model: Model) -> Outcome:
    """With the time of both models, in turns; CPU time, so that other work here is no part."""
    try:
        options = BenchOptions(data=run.judging.data, seconds=SECONDS)
        before, after = bench([run.model, model], options, run.progress).rows
    except OnnxqError as error:
        return replace(outcome, untimed=error.message)
    ratio = after.cpu_ratio.median
    return replace(outcome, speed=Speed(after.samples, before.cpu.median, after.cpu.median, ratio))


def _all_failed(model: Model, rows: Sequence[Row]) -> str:
    """Why there is no model, each reason once with the candidates that it is of."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reasons.setdefault(row.outcome.failure, []).append(row.candidate.name)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"no candidate of {model.name} could be made: {told or 'the target takes none'}"
