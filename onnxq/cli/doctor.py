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
    from onnxq.cli.machine import examine
    from onnxq.report.table import table

    findings = examine()
    terminal.table(table("What | Found", [(each.name, each.found) for each in findings]))
    for each in findings:
        if each.implies:
            terminal.line(f"{each.name}: {each.implies}")
    terminal.document("doctor", {"findings": findings})
