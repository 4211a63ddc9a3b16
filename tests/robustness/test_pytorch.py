"""What PyTorch's two exporters write, at every operator set, through all four commands.

`scripts/export_pytorch.py` made the files; PyTorch's own outputs are beside them.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxq.model.session import open_session
from onnxq.model.session import run as compute

from support.cli_case import run

FOLDER = Path(__file__).parents[2] / "testdata" / "exports"
EXPORTS = sorted(path.stem for path in FOLDER.glob("*.onnx"))
LAYERS = {"gpu": 10, "cpu": 9}
"""Weighted layers; ONNX Runtime has no integer ConvTranspose on the CPU."""

EFFORT = dict.fromkeys(("torchscript-11", "torchscript-17", "dynamo-18", "dynamo-23"), "default")
"""What finds the ranges is the same for all: the oldest and the newest tell."""


def test_all_operator_sets_are_there():
    assert {f"torchscript-{n}" for n in range(11, 21)} <= set(EXPORTS)
    assert {f"dynamo-{n}" for n in range(18, 24)} <= set(EXPORTS)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_pytorch_export_passes_all_four_commands(name, tmp_path):
    model, arrays = FOLDER / f"{name}.onnx", np.load(FOLDER / "samples.npz")
    x, expected = arrays["x"], arrays["y"]
    np.savez(tmp_path / "x.npz", x=x)
    data, calibration = ("--data", tmp_path / "x.npz"), tmp_path / "c.calib"

    def ok(*words):
        result = run(*words)
        assert result.code == 0, result.err
        return result

    def outputs(path):
        return compute(open_session(path), None, {"x": x})[0]

    ok("calibrate", model, *data, "-o", calibration)
    ok("equalize", model, "-o", tmp_path / "e.onnx", "--calibration", calibration)
    largest = np.abs(expected).max()
    assert np.abs(outputs(tmp_path / "e.onnx") - expected).max() <= 1e-4 * largest
    for target, layers in LAYERS.items():
        path = tmp_path / f"{target}.onnx"
        ok("quantize", model, *data, "--calibration", calibration, "--target", target,
           "--effort", EFFORT.get(name, "fast"), "-o", path)  # fmt: skip
        assert np.abs(outputs(path) - expected).max() <= 0.1 * largest
        weights = [
            tensor
            for tensor in onnx.load(path).graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
        ]
        assert len(weights) == layers
    models = tmp_path / "gpu.onnx", tmp_path / "cpu.onnx"
    result = ok("validate", model, *models, *data, "--metric", "sqnr", "--json",
                "--execution", "emulate", "--execution", "cpu")  # fmt: skip
    rows = json.loads(result.out)["rows"]
    values = [row["metrics"]["sqnr"]["value"] for row in rows if row["model"] != str(model)]
    assert len(values) == 4
    assert min(values) > 20
