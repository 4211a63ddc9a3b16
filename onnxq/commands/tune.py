"""Try many ways to quantize a model, and take the best of those that hold a gate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from onnxq.cluster import Cluster, connected
from onnxq.commands.account import HERE
from onnxq.commands.attempt import Metric, Outcome, metrics_of
from onnxq.commands.candidates import ROUNDS, Candidate, schemes_of
from onnxq.commands.choice import Row, marked
from onnxq.commands.inputs import source_of
from onnxq.commands.machine_target import with_target
from onnxq.commands.provider import with_provider
from onnxq.commands.tuning_search import Run, Search, Tell
from onnxq.commands.tuning_state import State, key_of
from onnxq.commands.validate import first_metric, opened, require_deciding, validate
from onnxq.data.python_values import require_shareable
from onnxq.data.sizes import parse_shapes
from onnxq.errors import ModelError
from onnxq.model.already import require_float
from onnxq.model.cuda import refusal_of_tensorrt
from onnxq.model.model import Model
from onnxq.model.static import with_shapes
from onnxq.options import recipe
from onnxq.options.fields import options_of
from onnxq.options.quantize import QuantizeOptions
from onnxq.options.shared import BATCH_SIZE
from onnxq.options.tune import TuneOptions
from onnxq.options.validate import ValidateOptions
from onnxq.progress import Progress
from onnxq.shown import Shown
from onnxq.targets import SHIPPED, Target, target_named

FLOAT = "float"
"""What the state calls the float model's own outcome."""


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
    options, _ = with_provider(options)
    require_float(model)
    run, resolved = _begin(model, options, progress)
    schemes = schemes_of(run.target, [each.value for each in options.schemes])
    floats = _float_outcome(run)
    search = Search(run, options, floats.size, since, tell)
    with _workers(options.dask) as cluster:
        for number, round_ in enumerate(ROUNDS, start=1):
            found = {row.candidate: row.outcome.sqnr if row.works else math.nan
                     for row in search.rows}  # fmt: skip
            search.try_all(round_(run.target, schemes, found), number, cluster)
            if search.left:
                break
    if not any(row.works for row in search.rows):
        raise ModelError(_all_failed(model, search.rows), hint="onnxq inspect shows the plan")
    chosen, why = search.chosen()
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


def _begin(model: Model, options: TuneOptions, progress: Progress) -> tuple[Run, str]:
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
    require_deciding(model, judging, first_metric(judging, checked))
    given = {
        "data": (options.data, source), "validate_data": (options.validate_data, checked),
    }  # fmt: skip
    key = {} if options.state is None else key_of(model, options, given)
    state = State(options.state, key, model.size)
    judging = replace(judging, data=checked)
    run = Run(model, target, base, source, judging, state, _untimed(target), progress)
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
    same -= {"data", "samples", "max_drop", "dask", "input_shapes"}
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


def _float_outcome(run: Run) -> Outcome:
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


def _all_failed(model: Model, rows: Sequence[Row]) -> str:
    """Why there is no model, each reason once with the candidates that it is of."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reasons.setdefault(row.outcome.failure, []).append(row.candidate.name)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"no candidate of {model.name} could be made: {told or 'the target takes none'}"
