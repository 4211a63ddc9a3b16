"""`onnxq merge`: the shards of one calibration become the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@command("merge")
@click.argument("parts", type=options.FILE, nargs=-1, required=True, metavar="A.calib B.calib…")
@options.output_option("the merged calibration", "ALL.calib")
@options.common
def merge(*, parts: tuple[Path, ...], output: Path, terminal: Terminal) -> None:
    """Join calibrations of parts of the data.

    The result has the same bits as one pass over all of it.
    """
    from onnxq.calibration import files
    from onnxq.commands.merge import merge as run
    from onnxq.report.calibration import summary
    from onnxq.report.table import count

    check_output(output)
    with terminal.progress.track("merge", None):
        whole = run(parts)
        files.save(whole, output)
    if whole.shards != ((1, 1),):
        seen = ", ".join(str(index) for index, _ in whole.shards)
        terminal.note(f"note: incomplete: shards {seen} of {whole.shards[0][1]}")
    terminal.note(f"{count(whole.samples, 'sample')} in {count(len(parts), 'part')}")
    terminal.note(f"wrote {output}")
    terminal.document("merge", {"parts": parts, **summary(whole, output)})
