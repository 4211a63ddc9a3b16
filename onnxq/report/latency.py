"""How long models take: tables, lines, a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.report.table import Table, count, number, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.commands.bench import Timing
    from onnxq.validation.latency import Latency, Spread

SHOWN = 12
"""Operators listed where not all are asked for."""

HEAD = 20
"""Characters of a model's name in the head of a column."""


def latency_table(timing: Timing, names: Sequence[str]) -> Table:
    """One row for each model and provider.

    Args:
        names: what to call the models.
    """
    return table(
        "Model | Provider | >Size (MB) | >Time (ms) | >Quartiles (ms) | >CPU time (ms) "
        "| >Against the first",
        [
            (
                name, row.provider, number(row.size / 1e6, 3), number(row.wall.median, 3),
                f"{number(row.wall.low, 3)}…{number(row.wall.high, 3)}",
                number(row.cpu.median, 3), against(row),
            )
            for row, name in _named(timing, names)
        ],
    )  # fmt: skip


def against(row: Latency) -> str:
    """The time by that of the first model, with its quartiles."""
    return f"{row.ratio.median:.2f} × ({row.ratio.low:.2f}…{row.ratio.high:.2f})"


def operator_table(timing: Timing, names: Sequence[str], *, whole: bool) -> Table:
    """Operators, the slowest of any model first, with the time that each model spends in them."""
    operators: dict[str, float] = {}
    for each in timing.profiles:
        for row in each:
            operators[row.operator] = max(row.milliseconds, operators.get(row.operator, 0.0))
    chosen = sorted(operators, key=lambda name: -operators[name])
    rest = [] if whole else chosen[SHOWN:]
    cells = [
        {row.operator: (row.nodes, row.milliseconds) for row in each} for each in timing.profiles
    ]

    def told(found: dict[str, tuple[int, float]], names: Sequence[str]) -> tuple[str, str]:
        there = [found[name] for name in names if name in found]
        if not there:
            return "", ""
        return f"{sum(nodes for nodes, _ in there):,}", number(sum(ms for _, ms in there), 3)

    rows = [
        (name, *(text for found in cells for text in told(found, [name])))
        for name in (chosen if whole else chosen[:SHOWN])
    ]
    if rest:
        rows.append(
            (f"{len(rest):,} more (-v)", *(text for found in cells for text in told(found, rest)))
        )
    heads = [f">{_short(name)} nodes | >{_short(name)} (ms)" for _, name in _named(timing, names)]
    return table(
        " | ".join(["Operator", *heads]), rows if timing.profiles else [], title="Time by operator"
    )


def note(timing: Timing) -> str:
    """What the numbers rest on."""
    first = timing.rows[0]
    how = (
        f"{count(first.samples, 'sample')} a run", count(first.threads, "thread"),
        f"median of {count(first.rounds, 'round')}", timing.note, _busy(timing),
    )  # fmt: skip
    return ", ".join(filter(None, how))


BUSY = 1.2
"""Time on the clock by CPU time from which on something else had the cores."""


def _busy(timing: Timing) -> str:
    """Whether other work on the machine is in the times; "" where it is not, or nobody knows."""
    alone = [row for row in timing.rows if row.threads == 1 and row.provider == "cpu"]
    if not any(row.wall.median > BUSY * row.cpu.median for row in alone):
        return ""
    ratios = ", ".join(f"{row.cpu_ratio.median:.2f} ×" for row in alone)
    return f"the machine does other work besides: by CPU time against the first {ratios}"


def lines(timing: Timing) -> Iterator[str]:
    """A model in a line."""
    for row in timing.rows:
        yield f"{row.model} ({row.provider}): {number(row.wall.median, 3)} ms, {against(row)}"
    yield note(timing)


def document(timing: Timing, names: Sequence[object]) -> dict[str, Any]:
    """The document of `onnxq bench --json`, and `latency` in those of others."""
    several = [name for _ in range(len(timing.rows) // len(names)) for name in names]
    profiles = timing.profiles or ((),) * len(timing.rows)
    return {
        "note": timing.note,
        "rows": [
            {
                "model": name, "provider": row.provider, "size_bytes": row.size,
                "threads": row.threads, "samples": row.samples, "rounds": row.rounds,
                "wall_ms": _spread(row.wall), "cpu_ms": _spread(row.cpu),
                "ratio": _spread(row.ratio), "cpu_ratio": _spread(row.cpu_ratio),
                "operators": operators,
            }
            for row, name, operators in zip(timing.rows, several, profiles, strict=True)
        ],
    }  # fmt: skip


def _spread(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "lower_quartile": spread.low, "upper_quartile": spread.high}


def _named(timing: Timing, names: Sequence[str]) -> Iterator[tuple[Latency, str]]:
    """Each row with the name of its model: the names once for each provider."""
    return ((row, names[index % len(names)]) for index, row in enumerate(timing.rows))


def _short(name: str) -> str:
    """A model's name for the head of a column."""
    stem = name.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".onnx")
    return stem if len(stem) <= HEAD else f"{stem[: HEAD - 1]}…"
