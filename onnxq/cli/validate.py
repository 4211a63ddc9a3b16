"""`onnxq validate`: a verdict on quantized models, the float one beside them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.run import GATE_FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.api import Validation
    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument("float_model", "FLOAT")
@click.argument("quantized", type=options.FILE, nargs=-1, metavar="[QUANTIZED]…")
@options.data_option(required=True)
@options.preprocess_option()
@options.samples_option()
@options.batch_size_option()
@options.memory_option()
@click.option("--metric", "metrics", multiple=True, metavar="METRIC",
              help="top1, top5, sqnr, cosine or FILE.py:function; repeatable; gates look at the "
              "first.  [default: top1 if the data have labels, sqnr, cosine]")  # fmt: skip
@click.option("--execution", "executions", multiple=True, default=("emulate",), show_default=True,
              type=click.Choice(("emulate", "cpu", "cuda")),
              help="How quantized models run; repeatable.")  # fmt: skip
@options.max_drop_option()
@options.min_accuracy_option()
@click.option("--layers", is_flag=True,
              help="Rank each quantized model's layers by their share of its output error."
              )  # fmt: skip
@options.dask_option()
@options.libraries_option()
@click.option("--junit", type=options.FILE, metavar="FILE.xml",
              help="Write the gates as JUnit XML here.")  # fmt: skip
@options.common
def validate(
    *,
    float_model: Path,
    quantized: tuple[Path, ...],
    data: str,
    preprocess: str | None,
    samples: int | None,
    batch_size: int,
    memory: int,
    metrics: tuple[str, ...],
    executions: tuple[str, ...],
    max_drop: float | None,
    min_accuracy: float | None,
    layers: bool,
    dask: str | None,
    junit: Path | None,
    terminal: Terminal,
) -> int:
    """Compare int8 models with the float one.

    All of them run over the same samples. Exit code 1 says that a gate failed.
    """
    from onnxq import api
    from onnxq.records import write_bytes
    from onnxq.report import layers as layer_report
    from onnxq.report import validation as report
    from onnxq.report.junit import junit as to_junit
    from onnxq.report.table import count

    options.check_output(junit, float_model, data, *quantized)
    reference = api.load(float_model)
    source = api.as_source(data, reference, preprocess=preprocess, samples=samples)
    result = api.validate(
        reference, quantized, source, metrics=metrics or None, executions=executions,
        max_drop=max_drop, min_accuracy=min_accuracy, layers=layers, dask=dask,
        batch_size=batch_size, memory=memory, progress=terminal.progress,
    )  # fmt: skip
    paths = [float_model, *(path for path in quantized for _ in executions)]
    terminal.table(report.metric_table(result, paths))
    terminal.table(report.gate_table(result))
    for path, each in zip(quantized, result.layers, strict=False):
        for text in layer_report.summary(path, each):
            terminal.line(text)
        for table in layer_report.tables(each, whole=terminal.verbose):
            terminal.table(table)
        if each.warning:
            terminal.note(f"{path}: {each.warning}")
    terminal.note(count(result.samples, "sample") + (f", {result.note}" if result.note else ""))
    if junit is not None:
        write_bytes(junit, to_junit(result, paths).encode())
        terminal.note(f"wrote {junit}")
    summarize(result, paths)
    terminal.document("validate", report.document(result, paths, quantized))
    for gate in result.gates:
        if not gate.passed:
            terminal.note(report.verdict(gate))
    return 0 if result.passed else GATE_FAILED


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
