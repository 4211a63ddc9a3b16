"""`onnxq tune`: many ways to quantize a model, one table, the best of those that hold the gate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output
from onnxq.cli.run import GATE_FAILED
from onnxq.options.tune import TuneOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@command("tune")
@options.model_argument()
@options.output_option("the best model", "OUT.onnx")
@options.of(TuneOptions)
@options.common
def tune(*, model: Path, output: Path, chosen: TuneOptions, terminal: Terminal) -> int:
    """Try many ways to quantize a model; write the best.

    Each is quantized, judged as validate does, and timed where the target runs here. Of those
    within --max-drop the fastest is written, with its recipe; without --max-drop the closest to
    the float model that is smaller and faster. A run that was stopped goes on where it was. Exit
    code 1 says that none holds --max-drop; then nothing is written.
    """
    from onnxq.calibration.checkpoint import state_path
    from onnxq.cli.outputs import require_own
    from onnxq.commands.tune import tune as run
    from onnxq.commands.tuning_state import remove
    from onnxq.model.files import load, save
    from onnxq.report import tuning as report

    chosen = options.provided(chosen, terminal)
    check_output(output)
    require_own(output)
    state = state_path(output)
    with terminal.progress.track("read the model", None):
        loaded = load(model)
    best, tuning = run(
        loaded,
        replace(chosen, state=state),
        terminal.progress,
        lambda row, before: terminal.note(report.line(row, before)),
    )
    if best is not None:
        with terminal.progress.track("write the model", None):
            save(best, output)
    if tuning.resolved:
        terminal.line(tuning.resolved)
    terminal.table(report.tuning_table(tuning))
    terminal.table(report.failed_table(tuning))
    for text in report.lines(tuning):
        terminal.line(text)
    done = best is not None and tuning.ended
    if done:
        remove(state)
    elif state.exists():
        terminal.note(f"the trials are kept in {state}: the same command goes on from there")
    terminal.note("nothing was written" if best is None else f"wrote {output}")
    terminal.note(report.next_step(tuning, model, output))
    written = None if best is None else output
    terminal.document("tune", report.document(tuning, model, written, None if done else state))
    return GATE_FAILED if best is None else 0
