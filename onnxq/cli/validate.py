"""`onnxq validate`: a verdict on quantized models, the float one beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal

GATE_FAILED = 1


@click.command()
@options.model_argument("float_model", "FLOAT")
@click.argument("quantized", type=options.FILE, nargs=-1, metavar="[QUANTIZED]…")
@options.data_option(required=True)
@options.preprocess_option()
@options.samples_option()
@click.option("--metric", "metrics", multiple=True, metavar="METRIC",
              help="top1, top5, sqnr, cosine or FILE.py:function; repeatable; gates look at the "
              "first.  [default: top1 if the data have labels, sqnr, cosine]")  # fmt: skip
@click.option("--execution", "executions", multiple=True, default=("emulate",), show_default=True,
              type=click.Choice(("emulate", "cpu", "cuda")),
              help="How quantized models run; repeatable.")  # fmt: skip
@click.option("--max-drop", type=float, metavar="X",
              help="Fail if a quantized model's metric falls more than X below the float one's, "
              "in the metric's unit.")  # fmt: skip
@click.option("--min-accuracy", type=float, metavar="X",
              help="Fail if any model's metric is below X.")  # fmt: skip
@options.common
def validate(
    *,
    float_model: Path,
    quantized: tuple[Path, ...],
    data: str,
    preprocess: str | None,
    samples: int | None,
    metrics: tuple[str, ...],
    executions: tuple[str, ...],
    max_drop: float | None,
    min_accuracy: float | None,
    terminal: Terminal,
) -> int:
    """Compare int8 models with the float one.

    All of them run over the same samples. Exit code 1 says that a gate failed.
    """
    from onnxq import api
    from onnxq.errors import UsageError
    from onnxq.report import validation as report
    from onnxq.report.table import count
    from onnxq.validation.metrics import metric_named

    first = metric_named(metrics[0]) if metrics else None
    reference = api.load(float_model)
    source = api.as_source(data, reference, preprocess=preprocess, samples=samples)
    gated = max_drop is not None or min_accuracy is not None
    if gated and not (first.needs_labels if first else source.has_labels):
        raise UsageError(
            "--max-drop and --min-accuracy need a first metric that compares with labels",
            hint="give data with labels and put --metric top1 first",
        )
    result = api.validate(
        reference, quantized, source, metrics=metrics or None, executions=executions,
        max_drop=max_drop, min_accuracy=min_accuracy, progress=terminal.progress,
    )  # fmt: skip
    paths = [float_model, *(path for path in quantized for _ in executions)]
    terminal.table(report.metric_table(result, paths))
    terminal.table(report.gate_table(result))
    terminal.note(count(result.samples, "sample") + (f", {result.note}" if result.note else ""))
    terminal.document("validate", report.document(result, paths))
    for gate in result.gates:
        if not gate.passed:
            terminal.note(report.verdict(gate))
    return 0 if result.passed else GATE_FAILED
