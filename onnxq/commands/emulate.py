"""Emulate a QDQ model, and compare its layers with ONNX Runtime's."""

from __future__ import annotations

from onnxq.commands.budget import limits_for
from onnxq.commands.inputs import source_for
from onnxq.data.gather import gather
from onnxq.emulation import emulate as stage
from onnxq.emulation.agreement import LayerAgreement, agreement
from onnxq.emulation.emulate import Emulation, machine_of
from onnxq.model.interface import with_float_interface
from onnxq.model.model import Model
from onnxq.options.emulate import CompareLayersOptions, EmulateOptions
from onnxq.progress import Progress

COMPARED_SAMPLES = 16
"""Samples on which layers are compared, at most; all are in memory."""


def emulate(model: Model, options: EmulateOptions, progress: Progress) -> Emulation:
    """Compute what an integer machine computes; see `onnxq.api.emulate`."""
    model = with_float_interface(model)
    source = source_for(model, options)
    limits = limits_for([model], options.batch_size, options.memory)
    return stage.emulate(model, source, saturate=options.saturate, limits=limits, progress=progress)


def compare_layers(
    model: Model, options: CompareLayersOptions, progress: Progress
) -> tuple[LayerAgreement, ...]:
    """Compare each layer, on the same inputs, in the emulator and in ONNX Runtime."""
    model = with_float_interface(model)
    source = source_for(model, options)
    count = min(options.samples or COMPARED_SAMPLES, COMPARED_SAMPLES)
    batches = gather(source, count)
    limits = limits_for([model], options.batch_size, options.memory)
    provider = options.provider.value
    return agreement(
        machine_of(model), batches, provider=provider, limits=limits, progress=progress
    )
