"""Integer kernels are counted in the graph that ONNX Runtime runs."""

import json

import numpy as np
import onnxq
import pytest
from click.testing import CliRunner
from onnxq.cli.group import onnxq as command_line
from onnxq.validation.kernels import kernels

from support.masked import encoder
from support.testdata import TESTDATA, images


@pytest.mark.parametrize(("name", "eligible"), [("squeezenet", 26), ("mobilenetv2", 56)])
def test_all_that_can_runs_in_integers(name, eligible):
    model = onnxq.load(TESTDATA / f"{name}.onnx")
    int8, _ = onnxq.quantize(model, images("calibration", 16), target="cpu",
                             rounding="nearest", bias_correction=False)  # fmt: skip
    found = kernels(int8)
    assert [each for each in found if not each.integer] == []
    assert len(found) == eligible


def test_what_does_not_has_a_reason():
    model = onnxq.load(TESTDATA / "squeezenet.onnx")
    int8, _ = onnxq.quantize(model, images("calibration", 16), target="gpu", rounding="nearest")
    found = kernels(int8)
    assert not any(each.integer for each in found)
    assert any("its result is not quantized" in each.reason for each in found)
    assert all(each.reason for each in found)
    assert all("not quantized" in each.reason for each in kernels(model))


def test_the_commands_say_it(tmp_path):
    model = onnxq.load(TESTDATA / "squeezenet.onnx")
    data = images("calibration", 16)
    int8, _ = onnxq.quantize(model, data, target="cpu", rounding="nearest")
    path, samples = tmp_path / "m.onnx", tmp_path / "x.npz"
    onnxq.save(int8, path)
    np.savez(samples, image=data["image"][:4])
    told = CliRunner().invoke(command_line, ["inspect", str(path), "--kernels"])
    assert "26 of 26 eligible nodes run in integers" in told.stdout
    told = CliRunner().invoke(
        command_line, ["emulate", str(path), "--data", str(samples), "--compare", "cpu", "--json"]
    )
    layers = json.loads(told.stdout)["agreement"]
    assert len(layers) >= 26
    assert max(each["largest"] for each in layers) <= 1


def test_products_that_the_model_writes_itself_are_counted():
    model = encoder()
    int8, _ = onnxq.quantize(model, target="cpu", scheme="dynamic")
    found = kernels(int8)
    assert {(each.node, each.op_type) for each in found if each.integer} == {
        ("values", "MatMul"), ("u0", "MatMul"), ("h", "MatMul"),
    }  # fmt: skip
    # What scales their sums is a part of them.
    assert not [each for each in found if each.node.startswith(("values/", "u0/", "h/"))]


@pytest.mark.parametrize("shapes", [(), ("1x1x28x28",)])
def test_layers_of_a_transformer_are_integers_whether_sizes_are_known_or_not(shapes):
    """With known sizes ONNX Runtime made Gemms of MatMul and Add before it looked for Q/DQ."""
    model = onnxq.load(TESTDATA / "encoder.onnx")
    int8, _ = onnxq.quantize(model, images("calibration", 100), target="cpu", rounding="nearest",
                             equalize=False, input_shapes=shapes)  # fmt: skip
    weighted = [each for each in kernels(int8) if each.weighted]
    assert [each.node for each in weighted if not each.integer] == []
    assert len(weighted) == 18
    found = onnxq.validate(model, int8, images("test", 200), metrics=["sqnr"], layers=True)
    assert found.rows[1].values["sqnr"] > 15
    assert found.layers
