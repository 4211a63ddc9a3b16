"""`onnxq calibrate`: one pass over the data, and the table of what it saw."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output
from onnxq.options.calibrate import CalibrateOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.calibration.statistics import Calibration
    from onnxq.cli.terminal import Terminal


MOST = 3
"""Dead and constant channels that are named without `--verbose`; NaN and Inf always are."""


@command("calibrate")
@options.model_argument()
@options.output_option("the calibration", "FILE.calib", required=False)
@options.of(CalibrateOptions)
@click.option(
    "--format",
    "table_format",
    type=click.Choice(("table", "csv", "json", "encodings")),
    help="Print the calibration table, by default where no -o is given; encodings: the ranges as "
    "AIMET's JSON, which Qualcomm's converters take.",
)
@options.common
def calibrate(
    *,
    model: Path,
    output: Path | None,
    chosen: CalibrateOptions,
    table_format: str | None,
    terminal: Terminal,
) -> None:
    """Record what each tensor's values look like.

    MODEL runs over the data once; memory does not grow with the number of samples.
    """
    from onnxq.calibration import files
    from onnxq.calibration.checkpoint import state_path
    from onnxq.calibration.table import calibration_table
    from onnxq.commands.calibrate import calibrate as run
    from onnxq.model.files import load
    from onnxq.model.normalize import normalize
    from onnxq.quantization.encodings import encodings
    from onnxq.report import calibration as report
    from onnxq.report.table import to_csv

    terminal = terminal.with_json(asked=table_format == "json")
    chosen = options.provided(chosen, terminal)
    check_output(output)
    if chosen.resume and output is None:
        raise click.UsageError("--resume needs -o: the state of a run lies beside its output")
    state = state_path(output) if output is not None and not chosen.dask else None
    with terminal.progress.track("read the model", None):
        loaded = load(model)
    chosen = replace(chosen, state=state)
    calibration = run(loaded, chosen, terminal.progress)
    if output is not None and state is not None:
        files.save(calibration, output)
        state.unlink(missing_ok=True)
    _say_notes(terminal, calibration, output)
    if not (terminal.json or table_format or output is None):
        return
    normalized, record = normalize(loaded)
    if table_format == "encodings":
        terminal.raw(json.dumps(encodings(normalized, calibration), indent=1) + "\n")
        return
    rows = calibration_table(normalized, record, calibration)
    if terminal.json:
        terminal.document("calibrate", report.document(loaded, calibration, rows, output))
    elif table_format == "csv":
        terminal.raw(to_csv(report.table_of(rows, digits=9)))
    else:
        terminal.table(report.table_of(rows))


def _say_notes(terminal: Terminal, calibration: Calibration, output: Path | None) -> None:
    from onnxq.calibration.findings import (
        CONSTANT,
        NOT_FINITE,
        ZERO,
        find_oddities,
        too_few_samples,
    )
    from onnxq.report.table import count

    seen = count(calibration.samples, "sample") + " seen, "
    terminal.note(seen + count(len(calibration.tensors), "tensor"))
    terminal.detail(f"model {calibration.provenance.model}")
    terminal.detail(f"data {calibration.data}")
    if calibration.provenance.preprocessing:
        terminal.detail(f"preprocessing {calibration.provenance.preprocessing}")
    if calibration.note:
        terminal.note(f"note: {calibration.note}")
    findings = find_oddities(calibration)
    bad = [each for each in findings if each.kind == NOT_FINITE]
    dead = [each for each in findings if each.kind in {ZERO, CONSTANT}]
    shown = findings if terminal.verbose else [*bad, *dead[:MOST]]
    for finding in shown:
        terminal.note(f"note: {finding.tensor}: {finding.text}")
    rest = [each for each in findings if each not in shown]
    if rest:
        kinds = ", ".join(sorted({each.kind for each in rest}))
        terminal.note(f"note: {count(len(rest), 'more finding')} ({kinds}); -v names them")
    if calibration.costs is not None:
        costs = calibration.costs
        known = f"gradients of {count(len(costs.tensors), 'tensor')}"
        terminal.note(f"{known}, on {count(costs.samples, 'sample')}")
        for tensor, reason in sorted(costs.refused.items()):
            terminal.detail(f"no gradient of {tensor}: {reason}")
    few = too_few_samples(calibration)
    if few:
        terminal.note(f"note: {few}")
    if output is not None:
        terminal.note(f"wrote {output}")
