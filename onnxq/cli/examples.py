"""Two command lines that show what a command is for, at the end of its help."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

EXAMPLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "calibrate": (
            "onnxq calibrate model.onnx --data images/ --preprocess imagenet -o model.calib",
            "onnxq calibrate model.onnx --data data.npz --shard 1/4 -o part1.calib",
        ),
        "merge": (
            "onnxq merge part1.calib part2.calib -o model.calib",
            "onnxq merge part1.calib part2.calib -o model.calib --json",
        ),
        "equalize": (
            "onnxq equalize model.onnx --data images/ --preprocess imagenet -o equalized.onnx",
            "onnxq equalize model.onnx --calibration model.calib -o equalized.onnx --explain",
        ),
        "quantize": (
            "onnxq quantize model.onnx --data images/ --preprocess imagenet --target auto",
            "onnxq quantize model.onnx --scheme w8 --target cpu -o small.onnx",
        ),
        "tune": (
            "onnxq tune model.onnx --data images/ --validate-data test/ --max-drop 1 -o best.onnx",
            "onnxq tune model.onnx --data a.npz --validate-data b.npz --budget 30m -o best.onnx",
        ),
        "emulate": (
            "onnxq emulate model.w8a8.onnx --data data.npz -o outputs.npz",
            "onnxq emulate model.w8a8.onnx --data data.npz --compare cpu",
        ),
        "validate": (
            "onnxq validate model.onnx model.w8a8.onnx --data test/ --preprocess imagenet",
            "onnxq validate model.onnx model.w8a8.onnx --data test.npz --max-drop 1 --layers",
        ),
        "bench": (
            "onnxq bench model.onnx model.w8a8.onnx",
            "onnxq bench model.onnx model.w8a8.onnx --batch-size 8 --threads 4 --profile",
        ),
        "inspect": (
            "onnxq inspect model.onnx --target cpu",
            "onnxq inspect model.w8a8.onnx --lint",
        ),
        "explain": (
            "onnxq explain model.w8a8.onnx classifier",
            "onnxq explain model.onnx classifier --target cpu",
        ),
        "report": (
            "onnxq report model.onnx model.w8a8.onnx --data test.npz --latency -o report.html",
            "onnxq report model.w8a8.onnx -o report.html",
        ),
        "doctor": ("onnxq doctor", "onnxq doctor --json"),
        "completion": ("onnxq completion --install", "onnxq completion zsh"),
    }
)
