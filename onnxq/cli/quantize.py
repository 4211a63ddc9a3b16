"""`onnxq quantize`: the quantized model for a named target."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output
from onnxq.cli.run import GATE_FAILED
from onnxq.options.quantize import QuantizeOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxq.cli.terminal import Terminal
    from onnxq.quantization.request import QuantizationResult


@command("quantize")
@options.model_argument()
@options.output_option(
    "the quantized model", "OUT.onnx", required=False, default="MODEL.SCHEME.onnx beside MODEL"
)
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
    from onnxq.cli.outputs import beside
    from onnxq.commands.machine_target import with_target
    from onnxq.commands.quantize import quantize as run
    from onnxq.model.files import load, save
    from onnxq.model.recipes import with_recipe
    from onnxq.options import recipe
    from onnxq.report import account
    from onnxq.report import quantization as report

    since = time.monotonic()
    chosen = options.provided(chosen, terminal)
    chosen, chose = with_target(chosen)
    if output is None and not dry_run:
        output = beside(model, chosen.scheme.value)
    check_output(output)
    if dry_run:
        chosen = replace(chosen, allow_none=True)
    with terminal.progress.track("read the model", None):
        loaded = load(model)
    with terminal.progress.track("quantize", None):
        quantized, result = run(loaded, chosen, terminal.progress)
    failed = result.search is not None and not result.search.passed
    written = None if dry_run or failed else output
    quantized = with_recipe(quantized, "quantize", recipe.written(chosen))
    if written is not None:
        with terminal.progress.track("write the model", None):
            save(quantized, written)
    if result.account is not None:
        result = replace(result, account=replace(result.account, size=quantized.size))
    seconds = time.monotonic() - since
    operators = {node.name: node.op_type for node in quantized.message.graph.node}
    if chose:
        terminal.line(chose)
    _tell(terminal, result, operators, every=dry_run or terminal.verbose)
    why = "--max-drop does not hold" if failed else "dry run"
    terminal.note(f"wrote {written}" if written else f"{why}: nothing was written")
    for text in account.lines(result, seconds):
        terminal.line(text)
    if written is not None:
        terminal.note(account.next_step(model, written))
    terminal.document("quantize", report.document(loaded, result, operators, written, seconds))
    return GATE_FAILED if failed else 0


def _tell(
    terminal: Terminal, result: QuantizationResult, operators: Mapping[str, str], *, every: bool
) -> None:
    """What was done, and what stays in float: `every` node, or by reasons."""
    from onnxq.report import account, nodes, raised
    from onnxq.report import quantization as report

    for text in report.summary(result, whole=terminal.verbose):
        terminal.line(text)
    plan = result.plan
    terminal.table(nodes.plan_table(plan, operators) if every else account.float_table(result))
    if result.narrowing is not None and result.narrowing.kept:
        terminal.table(nodes.narrowing_table(result.narrowing))
    if result.mixed is not None:
        terminal.table(raised.mixed_table(result.mixed))
    if result.search is not None:
        terminal.table(raised.search_table(result.search))
