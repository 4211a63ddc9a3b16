"""Whole graphs backwards: sums over paths, what stops a gradient, and what is said of it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxq.gradients import backward_model
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import open_session, run

from support.builder import Builder


def gradients_of(model, wanted, feeds, leaves=None):
    """Of the sum of the outputs' elements."""
    graph = Graph(model)
    leaves = leaves or [name for name in graph.outputs if graph.is_float(name)]
    made = backward_model(graph, wanted, leaves)
    shapes = run(open_session(model), leaves, feeds)
    seeds = {made.seeds[n]: np.ones_like(y) for n, y in zip(leaves, shapes, strict=True)}
    names = list(made.gradients.values())
    found = run(open_session(made.model), names, {**feeds, **seeds}) if names else []
    return dict(zip(made.gradients, found, strict=True)), made


def ones(*shape):
    return {"x": np.ones(shape, np.float32)}


def test_paths_add_up():
    b = Builder()
    x = b.input(3)
    y = b.op("Mul", x, x)
    model = b.model(b.op("Add", b.op("Add", y, x), y))
    found, _ = gradients_of(model, ["x", y], {"x": np.array([[1, 2, 3]], np.float32)})
    assert found["x"].tolist() == [[5, 9, 13]]
    assert found[y].tolist() == [[2, 2, 2]]


def test_values_come_out_beside_gradients():
    b = Builder()
    y = b.op("Relu", b.gemm(b.input(4), 3))
    model = b.model(b.gemm(y, 2))
    made = backward_model(Graph(model), [y], model_outputs(model))
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    (value,) = run(
        open_session(made.model),
        [y],
        {**feeds, made.seeds[model_outputs(model)[0]]: np.ones((5, 2), np.float32)},
    )
    (wanted,) = run(open_session(with_output(model, y)), [y], feeds)
    assert np.allclose(value, wanted, atol=1e-6)


def model_outputs(model):
    return [spec.name for spec in model.outputs]


def with_output(model, name):
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return proto


def test_a_gradient_that_is_cut_on_one_path_is_none():
    """What is before the CumSum has none, what is beside it has."""
    b = Builder()
    x = b.input(3)
    y, z = b.op("Sigmoid", x), b.op("Tanh", x)
    cut = b.op("CumSum", y, b.const(np.array(1)))
    model = b.model(b.op("Add", b.op("Add", cut, y), z))
    found, made = gradients_of(model, ["x", y, z, cut], ones(2, 3))
    assert set(found) == {z, cut}
    assert set(made.refused) == {"x", y}
    assert all("CumSum" in str(reason) for reason in made.refused.values())


def selected(op_type, *more, **attributes):
    """A model with one float output and one of the indices that an operator finds."""
    b = Builder()
    y = b.op("Relu", b.gemm(b.input(4), 3))
    scores = b.gemm(y, 5)
    infos = [helper.make_tensor_value_info(scores, TensorProto.FLOAT, None)]
    found = b.op(
        op_type,
        scores,
        *[b.const(each) for each in more],
        outputs=1 + (op_type == "TopK"),
        **attributes,
    )
    chosen = found[-1] if isinstance(found, list) else found
    infos.append(helper.make_tensor_value_info(chosen, TensorProto.INT64, None))
    graph = helper.make_graph(b.nodes, "g", b.inputs, infos, initializer=b.initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Model(onnx.shape_inference.infer_shapes(proto)), y, scores


@pytest.mark.parametrize("op_type", ["ArgMax", "TopK"])
def test_integer_outputs_do_not_count(op_type):
    model, y, scores = selected(op_type, *([np.array([2])] if op_type == "TopK" else []))
    found, made = gradients_of(model, [y, scores], ones(2, 4))
    assert set(found) == {y, scores}
    assert not made.refused


def test_without_a_float_output_nothing_has_a_gradient():
    model, y, scores = selected("ArgMax")
    made = backward_model(Graph(model), [y, scores], [])
    assert not made.gradients
    assert {str(reason) for reason in made.refused.values()} == {"no float output depends on it"}


def test_what_is_selected_has_a_gradient_and_what_selects_it_none():
    """No small change of the scores selects another element."""
    b = Builder()
    x = b.input(6)
    y, scores = b.op("Tanh", x), b.op("Sigmoid", x)
    _, places = b.op("TopK", scores, b.const(np.array([2])), outputs=2)
    model = b.model(b.op("GatherElements", y, places, axis=1))
    values = np.array([[1, 5, 2, 4, 0, 3]], np.float32)
    found, made = gradients_of(model, [y, scores], {"x": values})
    assert found[y].tolist() == [[0, 1, 0, 1, 0, 0]]
    assert str(made.refused[scores]) == "no float output depends on it"


def test_the_largest_values_have_a_gradient():
    b = Builder()
    x = b.op("Relu", b.input(6))
    found, _ = b.op("TopK", x, b.const(np.array([2])), outputs=2)
    gradients, _ = gradients_of(
        b.model(b.op("Mul", found, found)), [x], {"x": np.array([[1, 5, 2, 4, 0, 3]], np.float32)}
    )
    assert gradients[x].tolist() == [[0, 10, 0, 8, 0, 0]]


def test_comparisons_cut_nothing():
    """x where it is above the mean of x: the mean decides, but changes nothing by a little."""
    b = Builder()
    x = b.input(4)
    mean = b.op("ReduceMean", x, axes=[1])
    model = b.model(b.op("Where", b.op("Greater", x, mean), x, b.const(np.zeros(1))))
    found, made = gradients_of(model, ["x", mean], {"x": np.array([[1, 2, 3, 4]], np.float32)})
    assert found["x"].tolist() == [[0, 0, 1, 1]]
    assert set(made.refused) == {mean}


def test_the_bodies_of_conditions_cut():
    b = Builder()
    y = b.op("Relu", b.input(3))
    body = helper.make_graph(
        [helper.make_node("Neg", [y], ["inner"])], "body", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )  # fmt: skip
    positive = b.op("Greater", b.op("ReduceMax", "x", keepdims=0), b.const(0.0))
    chosen = b.op("If", positive, then_branch=body, else_branch=body)
    _, made = gradients_of(b.model(b.op("Add", chosen, y)), [y], ones(2, 3))
    assert "no gradient is known of If" in str(made.refused[y])


def test_names_of_the_model_are_left_alone():
    b = Builder()
    y = b.op("Relu", b.input(3), name="gradient:0")
    model = b.model(b.op("Sigmoid", y))
    found, _ = gradients_of(model, [y], ones(1, 3))
    assert np.allclose(found[y], 0.19661, atol=1e-4)


@pytest.mark.parametrize("opset", [13, 16, 21])
def test_every_opset(opset):
    """A pool adds up where windows overlap, which takes a newer operator set than the model's."""
    b = Builder(opset=opset)
    y = b.conv(b.input(2, 6, 6), 4, 3)
    model = b.model(b.head(b.op("MaxPool", y, kernel_shape=[3, 3], strides=[1, 1])))
    found, made = gradients_of(
        model,
        ["x", y],
        {"x": np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32)},
    )
    assert set(found) == {"x", y}
    assert made.model.opset == max(opset, 16)


def test_operands_of_one_add_share_their_gradient():
    b = Builder()
    x = b.input(3)
    y, z = b.op("Tanh", x), b.op("Sigmoid", x)
    found, made = gradients_of(b.model(b.op("Add", y, z)), [y, z], ones(2, 3))
    assert made.gradients[y] == made.gradients[z]
    assert found[y].tolist() == found[z].tolist() == [[1, 1, 1]] * 2
