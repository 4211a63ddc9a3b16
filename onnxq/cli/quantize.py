"""`onnxq quantize`: the quantized model for a named target."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.run import GATE_FAILED
from onnxq.options.quantize import QuantizeOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument()
@options.output_option("the quantized model", "OUT.onnx", required=False)
@options.of(QuantizeOptions)
@options.recipe_option(QuantizeOptions)
@click.option("--dry-run", is_flag=True, help="Print what happens to each node; write nothing.")
@options.common
def quantize(
    *,
    model: Path,
    output: Path | None,
    chosen: QuantizeOptions,
    dry_run: bool,
    terminal: Terminal,
) -> int:
    """Turn a float model into a quantized one.

    The result holds quantized weights and Q/DQ annotations for the target. The defaults are the
    most accurate that end in minutes. Exit code 1 says that --max-drop does not hold; then
    nothing is written.
    """
    from onnxq.commands.quantize import quantize as run
    from onnxq.model.files import load, save
    from onnxq.model.recipes import with_recipe
    from onnxq.options import recipe
    from onnxq.report import quantization as report

    if output is None and not dry_run:
        raise click.UsageError("missing -o OUT.onnx, where the quantized model goes, or --dry-run")
    options.check_output(output, model, chosen.data, chosen.calibration, chosen.validate_data)
    if dry_run:
        chosen = replace(chosen, allow_none=True)
    with terminal.progress.track("read the model", None):
        loaded = load(model)
    with terminal.progress.track("quantize", None):
        quantized, result = run(loaded, chosen, terminal.progress)
    failed = result.search is not None and not result.search.passed
    written = None if dry_run or failed else output
    if written is not None:
        with terminal.progress.track("write the model", None):
            save(with_recipe(quantized, "quantize", recipe.written(chosen)), written)
    for text in report.summary(result):
        terminal.line(text)
    operators = {node.name: node.op_type for node in quantized.proto.graph.node}
    whole = dry_run or terminal.verbose
    show = report.plan_table if whole else report.float_table
    terminal.table(show(result.plan, operators))
    if result.narrowing is not None and result.narrowing.kept:
        terminal.table(report.narrowing_table(result.narrowing))
    if result.mixed is not None:
        terminal.table(report.mixed_table(result.mixed))
    if result.search is not None:
        terminal.table(report.search_table(result.search))
    why = "--max-drop does not hold" if failed else "dry run"
    terminal.note(f"wrote {written}" if written else f"{why}: nothing was written")
    terminal.document("quantize", report.document(loaded, result, operators, written))
    return GATE_FAILED if failed else 0
