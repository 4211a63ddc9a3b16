"""Models as exporters write them, each through all four commands."""

import json

import numpy as np
import onnx
import pytest
from onnxq.model.session import open_session
from onnxq.model.session import run as compute

from robustness.exports import EXPORTS, named, samples
from support.cli_case import run

WEIGHTED = {"torchscript": 3, "ir3": 3, "dynamo": 3, "tf2onnx": 3, "paddle": 2, "sklearn": 2, "control": 2,
            "unnamed": 3, "duplicate": 3, "slashes": 2}  # fmt: skip
"""Layers that must be int8 in the end."""


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_passes_all_four_commands(name, tmp_path):
    proto = EXPORTS[name]()
    onnx.save(proto, tmp_path / "m.onnx")
    x = samples(proto)
    np.savez(tmp_path / "x.npz", x=x)
    model, data = tmp_path / "m.onnx", ("--data", tmp_path / "x.npz")

    def ok(*words):
        result = run(*words)
        assert result.code == 0, result.err
        return result

    ok("calibrate", model, *data, "-o", tmp_path / "c.calib")
    ok("equalize", model, "-o", tmp_path / "e.onnx", "--calibration", tmp_path / "c.calib")
    # ONNX Runtime takes no two nodes of one name; onnxq does.
    (expected,) = compute(open_session(named(proto, "unnamed")), None, {"x": x})
    (same,) = compute(open_session(tmp_path / "e.onnx"), None, {"x": x})
    assert np.abs(same - expected).max() <= 1e-5 * np.abs(expected).max()
    for target in ("gpu", "cpu"):
        out = tmp_path / f"{target}.onnx"
        ok(
            "quantize",
            model,
            *data,
            "--calibration",
            tmp_path / "c.calib",
            "--target",
            target,
            "-o",
            out,
        )
        (got,) = compute(open_session(out), None, {"x": x})
        assert np.abs(got - expected).max() <= 0.1 * np.abs(expected).max()
        written = onnx.load(out)
        assert (
            sum(
                t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
                for t in written.graph.initializer
            )
            >= WEIGHTED[name.split("-")[0]]
        )
        # What a caller relies on stays: names, sizes, metadata.
        assert [i.name for i in written.graph.input] == ["x"]
        assert [o.name for o in written.graph.output] == [o.name for o in proto.graph.output]
        metadata = {entry.key: entry.value for entry in written.metadata_props}
        assert metadata["author"] == "me"
        assert metadata["labels"] == '["a", "b"]'
        assert written.producer_name == proto.producer_name
    result = ok("validate", model, tmp_path / "gpu.onnx", tmp_path / "cpu.onnx", *data, "--layers", "--json",
                "--metric", "sqnr", "--execution", "emulate", "--execution", "cpu")  # fmt: skip
    assert len(json.loads(result.out)["rows"]) >= 3
