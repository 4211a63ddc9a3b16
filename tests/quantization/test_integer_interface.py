"""Inputs and outputs in integers, and ranges as encodings."""

import json

import numpy as np
import onnxq
import pytest
from onnxq.formats.table import FORMATS
from onnxq.model.interface import recorded_interface

from support.builder import Builder
from support.cli_case import run


def network():
    b = Builder(2, spread=1)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 8, 3))
    return b.model(b.conv(b.op("Relu", b.conv(x, 8)), 4))


def samples(count=32, seed=0):
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 8, 8), np.float32)}


@pytest.mark.parametrize(("target", "numbers"), [("qnn", "uint8"), ("cpu-arm64", "int8")])
def test_the_integers_are_those_that_the_model_made_itself(target, numbers):
    model, data = network(), samples(seed=1)
    options = {"target": target, "rounding": "nearest"}
    plain, _ = onnxq.quantize(model, samples(), **options)
    whole, result = onnxq.quantize(model, samples(), io=numbers, **options)
    (given,), (taken,) = whole.inputs, whole.outputs
    assert (given.name, given.dtype) == ("x", FORMATS[numbers].dtype)
    assert (taken.name, taken.dtype) == (model.outputs[0].name, FORMATS[numbers].dtype)
    assert result.interface.refused == {}
    known = recorded_interface(whole)
    assert known.keys() == {given.name, taken.name}
    # A validation feeds and reads floats, and finds the same.
    rows = onnxq.validate(model, [plain, whole], data, metrics=["sqnr"],
                          executions=["emulate", "cpu"]).rows  # fmt: skip
    values = [row.values["sqnr"] for row in rows[1:]]
    assert values[:2] == values[2:]
    assert values[0] > 20
    assert onnxq.validate(model, whole, data, layers=True).layers


def test_what_is_float_inside_stays_float_and_is_said(tmp_path):
    path = tmp_path / "m.onnx"
    onnxq.save(network(), path)
    np.savez(tmp_path / "x.npz", **samples())
    done = run("quantize", path, "--data", tmp_path / "x.npz", "--target", "openvino", "--io", "uint8",
               "--rounding", "nearest", "-o", tmp_path / "q.onnx", "--json")  # fmt: skip
    assert done.code == 0, done.err
    interface = done.json["interface"]
    assert set(interface["tensors"]) == {"x"}
    assert list(interface["refused"].values()) == ["it is computed in float"]
    other, result = onnxq.quantize(
        network(), samples(), target="cpu", io="int8", rounding="nearest"
    )
    assert result.interface.refused["x"] == "it is uint8 in the model"
    assert other.inputs[0].dtype == np.float32


def test_encodings_hold_the_ranges(tmp_path):
    path = tmp_path / "m.onnx"
    onnxq.save(network(), path)
    np.savez(tmp_path / "x.npz", **samples())
    done = run("calibrate", path, "--data", tmp_path / "x.npz", "--format", "encodings")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["version"] == "0.6.1"
    (entry,) = found["activation_encodings"]["x"]
    largest = np.abs(samples()["x"]).max()
    assert -largest <= entry["min"] < -2 < 2 < entry["max"] <= largest + entry["scale"]
    for each in (*found["activation_encodings"].values(), *found["param_encodings"].values()):
        for one in each:
            assert (one["bitwidth"], one["dtype"]) == (8, "int")
            assert one["min"] == pytest.approx(one["offset"] * one["scale"], rel=1e-6)
            assert one["max"] == pytest.approx((one["offset"] + 255) * one["scale"], rel=1e-6)
    assert sorted(map(len, found["param_encodings"].values())) == [4, 8, 8]
