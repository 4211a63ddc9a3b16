"""What was measured: one JSON file per tool, so that one tool can be measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools import Mode, Tool


@dataclass(frozen=True)
class Row:
    """One mode of one tool, measured.

    Attributes:
        date: ISO date of the measurement.
        load: load average of the last minute when it began.
        failure: why there are no figures; else empty.
        values: what was measured, by name and unit; None where the outputs are equal.
        float_values: the same of the float model, as far as it has them.
        seconds: wall time of the quantizing process, its imports included.
        cpu_seconds: user and system time of all threads of that process.
        megabytes: peak resident memory of that process, MB of 1,048,576 bytes.
        file_megabytes: size of the int8 model, MB of 1,048,576 bytes.
    """

    date: str
    load: float
    failure: str = ""
    values: dict[str, float | None] = field(default_factory=dict)
    float_values: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    megabytes: float = 0.0
    file_megabytes: float = 0.0


def load(folder: Path, tool: Tool) -> dict[str, Row]:
    path = folder / f"{tool.name}.json"
    if not path.is_file():
        return {}
    document = json.loads(path.read_text())
    if document["version"] != tool.version:
        return {}
    try:
        return {key: Row(**row) for key, row in document["rows"].items()}
    except TypeError:  # other columns, of another state of this script
        return {}


def save(folder: Path, tool: Tool, rows: dict[str, Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    document = {"version": tool.version, "rows": {key: asdict(row) for key, row in rows.items()}}
    part = folder / f"{tool.name}.part"
    part.write_text(json.dumps(document, indent=1))
    part.replace(folder / f"{tool.name}.json")


def table(folder: Path, tools: Sequence[Tool]) -> Iterator[str]:
    """All modes of the tools as a Markdown table, measured now or before."""
    found = [(tool, load(folder, tool)) for tool in tools]
    rows = [row for _, known in found for row in known.values()]
    names = list(dict.fromkeys(name for row in rows for name in row.values)) or ["SQNR dB"]
    floats = {f"{n} {v:.4g}": None for row in rows for n, v in row.float_values.items()}
    yield f"Float: {', '.join(floats) or 'nothing but what it is compared with'}."
    if rows:
        dates, loads = sorted({row.date for row in rows}), [row.load for row in rows]
        yield (
            f"Measured {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''} with "
            f"{os.cpu_count()} cores and a load average of {min(loads):.0f} to {max(loads):.0f}."
        )
    yield ""
    heads = ["tool, mode", "weights", *names, "seconds", "CPU s", "peak MB", "file MB"]
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---' for _ in heads)} |"
    for tool, known in found:
        for mode in tool.modes:
            name = f"{tool.name} {tool.version}" if tool.driver else tool.name
            cells = " | ".join(_cells(mode, known.get(mode.key), names))
            yield f"| {name}, {mode.name} | {mode.weights} | {cells} |"


def _cells(mode: Mode, row: Row | None, names: Sequence[str]) -> list[str]:
    empty = [""] * (len(names) + 3)
    if row is None:
        return [f"not run{' (--slow runs it)' if mode.slow else ''}", *empty]
    if row.failure:
        return [f"failed: {row.failure.replace('|', '/')}", *empty]
    return [
        *(_value(row, name) for name in names),
        f"{row.seconds:.0f}",
        f"{row.cpu_seconds:.0f}" if row.cpu_seconds else "–",
        f"{row.megabytes:.0f}",
        f"{row.file_megabytes:.2f}",
    ]


def _value(row: Row, name: str) -> str:
    if name not in row.values:
        return "–"
    value = row.values[name]
    return "equal" if value is None else f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"
