"""What every scoreboard here shares: outcomes, their table, and the JSON file beside it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GOOD = ("right", "refused")
"""Outcomes that keep the promise: the work was done, or declined with a coded message."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        case: names the input.
        tool: who was asked: "onnxq quantize", "onnxruntime quantize", ...
        kind: right, refused, or a fault: wrong (the numbers), unusable (a file was written that
            does not load or run), traceback, hang, crash, partial (a half-written file), leak.
        detail: the message, one line.
    """

    case: str
    tool: str
    kind: str
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        return self.kind not in GOOD


def arguments(description: str, **defaults: int) -> argparse.ArgumentParser:
    """A parser with `--json FILE` and an option for each number."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--json", type=Path, help="write every outcome here")
    return parser


def publish(
    title: str, outcomes: Sequence[Outcome], *, json_file: Path | None = None, **facts: Any
) -> int:
    """Print the table and the faults, write the JSON; the exit code: 1 if onnxq has a fault."""
    kinds = [*GOOD, *sorted({o.kind for o in outcomes if o.is_fault})]
    tools = list(dict.fromkeys(o.tool for o in outcomes))
    print(f"\n### {title}\n")
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(f"\n| | cases | {' | '.join(kinds)} |\n|---|{'---:|' * (1 + len(kinds))}")
    for tool in tools:
        counts = Counter(o.kind for o in outcomes if o.tool == tool)
        cells = " | ".join(str(counts[kind]) for kind in kinds)
        print(f"| {tool} | {counts.total()} | {cells} |")
    faults = [o for o in outcomes if o.is_fault and o.tool.startswith("onnxq")]
    for outcome in faults[:40]:
        print(f"FAULT {outcome.tool}: {outcome.case}: {outcome.kind}: {outcome.detail[:200]}")
    if json_file is not None:
        write_json(json_file, {"title": title, "facts": facts, "python": platform.python_version(),
                               "outcomes": [asdict(o) for o in outcomes]})  # fmt: skip
    return 1 if faults else 0


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def report_progress(done: int, total: int, every: int = 50) -> None:
    """A line on stderr now and then: these runs are long."""
    if done % every == 0 or done == total:
        print(f"{done}/{total}", file=sys.stderr, flush=True)


def reasons(outcomes: Iterable[Outcome], kind: str) -> Counter[str]:
    """How often each message of this kind occurs, names and numbers in it left out."""
    import re

    return Counter(re.sub(r"'[^']*'|\d+", "…", o.detail)[:90] for o in outcomes if o.kind == kind)
