"""What was measured: one JSON file per tool, so that one tool can be measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tools import TOOLS, Mode, Tool


@dataclass(frozen=True)
class Row:
    """One mode of one tool, measured.

    Attributes:
        date: ISO date of the measurement.
        load: load average of the last minute when it began.
        failure: why there are no figures; else empty.
        top1, float_top1: %; None without labels.
        sqnr: of the first output against the float model's, dB; None where they are equal.
        seconds: wall time of the quantizing process, its imports included.
        cpu_seconds: user and system time of all threads of that process.
        megabytes: peak resident memory of that process, MB of 1,048,576 bytes.
        file_megabytes: size of the int8 model, MB of 1,048,576 bytes.
    """

    date: str
    load: float
    failure: str = ""
    top1: float | None = None
    float_top1: float | None = None
    sqnr: float | None = None
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


def table(folder: Path) -> Iterator[str]:
    """All modes of all tools as a Markdown table, measured now or before."""
    found = [(tool, load(folder, tool)) for tool in TOOLS]
    rows = [row for _, known in found for row in known.values()]
    floats = {f"{row.float_top1:.2f} %" for row in rows if row.float_top1 is not None}
    yield f"Float top-1: {', '.join(sorted(floats)) or 'no labels'}."
    if rows:
        dates, loads = sorted({row.date for row in rows}), [row.load for row in rows]
        yield (
            f"Measured {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''} with "
            f"{os.cpu_count()} cores and a load average of {min(loads):.0f} to {max(loads):.0f}."
        )
    yield ""
    yield "| tool, mode | int8 weights | top-1 % | SQNR dB | seconds | CPU s | peak MB | file MB |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for tool, known in found:
        for mode in tool.modes:
            name = f"{tool.name} {tool.version}" if tool.driver else tool.name
            cells = " | ".join(_cells(mode, known.get(mode.key)))
            yield f"| {name}, {mode.name} | {mode.weights} | {cells} |"


def _cells(mode: Mode, row: Row | None) -> list[str]:
    if row is None:
        return [f"not run{' (--slow runs it)' if mode.slow else ''}", "", "", "", "", ""]
    if row.failure:
        return [f"failed: {row.failure.replace('|', '/')}", "", "", "", "", ""]
    return [
        "–" if row.top1 is None else f"{row.top1:.2f}",
        "equal" if row.sqnr is None else f"{row.sqnr:.2f}",
        f"{row.seconds:.0f}",
        f"{row.cpu_seconds:.0f}" if row.cpu_seconds else "–",
        f"{row.megabytes:.0f}",
        f"{row.file_megabytes:.2f}",
    ]
