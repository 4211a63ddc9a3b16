"""`onnxq equalize`: the same function, weights that quantize well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument()
@options.output_option("the equalized model", "OUT.onnx")
@options.calibration_option()
@options.data_option(extra=" Calibrates, and proves on these samples.")
@options.preprocess_option()
@options.batch_size_option()
@options.memory_option()
@options.choice("--scales", ("power-of-two", "real"),
                "Powers of two keep the float output bit-identical.",
                default="power-of-two")  # fmt: skip
@options.choice("--relu6", ("auto", "tie", "per-channel", "relu", "skip"),
                "How a scale passes a saturating Clip such as ReLU6.", default="auto")  # fmt: skip
@options.absorb_option(default=False, extra="; exact up to float rounding")
@options.libraries_option()
@options.recipe_option()
@click.option("--explain", is_flag=True, help="List every class, Clip and barrier with its reason.")
@options.common
def equalize(
    *,
    model: Path,
    output: Path,
    calibration: Path | None,
    data: str | None,
    preprocess: str | None,
    batch_size: int,
    memory: int,
    scales: str,
    relu6: str,
    absorb_bias: bool,
    explain: bool,
    terminal: Terminal,
) -> None:
    """Even out weights across layers; outputs stay the same.

    The command runs MODEL and the result and proves it; what fails the proof is rolled back.
    """
    from onnxq import api
    from onnxq.cli import recipe
    from onnxq.report import equalization as report

    if calibration is not None and data is not None:
        raise click.UsageError("--calibration and --data exclude each other")
    options.check_output(output, model, data, calibration)
    loaded = api.load(model)
    with terminal.progress.track("equalize", None):
        equalized, result = api.equalize(
            loaded, calibration=calibration, data=data, preprocess=preprocess, scales=scales,
            relu6=relu6, absorb_bias=absorb_bias, batch_size=batch_size, memory=memory,
            progress=terminal.progress,
        )  # fmt: skip
    api.save(recipe.carried(equalized, click.get_current_context()), output)
    record = result.equalization
    lines, tables = [*report.summary(record)], [*report.tables(record)]
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
