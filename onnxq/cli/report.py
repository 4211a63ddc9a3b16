"""`onnxq report`: one HTML file that shows it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output
from onnxq.cli.run import GATE_FAILED
from onnxq.options.report import ReportOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@command("report")
@options.model_argument()
@click.argument("quantized", type=options.FILE, nargs=-1, metavar="[QUANTIZED]…")
@options.output_option("the page", "REPORT.html")
@options.of(ReportOptions)
@options.common
def report(
    *,
    model: Path,
    quantized: tuple[Path, ...],
    output: Path,
    chosen: ReportOptions,
    terminal: Terminal,
) -> int:
    """Compare models on a page: verdict, layers, graph, sizes, times.

    MODEL is the float model, QUANTIZED are models made from it. One file that needs no network.
    Exit code 1 says that a gate failed; the page is written all the same.
    """
    from onnxq.commands.inputs import as_models
    from onnxq.model.files import load
    from onnxq.records import write_bytes
    from onnxq.report.html import collect, render
    from onnxq.report.validation import verdict

    chosen = options.provided(chosen, terminal)
    check_output(output)
    with terminal.progress.track("report", None):
        found = collect(load(model), as_models(quantized), chosen, terminal.progress)
        page = render(found).encode()
    write_bytes(output, page)
    for text in found.notes:
        terminal.note(f"note: {text}")
    terminal.note(f"wrote {output}, {len(page) / 1e3:.0f} kB")
    gates = found.validation.gates if found.validation else ()
    for gate in gates:
        if not gate.passed:
            terminal.note(verdict(gate))
    terminal.document(
        "report",
        {
            "model": model,
            "quantized": quantized,
            "output": output,
            "size_bytes": len(page),
            "passed": found.passed,
            "gates": gates,
            "notes": found.notes,
        },
    )
    return 0 if found.passed else GATE_FAILED
