"""Quantize with NVIDIA ModelOpt's ONNX path. Settings: method (max, entropy), rest (fp32, fp16)."""

from contract import job
from modelopt.onnx.quantization import quantize

task = job()
quantize(
    task.model,
    quantize_mode="int8",
    calibration_data=task.arrays,
    calibration_method=task.settings["method"],
    calibration_eps=["cpu"],
    high_precision_dtype=task.settings["rest"],
    output_path=task.output,
)
