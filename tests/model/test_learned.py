"""Types and shapes that only ONNX Runtime tells, and outputs that a model declares wrongly."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.model import files
from onnxq.model.files import load
from onnxq.model.graph import Graph
from onnxq.model.learned import learn_types
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, run

RNG = np.random.default_rng(0)


def info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def built(nodes, inputs, outputs, weights=None, *, opset=17, domains=(), ir_version=8):
    graph = helper.make_graph(
        nodes, "g", inputs, outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def scaled(shape=("N", 8)):
    """A Scaler of ai.onnx.ml, whose output nothing declares, and a layer behind it."""
    return built(
        [
            helper.make_node("Scaler", ["x"], ["s"], name="scaler", domain="ai.onnx.ml",
                             offset=[1.0], scale=[2.0]),
            helper.make_node("MatMul", ["s", "w"], ["m"], name="layer"),
            helper.make_node("Add", ["m", "b"], ["y"], name="bias"),
        ],
        [info("x", list(shape))], [info("y", None)], {"w": random(8, 4), "b": random(1, 4)},
        domains=["ai.onnx.ml"],
    )  # fmt: skip


def test_what_follows_an_operator_of_another_domain_is_known():
    model, told = learn_types(files.infer_shapes(Model(scaled())))
    graph = Graph(model)
    assert told == 3
    assert graph.is_float("s")
    assert graph.shape("s") == (None, 8)
    assert graph.shape("m")[1:] == (4,)


def test_a_layer_behind_it_takes_its_bias():
    model, record = normalize(Model(scaled()))
    assert [n.op_type for n in model.proto.graph.node] == ["Scaler", "Gemm"]
    assert record.joined_biases == {"bias": "layer"}
    assert record.learned == 3


def test_axes_that_only_a_run_can_count():
    """Reshape to a shape that depends on values."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="r"),
        helper.make_node("Cast", ["size"], ["t"], name="t", to=TensorProto.INT64),
        helper.make_node("Reshape", ["r", "t"], ["s"], name="s"),
        helper.make_node("Tanh", ["s"], ["y"], name="y"),
    ]
    inputs = [info("x", ["N", 6]), info("size", ["K"], TensorProto.INT32)]
    proto = built(nodes, inputs, [info("y", None)])
    model, _ = learn_types(files.infer_shapes(Model(proto)))
    # Zeros and ones ask for no shape that fits: it stays unknown, and nothing breaks.
    assert Graph(model).rank("s") in {None, 2, 3}


def test_a_model_that_does_not_run_keeps_what_it_has():
    node = helper.make_node("Plugin", ["x"], ["y"], name="p", domain="nobody")
    proto = built([node], [info("x", ["N", 3])], [info("y", None)], domains=["nobody"])
    model, told = learn_types(Model(proto))
    assert told == 0
    assert model.proto == proto


# --- outputs -----------------------------------------------------------------------------------


def recognizer(output, opset=11):
    """As Paddle's converter writes it: axes as attributes, an output with no or a wrong shape."""
    axes = {"axes": [2]} if opset < 13 else {}
    squeeze = ["m"] if opset < 13 else ["m", "two"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c", pads=[1] * 4),
        helper.make_node("ReduceMean", ["c"], ["m"], name="m", keepdims=1, axes=[2]),
        helper.make_node("Squeeze", squeeze, ["s"], name="s", **axes),
        helper.make_node("Transpose", ["s"], ["t"], name="t", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "v"], ["l"], name="l"),
        helper.make_node("Softmax", ["l"], ["y"], name="y", axis=2),
    ]
    weights = {"w": random(6, 3, 3, 3), "v": random(6, 5), "two": np.array([2])}
    return built(nodes, [info("x", ["N", 3, 8, "W"])], [output], weights, opset=opset,
                  ir_version=6 if opset < 13 else 8)  # fmt: skip


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("shape", [None, []])
def test_outputs_without_a_shape_or_with_a_wrong_one(shape, opset, tmp_path):
    proto = recognizer(info("y", shape), opset)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    model, record = normalize(load(path))
    assert record.raised_from == (11 if opset == 11 else 0)
    assert len(model.outputs[0].shape) == 3
    assert model.outputs[0].shape[2] == 5
    x = {"x": random(2, 3, 8, 7)}
    wanted, found = (run(open_session(m, optimize=False), ["y"], x)[0] for m in (path, model))
    assert wanted.shape == (2, 7, 5)
    assert np.allclose(wanted, found, atol=1e-6)


def test_a_scalar_output_stays_one(tmp_path):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], name="m", keepdims=0)]
    path = tmp_path / "m.onnx"
    onnx.save(built(nodes, [info("x", ["N", 3])], [info("y", [])]), path)
    assert normalize(load(path))[0].outputs[0].shape == ()


def test_other_faults_of_a_model_without_shapes_are_found(tmp_path):
    proto = recognizer(info("y", None), 17)
    proto.graph.node[0].input[1] = "nothing"
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    with pytest.raises(files.ModelError, match="not a valid ONNX model"):
        load(path)
