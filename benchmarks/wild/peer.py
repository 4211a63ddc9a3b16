"""Quantize with ONNX Runtime's own tool: `quant_pre_process`, then `quantize_static`.

    python peer.py MODEL.onnx FEEDS OUT.onnx

QDQ, int8 weights and activations, MinMax. Scales of weights are per channel; where it fails with
them, or writes a model that does not load, per tensor. A model below opset 13, which knows no
scales per channel, is raised to it first. Prints which it was.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

OPSET = 13
"""The first whose DequantizeLinear takes a scale for each channel."""


class Reader(CalibrationDataReader):
    """Feeds from the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.files = iter(sorted(folder.glob("*.npz")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        file = next(self.files, None)
        return None if file is None else dict(np.load(file, allow_pickle=False))


def quantize(model: str, feeds: Path, output: str, *, per_channel: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        if per_channel:
            model = _raised(model, Path(folder))
        try:
            quant_pre_process(model, prepared)
        except Exception:  # noqa: BLE001 - its symbolic shapes fail on many models
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            output,
            Reader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
        )
    ort.InferenceSession(output, providers=["CPUExecutionProvider"])


def _raised(model: str, folder: Path) -> str:
    """The file of the model with opset 13 or newer."""
    loaded = onnx.load(model)
    opset = next(each.version for each in loaded.opset_import if each.domain in ("", "ai.onnx"))
    if opset >= OPSET:
        return model
    raised = str(folder / "raised.onnx")
    onnx.save(onnx.version_converter.convert_version(loaded, OPSET), raised)
    return raised


def main(model: str, feeds: str, output: str) -> None:
    try:
        quantize(model, Path(feeds), output, per_channel=True)
        print("per channel")
    except Exception as error:  # noqa: BLE001 - whatever it is, the other way is tried
        print(f"per channel: {error}", file=sys.stderr)
        quantize(model, Path(feeds), output, per_channel=False)
        print("per tensor")


if __name__ == "__main__":
    main(*sys.argv[1:])
