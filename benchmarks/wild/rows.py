"""What became of each model: rows, their faults, the table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REFUSALS = {2: "usage", 3: "model refused", 4: "data refused"}
"""onnxq's exit codes that come with one line of reason."""

MEGABYTES = 2048
"""A command that takes more is a fault."""

WORSE = 1.0
"""dB below ONNX Runtime's quantizer that are a fault, where that makes less than `FINE`."""

SYMMETRIC = ("gpu",)
"""Targets whose zero points are 0, which costs up to 6 dB; the peer's follow the values."""

FINE = 60.0
"""dB beyond which nobody cares."""


@dataclass(frozen=True)
class Done:
    """One command on one model.

    Attributes:
        failure: why there is no result, one line; "" where there is.
        code: onnxq's exit code of a failure, None where it was stopped.
        seconds, cpu_seconds, megabytes: of the child process; 0 where it failed. The second is of
            all its threads; a busy machine hardly changes it.
        exact: of `equalize`: whether the proof found all outputs bit-identical.
        quantized, possible: nodes in int8, and those that the target has an int8 kernel for.
        floats: reason → number of the possible nodes that are not quantized for it.
        sqnr: of the worst output, dB; None where no output differs or none is float.
        outputs: the same of each.
    """

    failure: str = ""
    code: int | None = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    megabytes: float = 0.0
    exact: bool | None = None
    quantized: int | None = None
    possible: int | None = None
    floats: Mapping[str, int] = field(default_factory=dict)
    sqnr: float | None = None
    outputs: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        runs: by name: "equalize", a target, or "onnxruntime".
        missing: why the model could not be had; "" where it could.
        refused: what a refusal may say.
    """

    name: str
    wheel: str
    runs: Mapping[str, Done] = field(default_factory=dict)
    missing: str = ""
    refused: str = ""


def read(file: Path) -> dict[str, Row]:
    """Rows that an earlier run wrote, by name."""
    tables = json.loads(file.read_text())
    return {
        table["name"]: Row(**table | {"runs": {n: Done(**d) for n, d in table["runs"].items()}})
        for table in tables
    }


def faults(row: Row) -> Iterator[str]:
    """What onnxq should have done better, one line each."""
    peer = row.runs.get("onnxruntime")
    for name, done in row.runs.items():
        if name == "onnxruntime":
            continue
        if not done.failure:
            found = list(_shortcomings(done))
            compared = peer and not peer.failure and name not in ("equalize", *SYMMETRIC)
            if peer and compared and _is_worse(done.sqnr, peer.sqnr):
                found.append(f"{_db(done.sqnr)} dB, ONNX Runtime's {_db(peer.sqnr)} dB")
        elif row.refused and row.refused in done.failure:
            found = []
        else:
            found = [f"{REFUSALS.get(done.code or 0, 'bug or crash')}: {done.failure}"]
        yield from (f"{row.name}, {name}: {fault}" for fault in found)


def _shortcomings(done: Done) -> Iterator[str]:
    if done.megabytes > MEGABYTES:
        yield f"{done.megabytes:.0f} MB"
    if done.exact is False:
        yield "not exact"
    if "" in done.floats:
        yield f"{done.floats['']} nodes silently float"
    if done.quantized == 0 and done.possible:
        yield "nothing quantized"


def table(rows: Sequence[Row], targets: Sequence[str], *, peer: bool) -> str:
    """In Markdown: a line for each model."""
    head = ["model", "equalized"]
    for target in targets:
        head += [f"`{target}`: nodes", "dB", "CPU s", "MB"]
    if peer:
        head += ["ONNX Runtime: dB", "CPU s", "MB"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        cells = [row.name]
        if row.missing:
            cells += [f"not there: {row.missing}", *[""] * (len(head) - 2)]
        else:
            cells.append(_equalized(row.runs.get("equalize")))
            for target in targets:
                cells += _quantized(row.runs.get(target))
            if peer:
                cells += _quantized(row.runs.get("onnxruntime"))[1:]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _equalized(done: Done | None) -> str:
    if done is None:
        return ""
    if done.failure:
        return _short(done)
    return "exactly" if done.exact else "not exactly"


def _quantized(done: Done | None) -> list[str]:
    if done is None:
        return [""] * 4
    if done.failure:
        return [_short(done), _short(done), "", ""]
    nodes = "" if done.possible is None else f"{done.quantized}/{done.possible}"
    return [nodes, _db(done.sqnr), f"{done.cpu_seconds:.0f}", f"{done.megabytes:.0f}"]


def _short(done: Done) -> str:
    if done.code is None:
        return "too slow"
    return REFUSALS.get(done.code, "failed")


def _is_worse(ours: float | None, theirs: float | None) -> bool:
    mine, other = (math.inf if x is None else x for x in (ours, theirs))
    return mine < min(other, FINE) - WORSE


def _db(value: float | None) -> str:
    return "∞" if value is None else f"{value:.1f}"
