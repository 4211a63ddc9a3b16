"""`onnxq inspect`: the quantization details of a model, whoever quantized it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.run import GATE_FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument()
@click.option("--recipe", "show_recipe", is_flag=True,
              help="Print the recipe that made MODEL, as TOML, and nothing else.")  # fmt: skip
@click.option("--lint", "linted", is_flag=True,
              help="Check a QDQ MODEL against TensorRT's rules instead; exit code 1 if one is "
              "broken.")  # fmt: skip
@click.option("--kernels", "counted", is_flag=True,
              help="Count what ONNX Runtime's CPU provider runs in integers instead.")  # fmt: skip
@options.common
def inspect(
    *, model: Path, show_recipe: bool, linted: bool, counted: bool, terminal: Terminal
) -> int:
    """Show which layers are int8, and why others are not.

    These are the quantization details: target, layers, learnables with type and shape.
    """
    from onnxq import api
    from onnxq.cli import recipe
    from onnxq.errors import ModelError
    from onnxq.quantization.details import details
    from onnxq.report import details as report

    loaded = api.load(model)
    made_by = recipe.recorded(loaded)
    if show_recipe and not terminal.json:
        if not made_by:
            raise ModelError(
                f"{model} carries no recipe", hint="what onnxq equalize and quantize write does"
            )
        terminal.raw(made_by)
        return 0
    findings = ran = None
    if linted:
        from onnxq.validation.lint import lint

        findings = lint(loaded)
        terminal.line(report.lint_summary(findings))
        if findings:
            terminal.table(report.lint_table(findings))
    if counted:
        from onnxq.validation.kernels import kernels

        ran = kernels(loaded)
        terminal.line(report.kernel_summary(ran))
        if terminal.verbose or not all(each.integer for each in ran):
            terminal.table(report.kernel_table(ran, whole=terminal.verbose))
    found = details(loaded)
    if not (linted or counted):
        for text in report.summary(loaded, found):
            terminal.line(text)
        for content in report.tables(loaded, found):
            terminal.table(content)
    told = {"recipe": made_by, "findings": findings, "kernels": ran}
    terminal.document("inspect", report.document(loaded, found) | told)
    return GATE_FAILED if findings else 0
