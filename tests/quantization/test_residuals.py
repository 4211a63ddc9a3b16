"""Residual sums in front of a normalization: the same numbers, by kernels that are faster."""

import numpy as np
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.model import Model
from onnxq.model.session import open_session, run, with_graph

WIDTH = 32


def block():
    """x + x·w, normalized, with a product behind it; and a constant added before another norm."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((WIDTH, WIDTH)) / 6, "v": rng.standard_normal((WIDTH, 8)),
        "gain": rng.uniform(0.5, 2, WIDTH), "bias": rng.standard_normal(WIDTH),
        "shift": rng.standard_normal(WIDTH),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="inner"),
        node("Add", ["a", "x"], ["s"], name="residual"),
        node("LayerNormalization", ["s", "gain", "bias"], ["n"], name="norm", axis=-1),
        node("Add", ["n", "shift"], ["t"], name="shifted"),
        node("LayerNormalization", ["t", "gain", "bias"], ["m"], name="second", axis=-1),
        node("MatMul", ["m", "v"], ["y"], name="outer"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6, 8])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def data():
    return {"x": np.random.default_rng(1).standard_normal((24, 6, WIDTH)).astype(np.float32)}


def operators(model):
    return {each.name: each.op_type for each in model.proto.graph.node}


def with_adds(model):
    """The model with Adds in place of its Sums."""
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    for each in proto.graph.node:
        each.op_type = "Add" if each.op_type == "Sum" else each.op_type
    return Model(proto)


@pytest.mark.parametrize("scheme", ["w8a8", "w8", "dynamic"])
def test_onnxruntime_makes_no_slow_kernel_of_them(scheme):
    quantized, _ = onnxq.quantize(block(), data(), target="cpu", scheme=scheme)
    found = operators(quantized)
    assert found["residual"] == "Sum"
    assert found["shifted"] == "Add"

    def ran(model):
        _, optimized = with_graph(lambda **options: open_session(model, layout=False, **options))
        return {each.op_type for each in optimized.graph.node}

    assert "SkipLayerNormalization" not in ran(quantized)
    assert "SkipLayerNormalization" in ran(with_adds(quantized))
    one, other = (
        run(open_session(each, optimize=False, threads=1), None, data())[0]
        for each in (quantized, with_adds(quantized))
    )
    np.testing.assert_array_equal(one, other)


def test_targets_that_fuse_them_well_keep_them():
    quantized, _ = onnxq.quantize(block(), data(), target="gpu")
    assert operators(quantized)["residual"] == "Add"
    half, _ = onnxq.quantize(block(), data(), target="cpu", scheme="w8", rest="fp16")
    assert operators(half)["residual"] == "Add"


def test_every_command_reads_such_a_model():
    model = block()
    quantized, _ = onnxq.quantize(model, data(), target="cpu")
    found = onnxq.validate(model, quantized, data(), executions=["emulate", "cpu"], layers=True)
    assert min(row.values["sqnr"] for row in found.rows[1:]) > 25
    assert {layer.name for layer in found.layers[0].layers} >= {"inner", "outer"}
    assert onnxq.explain(quantized, "residual").becomes == "float"
    page, _ = onnxq.report(model, [quantized])
    assert "residual" in page
