"""`onnxq emulate`: what an int8 machine computes, without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal


@click.command()
@options.model_argument()
@options.data_option(required=True)
@options.output_option("the outputs, by name", "OUTPUTS.npz", required=False)
@options.preprocess_option()
@options.samples_option()
@options.batch_size_option()
@options.state_option()
@options.input_shape_option()
@options.libraries_option()
@click.option("--compare", type=click.Choice(("cpu", "cuda")),
              help="Compare each layer, on the same inputs, with what ONNX Runtime computes "
              "there.")  # fmt: skip
@options.common
def emulate(
    *,
    model: Path,
    data: str,
    output: Path | None,
    preprocess: str | None,
    samples: int | None,
    batch_size: int,
    states: tuple[str, ...],
    input_shapes: tuple[str, ...],
    compare: str | None,
    terminal: Terminal,
) -> None:
    """Compute what an int8 machine computes.

    MODEL is a QDQ model, whoever wrote it. Sums are exact in int32 and rounded once; what has no
    integer form runs in float. It needs no GPU.
    """
    from onnxq import api
    from onnxq.records import write_arrays
    from onnxq.report import emulation as report
    from onnxq.report.table import count

    options.check_output(output, model, data)
    loaded = api.load(model)
    source = api.as_source(
        data, loaded, preprocess=preprocess, samples=samples, states=states,
        input_shapes=input_shapes,
    )  # fmt: skip
    record = api.emulate(
        loaded, source, batch_size=batch_size, progress=terminal.progress,
    )  # fmt: skip
    layers = None
    if compare is not None:
        layers = api.compare_layers(
            loaded, source, provider=compare, samples=samples, progress=terminal.progress,
        )  # fmt: skip
    if output is not None:
        write_arrays(output, record.outputs)
    for text in report.summary(record):
        terminal.line(text)
    if terminal.verbose:
        terminal.table(report.layer_table(record))
        terminal.table(report.float_table(record))
    if layers is not None:
        terminal.line(report.agreement_text(layers))
        terminal.table(report.agreement_table(layers))
    terminal.note(count(record.samples, "sample") + (f", {record.note}" if record.note else ""))
    if output is not None:
        terminal.note(f"wrote {output}")
    terminal.document("emulate", {**report.document(loaded, record, output), "agreement": layers})
