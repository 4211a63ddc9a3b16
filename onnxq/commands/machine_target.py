"""`--target auto`: the target that runs on the machine at hand."""

from __future__ import annotations

from dataclasses import replace

from onnxq.commands.account import DEVICE, HERE
from onnxq.model.cuda import refusal_of_tensorrt
from onnxq.options.quantize import QuantizeOptions
from onnxq.options.shared import AUTO
from onnxq.targets import shipped_targets


def with_target(options: QuantizeOptions) -> tuple[QuantizeOptions, str]:
    """The options with a target that has a name, and what was chosen, and why; "" for nothing.

    What is recorded is the name, so that the recipe gives the same bytes on every machine.
    """
    if options.target != AUTO:
        return options, ""
    refusal = refusal_of_tensorrt()
    runtime, why = (HERE, refusal.reason) if refusal else (DEVICE, "TensorRT is installed here")
    name = next(name for name, each in shipped_targets().items() if each.runtime == runtime)
    return replace(options, target=name), f"target {AUTO}: {name}, as {why}"
