"""`onnxq bench`: how long models take, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.options.bench import BenchOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@command("bench")
@click.argument("models", type=options.FILE, nargs=-1, required=True, metavar="MODEL…")
@options.of(BenchOptions)
@options.common
def bench(*, models: tuple[Path, ...], chosen: BenchOptions, terminal: Terminal) -> None:
    """Time models side by side, each against the first.

    They take turns on this machine, warm, on the same samples. Times are medians, with the
    quartiles beside them.
    """
    from onnxq.commands.bench import bench as run
    from onnxq.commands.inputs import as_models
    from onnxq.report import latency as report

    names = [str(model) for model in models]
    with terminal.progress.track("read the models", None):
        loaded = as_models(models)
    timing = run(loaded, chosen, terminal.progress)
    terminal.table(report.latency_table(timing, names))
    terminal.table(report.operator_table(timing, names, whole=terminal.verbose))
    terminal.note(report.note(timing))
    terminal.document("bench", report.document(timing, models))
