"""`onnxq quantize`: the int8 model for a named target."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from onnxq.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


def check_patterns(
    _ctx: click.Context, _param: click.Parameter, patterns: tuple[str, ...]
) -> tuple[str, ...]:
    """The patterns, if all are regular expressions: better said before the long work."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise click.BadParameter(f"{pattern!r} is no regular expression: {error}") from None
    return patterns


@click.command()
@options.model_argument()
@options.output_option("the int8 model", "OUT.onnx", required=False)
@options.data_option(extra=" Calibrates, rounds, corrects biases and measures.")
@options.calibration_option()
@options.preprocess_option()
@options.samples_option()
@options.choice("--target", ("gpu", "cpu"),
                "The machine: gpu for TensorRT and CUDA, cpu for ONNX Runtime's CPU kernels.",
                default="gpu")  # fmt: skip
@options.choice("--weights", ("per-channel", "per-tensor"), "Scales of the int8 weights.",
                default="per-channel")  # fmt: skip
@click.option("--equalize/--no-equalize", default=True, show_default=True,
              help="Equalize across layers first.")  # fmt: skip
@options.choice("--ranges", ("minmax", "percentile", "entropy", "mse"),
                "How activation ranges are chosen.", default="mse")  # fmt: skip
@options.choice("--scale", ("float", "power-of-two"), "Scales of activations and weights.",
                default="float")  # fmt: skip
@click.option("--bias-correction/--no-bias-correction", default=True, show_default=True,
              help="Cancel each channel's mean error; needs --data.")  # fmt: skip
@options.choice("--rounding", ("nearest", "adaptive"),
                "How weights are rounded; adaptive, for the layer's output, needs --data.",
                default="nearest")  # fmt: skip
@click.option("--include", multiple=True, metavar="REGEX", callback=check_patterns,
              help="Quantize only nodes whose name matches; repeatable.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="REGEX", callback=check_patterns,
              help="Leave nodes whose name matches in float; repeatable.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what happens to each node; write nothing.")
@options.common
def quantize(
    *,
    model: Path,
    output: Path | None,
    data: str | None,
    calibration: Path | None,
    preprocess: str | None,
    samples: int | None,
    target: str,
    weights: str,
    equalize: bool,
    ranges: str,
    scale: str,
    bias_correction: bool,
    rounding: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    terminal: Terminal,
) -> None:
    """Turn a float model into an int8 one.

    The result holds int8 weights and Q/DQ annotations for the target. The defaults are the
    most accurate that end in minutes.
    """
    from onnxq import api
    from onnxq.report import quantization as report

    if output is None and not dry_run:
        raise click.UsageError("missing -o OUT.onnx, where the int8 model goes, or --dry-run")
    if data is None and calibration is None:
        raise click.UsageError("missing --data DATA or --calibration FILE.calib")
    options.check_output(output, model, data, calibration)
    loaded = api.load(model)
    with terminal.progress.track("quantize", None):
        quantized, result = api.quantize(
            loaded, data, calibration=calibration, preprocess=preprocess, samples=samples,
            target=target, weights=weights, equalize=equalize, ranges=ranges, scale=scale,
            bias_correction=bias_correction, rounding=rounding, include=include, exclude=exclude,
            progress=terminal.progress,
        )  # fmt: skip
    if output is not None and not dry_run:
        api.save(quantized, output)
    for text in report.summary(result):
        terminal.line(text)
    operators = {node.name: node.op_type for node in quantized.proto.graph.node}
    whole = dry_run or terminal.verbose
    show = report.plan_table if whole else report.float_table
    terminal.table(show(result.plan, operators))
    terminal.note("dry run: nothing was written" if dry_run else f"wrote {output}")
    written = None if dry_run else output
    terminal.document("quantize", report.document(loaded, result, operators, written))
