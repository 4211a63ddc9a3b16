"""Quantize with NNCF's ONNX backend. Settings: preset, per_channel, fast_bias_correction.

With `transformer` it quantizes by its scheme for transformers, SmoothQuant included.
"""

import nncf
import onnx
from contract import job
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    QuantizationParameters,
)

task = job()
int8 = nncf.quantize(
    onnx.load(task.model),
    nncf.Dataset(task.feeds()),
    model_type=nncf.ModelType.TRANSFORMER if task.settings.get("transformer") else None,
    preset=nncf.QuantizationPreset(task.settings["preset"]),
    fast_bias_correction=task.settings["fast_bias_correction"],
    subset_size=len(task.feeds()),
    advanced_parameters=AdvancedQuantizationParameters(
        weights_quantization_params=QuantizationParameters(per_channel=task.settings["per_channel"])
    ),
)
onnx.save(int8, task.output)
