"""`onnxq validate`: a verdict on quantized models, the float one beside them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output
from onnxq.cli.run import GATE_FAILED
from onnxq.options.validate import ValidateOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.cli.terminal import Terminal
    from onnxq.commands.validate import Validation


@command("validate")
@options.model_argument("float_model", "FLOAT")
@click.argument("quantized", type=options.FILE, nargs=-1, metavar="[QUANTIZED]…")
@options.of(ValidateOptions)
@click.option(
    "--junit", type=options.FILE, metavar="FILE.xml", help="Write the gates as JUnit XML here."
)
@options.common
def validate(
    *,
    float_model: Path,
    quantized: tuple[Path, ...],
    chosen: ValidateOptions,
    junit: Path | None,
    terminal: Terminal,
) -> int:
    """Compare quantized models with the float one.

    All of them run over the same samples. Exit code 1 says that a gate failed.
    """
    from onnxq.commands.inputs import as_models
    from onnxq.commands.validate import validate as run
    from onnxq.model.files import load
    from onnxq.records import write_bytes
    from onnxq.report import latency as latency_report
    from onnxq.report import layers as layer_report
    from onnxq.report import validation as report
    from onnxq.report.junit import junit as to_junit

    chosen = options.provided(chosen, terminal)
    check_output(junit)
    with terminal.progress.track("read the models", None):
        exact, others = load(float_model), as_models(quantized)
    result = run(exact, others, chosen, terminal.progress)
    paths = [float_model, *(path for path in quantized for _ in chosen.executions)]
    names = [str(path) for path in (float_model, *quantized)]
    terminal.table(report.metric_table(result, paths))
    terminal.table(report.output_table(result, paths))
    terminal.table(report.gate_table(result))
    tell_kernels(terminal, result)
    for path, each in zip(quantized, result.layers, strict=False):
        for text in layer_report.summary(path, each):
            terminal.line(text)
        for table in layer_report.tables(each, whole=terminal.verbose):
            terminal.table(table)
        if each.warning:
            terminal.note(f"{path}: {each.warning}")
    if result.latency is not None:
        terminal.table(latency_report.latency_table(result.latency, names))
        terminal.note(latency_report.note(result.latency))
    terminal.note(report.samples_note(result))
    if junit is not None:
        write_bytes(junit, to_junit(result, paths).encode())
        terminal.note(f"wrote {junit}")
    summarize(result, paths)
    terminal.document("validate", report.document(result, paths, quantized))
    for text in report.unseen_by_gates(result, paths):
        terminal.note(text)
    for gate in result.gates:
        if not gate.passed:
            terminal.note(report.verdict(gate))
    return 0 if result.passed else GATE_FAILED


def tell_kernels(terminal: Terminal, result: Validation) -> None:
    """What runtimes of their own made of the quantized models."""
    from onnxq.report.details import kernel_summary, kernel_table

    for told in result.kernels:
        terminal.line(f"{told.model}: {kernel_summary(told.kernels, told.execution)}")
        if not all(each.integer for each in told.kernels if each.weighted):
            terminal.table(kernel_table(told.kernels, whole=False))


def summarize(result: Validation, paths: Sequence[Path]) -> None:
    """Append the verdict to the summary of the GitHub Actions step, where there is one."""
    target = os.environ.get("GITHUB_STEP_SUMMARY", "")
    if not target:
        return
    from onnxq.errors import OutputError
    from onnxq.report.markdown import step_summary

    try:
        with open(target, "a", encoding="utf-8") as stream:  # noqa: PTH123
            stream.write(step_summary(result, paths))
    except OSError as error:
        raise OutputError(
            f"cannot append to {target}: {error.strerror}", hint="GITHUB_STEP_SUMMARY names it"
        ) from None
