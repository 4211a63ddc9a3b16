"""`onnxq doctor`: what this machine has, and what that means for quantized models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli import options
from onnxq.cli.help import command

if TYPE_CHECKING:
    from onnxq.cli.terminal import Terminal


@command("doctor")
@options.common
def doctor(*, terminal: Terminal) -> None:
    """Show what this machine has, and what that implies."""
    from onnxq.cli.machine import examine, judge
    from onnxq.report.table import table

    verdict, findings = judge(), examine()
    terminal.line(verdict.text)
    terminal.table(table("What | Found", [(each.name, each.found) for each in findings]))
    for each in findings:
        if each.implies:
            terminal.line(f"{each.name}: {each.implies}")
    content = {"ready": verdict.ready, "verdict": verdict.text, "findings": findings}
    terminal.document("doctor", content)
