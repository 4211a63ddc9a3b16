"""What `tune` found: a line for each candidate, one table, what was chosen and why, a document."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from onnxq.commands.candidates import Candidate
from onnxq.commands.choice import SAME_TIME, time_of
from onnxq.formats.scheme import DEFAULT
from onnxq.report.table import Table, count, decibels, in_decibels, number, table
from onnxq.report.validation import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnxq.commands.attempt import Metric, OutputScore
    from onnxq.commands.choice import Row
    from onnxq.commands.tune import Tuning

MINUTE = 60

PLAIN = Candidate(DEFAULT)
"""What `quantize` makes where nothing is asked for."""


def line(row: Row, before: int) -> str:
    """A candidate as it is done: "3: w8a8, mixed 10 %: top1 88.1 %, 38.4 dB, …"."""
    head = f"{before + 1}: {row.candidate.name}: "
    if not row.works:
        return f"{head}failed: {row.outcome.failure}"
    outcome = row.outcome
    if outcome.same_as:
        return f"{head}the same model as {outcome.same_as}"
    name, first = next(iter(outcome.metrics.items()))
    parts = [
        "" if name == "sqnr" else f"{name} {_metric(first)}",
        f"worst output {in_decibels(outcome.sqnr)}",
        f"{number(outcome.size / 1e6, 3)} MB",
        "" if outcome.speed is None else f"{outcome.speed.ratio:.2f} × the float model's time",
        "within the gate" if row.holds else "",
        "from an earlier run" if row.reused else f"{outcome.seconds:.0f} s",
    ]
    return head + ", ".join(filter(None, parts))


def tuning_table(tuning: Tuning) -> Table:
    """All candidates, the best first, and the float model; others are in `failed_table`."""
    name, gated = tuning.metric, tuning.max_drop is not None
    timed = not tuning.untimed
    first = tuning.floats[name]
    drops = gated and tuning.drop_unit
    measured = [f">{name} ({first.unit})" if first.unit else f">{name}"] * (name != "sqnr")
    heads = [
        "Candidate", *measured,
        *([f">Drop ({tuning.drop_unit})" if drops else ">Drop"] * gated), ">Worst output (dB)",
        ">Size (MB)", *([">Time (ms)", ">By float"] * timed), *(["Gate"] * gated), "Mark",
    ]  # fmt: skip
    own = [
        f"{tuning.model} (float)", *([shown(first.value, first.unit)] * (name != "sqnr")),
        *([""] * gated), "", number(tuning.float_size / 1e6, 3),
        *([_float_time(tuning), ""] * timed), *([""] * gated), "",
    ]  # fmt: skip
    rows = [_cells(row, tuning, timed=timed) for row in ordered(tuning)]
    return table(" | ".join(heads), [own, *rows], title="Candidates")


def ordered(tuning: Tuning) -> list[Row]:
    """Those that work: the chosen one, those within the gate, the rest, each by its speed.

    Of the same model there is one row.
    """
    working = [row for row in tuning.rows if row.distinct]
    time = time_of(working)

    def step(row: Row) -> float:
        found = time(row)
        return found if math.isinf(found) else round(math.log(max(found, 1e-9), SAME_TIME))

    return sorted(
        working,
        key=lambda row: (
            (not row.chosen, row.holds is False, step(row), -row.sqnr)
            if tuning.max_drop is not None
            else (not row.chosen, False, -row.sqnr, step(row))
        ),
    )


def _cells(row: Row, tuning: Tuning, *, timed: bool) -> list[str]:
    outcome, gated = row.outcome, tuning.max_drop is not None
    first, speed = outcome.metrics[tuning.metric], outcome.speed
    marks = ["chosen"] * row.chosen + ["default"] * (row.candidate == PLAIN)
    marks += ["Pareto"] * row.pareto
    times = ["–", "–"] if speed is None else [number(speed.quantized_ms, 3), f"{speed.ratio:.2f} ×"]
    return [
        row.candidate.name,
        *([shown(first.value, first.unit)] * (tuning.metric != "sqnr")),
        *([number(outcome.drop, 3)] * gated),
        decibels(outcome.sqnr),
        number(outcome.size / 1e6, 3),
        *(times * timed),
        *(["holds" if row.holds else "fails"] * gated),
        ", ".join(marks),
    ]


def _float_time(tuning: Tuning) -> str:
    """The median of what the float model took beside each of the candidates."""
    times = sorted(row.outcome.speed.float_ms for row in tuning.rows if row.outcome.speed)
    return number(times[len(times) // 2], 3) if times else "–"


def failed_table(tuning: Tuning) -> Table:
    """Candidates without a row of their own, and why: failed, or the same model as another."""
    rows = [
        (row.candidate.name, row.outcome.failure or f"the same model as {row.outcome.same_as}")
        for row in tuning.rows
        if not row.distinct
    ]
    return table("Candidate | Reason", rows, title="No models of their own")


def lines(tuning: Tuning) -> Iterator[str]:
    """What was chosen and why, what is left, and what the numbers rest on."""
    yield verdict(tuning)
    default = next((row for row in tuning.rows if row.candidate == PLAIN), None)
    chosen = tuning.chosen
    if chosen is not None and default is not None and default is not chosen and default.works:
        yield f"against the default, {default.candidate.name}: {_against(chosen, default)}"
    if tuning.left:
        yield (
            f"{count(len(tuning.left), 'more candidate')} of this round not tried: the budget of "
            f"{duration(tuning.budget)} has no room for them"
        )
    how = f"judged on {count(tuning.samples, 'sample')}, execution {tuning.execution}"
    times = tuning.untimed and f"; not timed: {tuning.untimed}"
    yield f"{how}{times or '; times are CPU time of one core, in turns with the float model'}"


def verdict(tuning: Tuning) -> str:
    """What was chosen, or why nothing was."""
    working = [row for row in tuning.rows if row.distinct]
    chosen = tuning.chosen
    made = f"of {count(len(working), 'candidate')}"
    if chosen is not None:
        holding = sum(bool(row.holds) for row in working)
        held = "" if tuning.max_drop is None else f", {holding:,} within the gate"
        return f"chosen: {chosen.candidate.name} ({made}{held}): {tuning.why}"
    best = min(working, key=lambda row: (_order(row.outcome.drop), -row.sqnr))
    unit = f" {tuning.drop_unit}".rstrip()
    return (
        f"failed: --max-drop {number(tuning.max_drop or 0)}{unit}: none {made} holds it; "
        f"{best.candidate.name} comes nearest, with {number(best.outcome.drop)}{unit}"
    )


def next_step(tuning: Tuning, model: Path, output: Path) -> str:
    """What a user does now."""
    if tuning.chosen is not None:
        return f"next: onnxq inspect {shlex.quote(str(output))} --recipe > best.toml"
    best = min(
        (row for row in tuning.rows if row.works),
        key=lambda row: (_order(row.outcome.drop), -row.sqnr),
    )
    if tuning.left:
        return "next: the same command with a larger --budget goes on from here"
    options = command(best.candidate.settings)
    return (
        f"next: onnxq quantize {shlex.quote(str(model))} {options} --target {tuning.target} "
        f"--max-drop {number(tuning.max_drop or 0)} --validate-data DATA --data DATA, which leaves "
        "the worst layers in float until it holds"
    )


def command(settings: Mapping[str, Any]) -> str:
    """Options as they are typed: "--scheme w8a8 --mixed 0.1"."""
    return " ".join(f"--{key.replace('_', '-')} {value}" for key, value in settings.items())


def _against(row: Row, other: Row) -> str:
    mine, its = row.outcome, other.outcome
    parts = [
        f"{mine.sqnr - its.sqnr:+.1f} dB" if math.isfinite(mine.sqnr - its.sqnr) else "",
        f"{mine.size / max(its.size, 1):.2f} × its size",
    ]
    if mine.speed is not None and its.speed is not None:
        parts.append(f"{mine.speed.ratio / max(its.speed.ratio, 1e-9):.2f} × its time")
    return ", ".join(filter(None, parts))


def duration(seconds: float) -> str:
    """Such as "10 min" or "45 s"."""
    return f"{seconds:.3g} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.3g} min"


def _order(drop: float) -> float:
    return math.inf if math.isnan(drop) else drop


def _metric(metric: Metric) -> str:
    return f"{shown(metric.value, metric.unit)} {metric.unit}".rstrip()


# --- the document ----------------------------------------------------------------------------


def document(
    tuning: Tuning, model: Path | None, output: Path | None, state: Path | None
) -> dict[str, Any]:
    """The document of `onnxq tune --json`.

    Args:
        output: what was written; None where nothing was.
        state: the folder that holds the trials; None where it was removed.
    """
    chosen = tuning.chosen
    return {
        "model": model,
        "output": output,
        "target": tuning.target,
        "execution": tuning.execution,
        "samples": tuning.samples,
        "metric": tuning.metric,
        "max_drop": tuning.max_drop,
        "drop_unit": tuning.drop_unit,
        "passed": chosen is not None,
        "chosen": None if chosen is None else chosen.candidate.name,
        "reason": tuning.why,
        "recipe": tuning.recipe,
        "float": {
            "size_bytes": tuning.float_size,
            "metrics": {name: _measured(each) for name, each in tuning.floats.items()},
        },
        "rows": [_row(row) for row in tuning.rows],
        "untimed": tuning.untimed,
        "not_tried": [each.name for each in tuning.left],
        "budget_seconds": tuning.budget,
        "seconds": tuning.seconds,
        "state": state,
    }


def _row(row: Row) -> dict[str, Any]:
    outcome, speed = row.outcome, row.outcome.speed
    return {
        "candidate": row.candidate.name,
        "scheme": row.candidate.scheme,
        "changes": [{"option": key, "value": value} for key, value in row.candidate.changes],
        "metrics": {name: _measured(each) for name, each in outcome.metrics.items()},
        "drop": outcome.drop,
        "within_gate": row.holds,
        "sqnr_db": outcome.sqnr,
        "sqnr_error_db": outcome.sqnr_error,
        "worst_output": outcome.worst_output,
        "outputs": [_output(each) for each in outcome.outputs],
        "size_bytes": outcome.size,
        "layers": outcome.layers,
        "quantized_layers": outcome.quantized_layers,
        "speed": speed
        and {
            "samples": speed.samples,
            "float_ms": speed.float_ms,
            "quantized_ms": speed.quantized_ms,
            "ratio": speed.ratio,
        },
        "untimed": outcome.untimed,
        "failure": outcome.failure,
        "same_as": outcome.same_as,
        "pareto": row.pareto,
        "chosen": row.chosen,
        "reused": row.reused,
        "seconds": outcome.seconds,
    }


def _measured(metric: Metric) -> dict[str, Any]:
    return {"value": metric.value, "unit": metric.unit, "values": metric.values}


def _output(output: OutputScore) -> dict[str, Any]:
    return {
        "name": output.name, "sqnr_db": output.sqnr, "cosine": output.cosine,
        "equal_percent": output.equal,
    }  # fmt: skip


def frame_rows(tuning: Tuning) -> list[dict[str, Any]]:
    """What pandas gets: a row for each candidate, numbers as numbers."""
    return [
        {
            "candidate": row.candidate.name,
            **{name: each.value for name, each in row.outcome.metrics.items()},
            "drop": row.outcome.drop, "worst_output_db": row.outcome.sqnr,
            "size_bytes": row.outcome.size,
            "time_ms": row.outcome.speed and row.outcome.speed.quantized_ms,
            "time_by_float": row.outcome.speed and row.outcome.speed.ratio,
            "within_gate": row.holds, "pareto": row.pareto, "chosen": row.chosen,
            "failure": row.outcome.failure,
        }
        for row in tuning.rows
    ]  # fmt: skip
