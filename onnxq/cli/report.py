"""`onnxq report`: one HTML file that shows it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.run import GATE_FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument()
@click.argument("quantized", type=options.FILE, nargs=-1, metavar="[QUANTIZED]…")
@options.output_option("the page", "REPORT.html")
@options.calibration_option()
@options.data_option(extra=" Measures accuracy, SQNR and each layer's error.")
@options.preprocess_option()
@options.samples_option()
@options.batch_size_option()
@options.memory_option()
@options.max_drop_option()
@options.min_accuracy_option()
@options.common
def report(
    *,
    model: Path,
    quantized: tuple[Path, ...],
    output: Path,
    calibration: Path | None,
    data: str | None,
    preprocess: str | None,
    samples: int | None,
    batch_size: int,
    memory: int,
    max_drop: float | None,
    min_accuracy: float | None,
    terminal: Terminal,
) -> int:
    """Write a page on models: verdict, layers, ranges, weights.

    MODEL is the float model, QUANTIZED are models made from it. One file that needs no network.
    Exit code 1 says that a gate failed; the page is written all the same.
    """
    from onnxq.records import write_bytes
    from onnxq.report.html import collect, render
    from onnxq.report.validation import verdict

    options.check_output(output, model, data, calibration, *quantized)
    found = collect(
        model, quantized, calibration=calibration, data=data, preprocess=preprocess,
        samples=samples, max_drop=max_drop, min_accuracy=min_accuracy, batch_size=batch_size,
        memory=memory, progress=terminal.progress,
    )  # fmt: skip
    page = render(found).encode()
    write_bytes(output, page)
    for text in found.notes:
        terminal.note(f"note: {text}")
    terminal.note(f"wrote {output}, {len(page) / 1e3:.0f} kB")
    gates = found.validation.gates if found.validation else ()
    for gate in gates:
        if not gate.passed:
            terminal.note(verdict(gate))
    terminal.document("report", {
        "model": model, "quantized": quantized, "output": output, "size_bytes": len(page),
        "passed": found.passed, "gates": gates, "notes": found.notes,
    })  # fmt: skip
    return 0 if found.passed else GATE_FAILED
