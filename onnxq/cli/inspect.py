"""`onnxq inspect`: the quantization details of a model, whoever quantized it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.run import GATE_FAILED
from onnxq.options.inspect import InspectOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument()
@click.option(
    "--recipe",
    "show_recipe",
    is_flag=True,
    help="Print the recipe that made MODEL, as TOML, and nothing else.",
)
@options.of(InspectOptions)
@options.common
def inspect(*, model: Path, show_recipe: bool, chosen: InspectOptions, terminal: Terminal) -> int:
    """Show which layers are quantized, and why others are not.

    These are the quantization details: target, layers, learnables with type and shape.
    """
    from onnxq.commands.inspect import inspect as run
    from onnxq.errors import ModelError
    from onnxq.model.files import load
    from onnxq.model.recipes import recorded_recipe
    from onnxq.report import details as report

    loaded = load(model)
    if show_recipe and not terminal.json:
        made_by = recorded_recipe(loaded)
        if not made_by:
            raise ModelError(
                f"{model} carries no recipe", hint="what onnxq equalize and quantize write does"
            )
        terminal.raw(made_by)
        return 0
    found = run(loaded, chosen)
    if found.findings is not None:
        terminal.line(report.lint_summary(found.findings, found.rules_of))
        if found.findings:
            terminal.table(report.lint_table(found.findings, found.rules_of))
    if found.kernels is not None:
        terminal.line(report.kernel_summary(found.kernels, found.kernels_in))
        if terminal.verbose or not all(each.integer for each in found.kernels):
            terminal.table(report.kernel_table(found.kernels, whole=terminal.verbose))
    if not (chosen.lint or chosen.kernels):
        for text in report.summary(loaded, found.details):
            terminal.line(text)
        for content in report.tables(found.details):
            terminal.table(content)
    told = {
        "recipe": found.recipe,
        "findings": found.findings,
        "kernels": found.kernels,
        "kernels_in": found.kernels_in,
        "rules_of": found.rules_of,
    }
    terminal.document("inspect", report.document(loaded, found.details) | told)
    return GATE_FAILED if found.findings else 0
