"""Tables as GitHub writes them, for the summary of an Actions step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.report.table import count
from onnxq.report.validation import gate_table, metric_table, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.commands.validate import Validation
    from onnxq.report.table import Table


def markdown(content: Table) -> str:
    """A Markdown table; what Markdown and HTML would read as their own is escaped."""
    heads = [_cell(column.header) for column in content.columns]
    rules = ["---:" if column.numeric else "---" for column in content.columns]
    rows = [[_cell(cell) for cell in row] for row in content.rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, rules, *rows))


def _cell(text: str) -> str:
    for character in "\\`*_|[]<>~#&":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", "<br>")


def step_summary(result: Validation, paths: Sequence[Path]) -> str:
    """A validation in a few lines of Markdown: the verdict, metrics, gates."""
    word = "passed" if result.passed else "failed"
    note = f", {_cell(result.note)}" if result.note else ""
    parts = [f"### onnxq validate: {word if result.gates else 'measured'}\n"]
    parts.append(markdown(metric_table(result, paths)))
    parts.append(f"{count(result.samples, 'sample')}{note}\n")
    if result.gates:
        parts.append(markdown(gate_table(result)))
    parts += [f"- {_cell(verdict(gate))}\n" for gate in result.gates if not gate.passed]
    return "\n".join(parts) + "\n"
