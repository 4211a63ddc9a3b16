"""`onnxq explain` and `onnxq report` from the command line."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.cli_case import Case, run


def facts(result, kind: str) -> dict[str, str]:
    return {fact["about"]: fact["text"] for fact in result.json[kind]}


def test_it_explains_an_int8_layer(calibrated: Case):
    quantized = calibrated
    # With samples equalization would be tried, and is no better for a network so small.
    made = run("quantize", quantized.model, "--calibration", quantized.calib, "-o", quantized.out)
    assert made.code == 0, made.err
    result = run("explain", quantized.out, "conv1", "--json")
    assert result.code == 0, result.err
    found = result.json
    assert (found["becomes"], found["operator"], found["equalized"]) == ("quantized", "Conv", False)
    quantization = facts(result, "quantization")
    assert quantization["folded into it"] == "bn1"
    assert quantization["fused into it"] == "relu1"
    assert quantization["weight"].startswith("int8, 8 scales per channel on axis 0")
    assert quantization["range of x"].endswith("zero point 0")
    equalization = facts(result, "equalization")
    assert equalization["rule"].startswith("linear: ")
    assert "it is an input of the model" in equalization["input x"]
    made = next(text for about, text in equalization.items() if about.startswith("class of"))
    assert made.startswith("makes it; 0 of 8 channels scaled")
    assert "depthwise" in made
    rolled_back = "8 scales free, but rolled back: with them the proof failed"
    assert equalization["output n1"] == rolled_back
    assert facts(result, "neighbors")["reads x"] == "an input of the model"
    result = run("explain", quantized.out, "depthwise", "--json")
    assert result.json["equalized"]
    equalization = facts(result, "equalization")
    assert equalization["input r1"] == rolled_back
    assert equalization["output c2"].startswith("6 of 8 channels scaled by 2^")


@pytest.mark.parametrize(("asked", "node"), [("bn1", "conv1"), ("a", "add"), ("relu1", "relu1")])
def test_folded_nodes_and_tensors_lead_to_their_node(quantized: Case, asked: str, node: str):
    found = run("explain", quantized.out, asked, "--json").json
    assert found["node"] == node
    assert found["asked"] == ("" if asked == node else asked)


def test_what_is_fused_and_what_is_float_have_their_reason(quantized: Case):
    relu = run("explain", quantized.out, "relu1").out
    assert relu.startswith("relu1 (Clip): fused (into conv1)")
    pool = run("explain", quantized.out, "pool").out
    assert "float (target gpu runs GlobalAveragePool in float)" in pool


def test_barriers_are_named_where_scales_stop(quantized: Case):
    """The classifier gives the model's output, which nobody scales."""
    equalization = facts(run("explain", quantized.out, "classifier", "--json"), "equalization")
    assert equalization["output y"] == "no scale can enter: classifier (Gemm): graph output"


def test_a_float_model_is_planned(calibrated: Case):
    result = run("explain", calibrated.model, "add", "--target", "cpu",
                 "--calibration", calibrated.calib, "--json")  # fmt: skip
    assert (result.json["becomes"], result.json["note"]) == ("quantized", "")
    assert facts(result, "quantization")["becomes"] == "quantized, for target cpu"
    assert "free; onnxq equalize chooses them" in facts(result, "equalization")["input r1"]
    drawn = run("explain", calibrated.model, "add")
    assert drawn.out.startswith("add (Add): fused (into project)")
    assert "random samples" in drawn.err


def test_a_near_miss_is_suggested(quantized: Case):
    result = run("explain", quantized.out, "clasifier")
    assert result.code == 2
    assert "did you mean 'classifier'?" in result.err
    far = run("explain", quantized.out, "zzzzzz")
    assert (far.code, len(far.err.splitlines())) == (2, 1)


def test_a_report_is_written(quantized: Case):
    page = quantized.folder / "report.html"
    result = run("report", quantized.model, quantized.out, "--data", quantized.data, "-o", page,
                 "--metric-of-nothing")  # fmt: skip
    assert result.code == 2
    assert not page.exists()
    result = run("report", quantized.model, quantized.out, "--data", quantized.data, "-o", page,
                 "--max-drop", "100", "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["passed"]
    assert result.json["size_bytes"] == page.stat().st_size
    sqnr = run("validate", quantized.model, quantized.out, "--data", quantized.data,
               "--json").json["rows"][1]["metrics"]["sqnr"]["value"]  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert re.search(rf"<dt>SQNR</dt><dd>{sqnr:.1f} dB", text)
    assert text.startswith("<!DOCTYPE html>")


def test_a_failed_gate_writes_the_report_and_answers_1(quantized: Case):
    page = quantized.folder / "report.html"
    result = run("report", quantized.model, quantized.out, "--data", quantized.data, "-o", page,
                 "--min-accuracy", "101")  # fmt: skip
    assert result.code == 1
    assert 'class="card failed"' in page.read_text(encoding="utf-8")
    assert "failed: --min-accuracy 101 %" in result.err


def test_a_report_needs_no_data(quantized: Case):
    page = quantized.folder / "report.html"
    result = run("report", quantized.out, "-o", page)
    assert result.code == 0
    assert "Nothing was measured" in result.err
    assert page.exists()


def test_an_operator_that_reads_stored_numbers_itself(tmp_path):
    nodes = [
        helper.make_node("MatMulNBits", ["x", "B", "s"], ["h"], name="product",
                         domain="com.microsoft", K=64, N=32, bits=4, block_size=32),
        helper.make_node("Relu", ["h"], ["y"], name="relu"),
    ]  # fmt: skip
    weights = {"B": np.ones((32, 2, 16), np.uint8), "s": np.ones(64, np.float32)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
    product = run("explain", tmp_path / "m.onnx", "product", "--json").json
    assert product["becomes"] == "quantized"
    assert "reads stored numbers" in product["reason"]
    assert run("explain", tmp_path / "m.onnx", "relu", "--json").json["becomes"] == "float"
