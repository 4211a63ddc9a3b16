"""`onnxq explain`: why one node was, or was not, equalized, quantized and fused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.options.explain import ExplainOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@command("explain")
@options.model_argument()
@click.argument("node", metavar="NODE")
@options.of(ExplainOptions)
@options.common
def explain(*, model: Path, node: str, chosen: ExplainOptions, terminal: Terminal) -> None:
    """Say why a node is equalized, quantized, fused, or not.

    NODE is a node or a tensor it computes. Of a float MODEL the answer is what quantize would do.
    """
    from onnxq.model.files import load
    from onnxq.report import explain as report

    with terminal.progress.track("explain", None):
        found = report.explain(
            load(model),
            node,
            calibration=chosen.calibration,
            target=chosen.target,
            input_shapes=chosen.input_shapes,
            progress=terminal.progress,
        )
    terminal.line(report.headline(found))
    for content in report.tables(found):
        terminal.table(content)
    if found.note:
        terminal.note(f"note: {found.note}")
    terminal.document("explain", report.document(model, found))
