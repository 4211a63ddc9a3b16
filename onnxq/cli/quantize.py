"""`onnxq quantize`: the int8 model for a named target."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.run import GATE_FAILED
from onnxq.quantization.search import MAX_MINUTES, MAX_TRIALS

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
@options.batch_size_option()
@options.memory_option()
@options.target_option("The machine: gpu for TensorRT and CUDA, cpu for ONNX Runtime's CPU "
                       "kernels, or your own.")  # fmt: skip
@options.choice("--weights", ("per-channel", "per-tensor"), "Scales of the int8 weights.",
                default="per-channel")  # fmt: skip
@click.option("--equalize/--no-equalize", default=True, show_default=True,
              help="Equalize across layers first.")  # fmt: skip
@options.absorb_option(default=True, extra=", if equalized and zero points are 0")
@options.choice("--ranges", ("minmax", "percentile", "entropy", "mse"),
                "How activation ranges are chosen.", default="mse")  # fmt: skip
@options.choice("--scale", ("float", "power-of-two"), "Scales of activations and weights.",
                default="float")  # fmt: skip
@click.option("--bias-correction/--no-bias-correction", default=True, show_default=True,
              help="Cancel each channel's mean error; needs --data.")  # fmt: skip
@options.choice("--rounding", ("nearest", "adaptive"),
                "How weights are rounded; adaptive, for the layer's output, needs --data.",
                default="adaptive")  # fmt: skip
@options.choice("--rest", ("fp32", "fp16"), "Type of what stays in float; fp16 needs --data.",
                default="fp32")  # fmt: skip
@click.option("--include", multiple=True, metavar="REGEX", callback=check_patterns,
              help="Quantize only nodes whose name matches; repeatable.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="REGEX", callback=check_patterns,
              help="Leave nodes whose name matches in float; repeatable.")  # fmt: skip
@click.option("--max-drop", type=float, metavar="X",
              help="Keep layers in float until the metric falls no more than X below the float "
              "model's on --validate-data; see onnxq validate.")  # fmt: skip
@click.option("--validate-data", metavar="DATA",
              help="Samples that --max-drop measures on, preprocessed like --data.")  # fmt: skip
@click.option("--max-trials", type=click.IntRange(min=1), default=MAX_TRIALS, show_default=True,
              metavar="N", help="Models that --max-drop may make and measure.")  # fmt: skip
@click.option("--max-minutes", type=click.FloatRange(min=0), default=MAX_MINUTES, show_default=True,
              metavar="M", help="Time after which --max-drop starts no other.")  # fmt: skip
@options.libraries_option()
@options.recipe_option()
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
    batch_size: int,
    memory: int,
    target: str,
    weights: str,
    equalize: bool,
    absorb_bias: bool,
    ranges: str,
    scale: str,
    bias_correction: bool,
    rounding: str,
    rest: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_drop: float | None,
    validate_data: str | None,
    max_trials: int,
    max_minutes: float,
    dry_run: bool,
    terminal: Terminal,
) -> int:
    """Turn a float model into an int8 one.

    The result holds int8 weights and Q/DQ annotations for the target. The defaults are the
    most accurate that end in minutes. Exit code 1 says that --max-drop does not hold; then
    nothing is written.
    """
    from onnxq import api
    from onnxq.cli import recipe
    from onnxq.report import quantization as report

    if output is None and not dry_run:
        raise click.UsageError("missing -o OUT.onnx, where the int8 model goes, or --dry-run")
    if data is None and calibration is None:
        raise click.UsageError("missing --data DATA or --calibration FILE.calib")
    if (max_drop is None) != (validate_data is None):
        raise click.UsageError("--max-drop X and --validate-data DATA need each other")
    options.check_output(output, model, data, calibration, validate_data)
    loaded = api.load(model)
    with terminal.progress.track("quantize", None):
        quantized, result = api.quantize(
            loaded, data, calibration=calibration, preprocess=preprocess, samples=samples,
            target=target, weights=weights, equalize=equalize, absorb_bias=absorb_bias,
            ranges=ranges, scale=scale, bias_correction=bias_correction, rounding=rounding,
            rest=rest, include=include, exclude=exclude, max_drop=max_drop,
            validate_data=validate_data, max_trials=max_trials, max_minutes=max_minutes,
            batch_size=batch_size, memory=memory, progress=terminal.progress,
        )  # fmt: skip
    failed = result.search is not None and not result.search.passed
    written = None if dry_run or failed else output
    if written is not None:
        api.save(recipe.carried(quantized, click.get_current_context()), written)
    for text in report.summary(result):
        terminal.line(text)
    operators = {node.name: node.op_type for node in quantized.proto.graph.node}
    whole = dry_run or terminal.verbose
    show = report.plan_table if whole else report.float_table
    terminal.table(show(result.plan, operators))
    if result.narrowing is not None and result.narrowing.kept:
        terminal.table(report.narrowing_table(result.narrowing))
    if result.search is not None:
        terminal.table(report.search_table(result.search))
    why = "--max-drop does not hold" if failed else "dry run"
    terminal.note(f"wrote {written}" if written else f"{why}: nothing was written")
    terminal.document("quantize", report.document(loaded, result, operators, written))
    return GATE_FAILED if failed else 0
