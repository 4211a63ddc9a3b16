"""`onnxq inspect`: the quantization details of a model, whoever quantized it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.run import GATE_FAILED
from onnxq.options.inspect import InspectOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal
    from onnxq.commands.inspect import Inspection
    from onnxq.model.model import Model


@command("inspect")
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

    These are the quantization details: target, layers, learnables with type and shape. Of a float
    MODEL: what quantize would do to it.
    """
    from onnxq.commands.inspect import inspect as run
    from onnxq.errors import ModelError
    from onnxq.model.files import load
    from onnxq.model.recipes import recorded_recipe
    from onnxq.report import details as report
    from onnxq.report import plan as plan_report

    with terminal.progress.track("read the model", None):
        loaded = load(model)
    if show_recipe and not terminal.json:
        made_by = recorded_recipe(loaded)
        if not made_by:
            raise ModelError(
                f"{model} carries no recipe", hint="what onnxq equalize and quantize write does"
            )
        terminal.raw(made_by)
        return 0
    with terminal.progress.track("inspect", None):
        found = run(loaded, chosen, terminal.progress)
    if found.findings is not None:
        terminal.line(report.lint_summary(found.findings, found.rules_of))
        if found.findings:
            terminal.table(report.lint_table(found.findings, found.rules_of))
    if found.kernels is not None:
        terminal.line(report.kernel_summary(found.kernels, found.kernels_in))
        if terminal.verbose or not all(each.integer for each in found.kernels):
            terminal.table(report.kernel_table(found.kernels, whole=terminal.verbose))
    if not (chosen.lint or chosen.kernels):
        _show(loaded, found, terminal)
    told = {
        "recipe": found.recipe,
        "findings": found.findings,
        "kernels": found.kernels,
        "kernels_in": found.kernels_in,
        "rules_of": found.rules_of,
        "plan": plan_report.document(found.planned),
    }
    terminal.document("inspect", report.document(loaded, found.details) | told)
    return GATE_FAILED if found.findings else 0


def _show(model: Model, found: Inspection, terminal: Terminal) -> None:
    """What a quantized model holds, or what would become of a float one."""
    from onnxq.commands.inspect import Planned
    from onnxq.model.files import infer_shapes
    from onnxq.model.graph import Graph
    from onnxq.report import details as report
    from onnxq.report import plan as plan_report

    for text in report.summary(model, found.details):
        terminal.line(text)
    for text in plan_report.lines(found.planned):
        terminal.line(text)
    if isinstance(found.planned, Planned):
        tables = plan_report.tables(found.planned, whole=terminal.verbose)
    else:
        graph = None if terminal.verbose else Graph(infer_shapes(model))
        tables = report.tables(found.details, graph)
    for content in tables:
        terminal.table(content)
    if note := plan_report.note(found.planned):
        terminal.note(f"note: {note}")
