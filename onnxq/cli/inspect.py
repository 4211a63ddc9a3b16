"""`onnxq inspect`: the quantization details of a model, whoever quantized it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument()
@options.common
def inspect(*, model: Path, terminal: Terminal) -> None:
    """Show which layers are int8, and why others are not.

    These are the quantization details: target, layers, learnables with type and shape.
    """
    from onnxq import api
    from onnxq.quantization.details import details
    from onnxq.report import details as report

    loaded = api.load(model)
    found = details(loaded)
    for text in report.summary(loaded, found):
        terminal.line(text)
    for content in report.tables(loaded, found):
        terminal.table(content)
    terminal.document("inspect", report.document(loaded, found))
