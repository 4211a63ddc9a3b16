"""`onnxq emulate`: what an integer machine computes, without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.cli.inputs import check_output
from onnxq.errors import UsageError
from onnxq.options.emulate import CompareLayersOptions, Device, EmulateOptions
from onnxq.options.fields import Option
from onnxq.options.kinds import Choice

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.cli.terminal import Terminal

ARRAYS = ".npz"


@command("emulate")
@options.model_argument()
@options.output_option("the outputs, by name", "OUTPUTS.npz", required=False)
@options.of(EmulateOptions)
@options.add(
    "compare",
    Option(
        Choice(Device),
        "Compare each layer, on the same inputs, with what ONNX Runtime computes there.",
    ),
)
@options.common
def emulate(
    *,
    model: Path,
    output: Path | None,
    chosen: EmulateOptions,
    compare: Device | None,
    terminal: Terminal,
) -> None:
    """Compute what an integer machine computes.

    MODEL is a QDQ model, whoever wrote it. Sums are exact in int32 and rounded once; what has no
    integer form runs in float. It needs no GPU.
    """
    from onnxq.commands.emulate import compare_layers
    from onnxq.commands.emulate import emulate as run
    from onnxq.emulation.emulate import require_tensor_output
    from onnxq.model.files import load
    from onnxq.records import write_arrays
    from onnxq.report import emulation as report
    from onnxq.report.table import count

    _check_output(output)
    with terminal.progress.track("read the model", None):
        loaded = load(model)
    if output is not None:
        require_tensor_output(loaded)
    record = run(loaded, chosen, terminal.progress)
    layers = None
    if compare is not None:
        comparison = CompareLayersOptions(
            data=chosen.data, preprocess=chosen.preprocess, tokenizer=chosen.tokenizer,
            samples=chosen.samples, states=chosen.states, input_shapes=chosen.input_shapes,
            provider=compare, batch_size=chosen.batch_size, memory=chosen.memory,
        )  # fmt: skip
        layers = compare_layers(loaded, comparison, terminal.progress)
    if output is not None:
        sizes = {f"{name}.sizes": each for name, each in record.sizes.items()}
        write_arrays(output, {**sizes, **record.outputs})
    for text in report.summary(record):
        terminal.line(text)
    if terminal.verbose:
        terminal.table(report.layer_table(record))
        terminal.table(report.float_table(record))
    if layers is not None:
        terminal.line(report.agreement_text(layers))
        terminal.table(report.agreement_table(layers))
    terminal.note(count(record.samples, "sample") + (f", {record.note}" if record.note else ""))
    if record.sizes:
        terminal.note(report.filled_text(record))
    if record.left_out:
        terminal.note(report.left_out_text(record))
    if output is not None:
        terminal.note(f"wrote {output}")
    terminal.document("emulate", {**report.document(loaded, record, output), "agreement": layers})


def _check_output(output: Path | None) -> None:
    if output is not None and output.suffix.lower() != ARRAYS:
        raise UsageError(
            f"outputs are written as {ARRAYS}, not as {output.name}",
            hint=f"name it {output.stem}{ARRAYS}",
        )
    check_output(output)
