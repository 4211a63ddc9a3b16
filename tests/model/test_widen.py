"""float16 and bfloat16 models become float32 inside; their inputs and outputs keep their types."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, run
from onnxq.model.widen import widen


def narrow_model(elem_type):
    """Conv, Relu, Cast to float and back, If with a body that adds, Gemm; all in `elem_type`."""
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)

    def const(name, *shape):
        return numpy_helper.from_array(rng.standard_normal(shape).astype(dtype), name)

    def info(name, *shape):
        return helper.make_tensor_value_info(name, elem_type, shape)

    half = numpy_helper.from_array(np.asarray(0.5, dtype))
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=half), helper.make_node("Add", ["f", "c"], ["t"])],
        "then", [], [info("t", "N", 4)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Neg", ["f"], ["e"])], "else", [], [info("e", "N", 4)]
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c1"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c1"], ["r"]),
        helper.make_node("Cast", ["r"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["wide"], ["back"], to=elem_type),
        helper.make_node("GlobalAveragePool", ["back"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("If", ["yes"], ["i"], then_branch=then, else_branch=other),
        helper.make_node("Gemm", ["i", "g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [info("x", "N", 3, 4, 4)], [info("y", "N", 2)],
        [const("w", 4, 3, 1, 1), const("g", 4, 2), numpy_helper.from_array(np.array(True), "yes")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return Model(proto)


def test_float16_becomes_float32_inside(tmp_path):
    model = narrow_model(TensorProto.FLOAT16)
    wide, count = widen(model)
    assert count >= 4
    assert [i.dtype for i in (*wide.inputs, *wide.outputs)] == [np.float16, np.float16]
    x = np.random.default_rng(1).standard_normal((5, 3, 4, 4)).astype(np.float16)
    before, after = (run(open_session(m), None, {"x": x})[0] for m in (model, wide))
    assert after.dtype == np.float16
    np.testing.assert_allclose(after, before, atol=0.02)
    onnx.save(model.proto, tmp_path / "m.onnx")
    quantized, _ = api.quantize(tmp_path / "m.onnx", x.repeat(3, axis=0))
    (y,) = run(open_session(quantized), None, {"x": x})
    assert np.abs(y.astype(np.float32) - before).max() < 0.5
    assert any(node.op_type == "QuantizeLinear" for node in quantized.proto.graph.node)


def test_bfloat16_is_calibrated():
    model = narrow_model(TensorProto.BFLOAT16)
    x = np.random.default_rng(1).standard_normal((16, 3, 4, 4)).astype(np.float32)
    found = api.calibrate(model, x)
    normalized, record = normalize(model)
    assert record.widened >= 4
    assert "r" in found.tensors
    assert found.tensors["r"].count == 16 * 4 * 16
    assert Graph(normalized).is_float("r")


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT])
def test_a_float32_model_stays_as_it_is(elem_type):
    model = narrow_model(elem_type)
    assert widen(model) == (model, 0)
