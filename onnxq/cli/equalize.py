"""`onnxq equalize`: the same function, weights that quantize well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output
from onnxq.options.equalize import EqualizeOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@command("equalize")
@options.model_argument()
@options.output_option("the equalized model", "OUT.onnx")
@options.of(EqualizeOptions)
@options.recipe_option(EqualizeOptions)
@click.option("--explain", is_flag=True, help="List every class, Clip and barrier with its reason.")
@options.common
def equalize(
    *,
    model: Path,
    output: Path,
    chosen: EqualizeOptions,
    explain: bool,
    terminal: Terminal,
) -> None:
    """Even out weights across layers; outputs stay the same.

    The command runs MODEL and the result and proves it; what fails the proof is rolled back.
    """
    from onnxq.commands.equalize import equalize as run
    from onnxq.model.files import load, save
    from onnxq.model.recipes import with_recipe
    from onnxq.options import recipe
    from onnxq.report import equalization as report
    from onnxq.report import normalization

    if chosen.calibration is not None and chosen.data is not None:
        raise click.UsageError("--calibration and --data exclude each other")
    chosen = options.provided(chosen, terminal)
    check_output(output)
    with terminal.progress.track("read the model", None):
        loaded = load(model)
    with terminal.progress.track("equalize", None):
        equalized, result = run(loaded, chosen, terminal.progress)
    with terminal.progress.track("write the model", None):
        save(with_recipe(equalized, "equalize", recipe.written(chosen)), output)
    record = result.equalization
    lines = [*normalization.summary(result.normalization), report.chosen_for(record.options)]
    lines += report.summary(record)
    tables = [*report.tables(record)]
    if result.centering is not None:
        lines.append(report.centering_summary(result.centering))
        lines.append(f"after that: {report.proof_text(result.change)}")
        tables += report.centering_tables(result.centering)
    for text in lines:
        terminal.line(text)
    if explain or terminal.verbose:
        for content in tables:
            terminal.table(content)
    terminal.note(f"wrote {output}")
    terminal.document("equalize", report.document(loaded, result, output))
