"""NaN and infinity where float operators alone read them, and where they are a fault."""

import re

import numpy as np
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.calibration import files
from onnxq.calibration.not_finite import INF, NAN, harm, harmless_inputs, non_finite
from onnxq.calibration.table import calibration_table
from onnxq.errors import DataError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize

LENGTH, WIDTH = 6, 8
CAUSAL = np.triu(np.full((LENGTH, LENGTH), -np.inf, np.float32), 1)


def attention(*, as_input=False, safe=""):
    """Self-attention whose mask is a constant, or an input of the model.

    Args:
        safe: the test by which PyTorch puts 0 for rows without any score.
    """
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 3 for name in ("wq", "wk", "wv")
    }  # fmt: skip
    weights |= {} if as_input else {"mask": CAUSAL}
    node = helper.make_node
    nodes = [
        *(node("MatMul", ["x", f"w{k}"], [k], name=f"{k}_proj") for k in "qkv"),
        node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], name="scores"),
        node("Add", ["scores", "mask"], ["masked"], name="add_mask"),
        node("Softmax", ["masked"], ["p"], name="softmax", axis=-1),
        node("MatMul", ["safe" if safe else "p", "v"], ["y"], name="mix"),
    ]
    if safe:
        weights["zero"] = np.zeros((), np.float32)
        guard = [node(safe, ["p"], ["bad"]), node("Where", ["bad", "zero", "p"], ["safe"])]
        nodes[-1:-1] = guard
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, ["N", LENGTH, WIDTH])]
    if as_input:
        inputs.append(info("mask", TensorProto.FLOAT, [LENGTH, LENGTH]))
    graph = helper.make_graph(
        nodes, "g", inputs, [info("y", TensorProto.FLOAT, ["N", LENGTH, WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def data(*, with_mask):
    x = np.random.default_rng(1).standard_normal((24, LENGTH, WIDTH), np.float32)
    return {"x": x} | ({"mask": CAUSAL} if with_mask else {})


@pytest.mark.parametrize("as_input", [False, True])
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_mask_of_infinities_is_no_error(as_input, target):
    model, samples = attention(as_input=as_input), data(with_mask=as_input)
    equalized, _ = api.equalize(model, data=samples)
    quantized, result = api.quantize(equalized, samples, target=target)
    assert {"q_proj", "k_proj", "v_proj"} <= set(result.plan.weighted)
    assert "masked" not in result.plan.activations
    reason = result.plan.nodes["add_mask"].reason
    assert "holds Inf, first in sample" in reason
    assert api.validate(model, quantized, samples).rows[1].values["sqnr"] > 30


def test_what_is_stored_of_it_is_finite(tmp_path):
    model = attention()
    calibration = api.calibrate(model, data(with_mask=False))
    masked = calibration.tensors["masked"]
    assert masked.not_finite == 24 * 15
    assert -20 < masked.low < masked.high < 20
    refusal = non_finite(calibration.tensors, "masked")
    assert refusal is not None
    assert refusal.reason == "'masked' holds Inf, first in sample <memory>[0]"
    assert non_finite(calibration.tensors, "scores") is None
    files.save(calibration, tmp_path / "a.calib")
    assert files.load(tmp_path / "a.calib").tensors["masked"].not_finite == 24 * 15
    assert calibration_table(*normalize(model), calibration)


def test_a_tensor_of_nothing_but_infinities_has_an_empty_range():
    model = attention(as_input=True)
    samples = data(with_mask=True) | {"mask": np.full((LENGTH, LENGTH), np.inf, np.float32)}
    samples["mask"][:, 0] = 0
    samples["mask"][:, 1:] = -np.inf
    calibration = api.calibrate(model, samples)
    assert api.quantize(model, calibration=calibration)[1].plan.weighted


@pytest.mark.parametrize(("tensor", "kind", "reason"), [
    ("x", INF, "the layer '._proj' reads it"),
    ("mask", INF, None), ("masked", INF, None),
    ("masked", NAN, "the layer 'mix' reads it"),
    ("p", INF, "the layer 'mix' reads it"),
    ("scores", INF, "the layer 'scores' computes it"),
    ("y", NAN, "computes it"),
])  # fmt: skip
def test_what_a_value_spoils(tensor, kind, reason):
    found = harm(Graph(attention(as_input=True)), tensor, kind)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(reason, found.reason)


def test_which_inputs_may_hold_them():
    assert harmless_inputs(Graph(attention(as_input=True))) == {"mask"}


def test_what_a_layer_reads_is_refused_with_tensor_and_sample():
    x = data(with_mask=False)["x"]
    x[17, 2, 3] = np.inf
    with pytest.raises(DataError, match=r"<memory>\[17\]: input 'x' holds 1 Inf"):
        api.calibrate(attention(), x)
    mask = CAUSAL.copy()
    mask[3, :] = -np.inf  # a row without any score: 0 / 0
    with pytest.raises(
        DataError, match=r"NaN in activation 'p' .*the layer 'mix' reads it .*--allow-nonfinite"
    ):
        api.quantize(attention(as_input=True), {"x": np.abs(x[:8]), "mask": mask})
    samples = {"x": x[:8], "mask": mask}
    quantized, _ = api.quantize(attention(as_input=True), samples, allow_nonfinite=True)
    assert isinstance(quantized, onnxq.Model)


def without_a_score(count):
    """Samples, and a mask that leaves one position nothing to look at: 0 / 0."""
    mask = CAUSAL.copy()
    mask[3, :] = -np.inf
    return {"x": data(with_mask=False)["x"][:count], "mask": mask}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_nan_that_a_condition_leaves_out_is_no_error(target):
    model, samples = attention(as_input=True, safe="IsNaN"), without_a_score(16)
    api.equalize(model, data=samples)
    quantized, result = api.quantize(model, samples, target=target)
    assert {"q_proj", "k_proj", "v_proj"} <= set(result.plan.weighted)
    assert "p" not in result.plan.activations
    assert api.validate(model, quantized, samples).rows[1].values["sqnr"] > 25


def test_a_nan_that_a_condition_lets_pass_is_one():
    model = attention(as_input=True, safe="IsInf")
    with pytest.raises(DataError, match=r"NaN in activation 'safe' .*the layer 'mix' reads it"):
        api.quantize(model, without_a_score(16))
