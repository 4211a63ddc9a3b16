"""What becomes of each node in the integer machine: numbers by hand, and reasons."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxq.emulation.averages import plan_average
from onnxq.emulation.layers import Accumulation, AsWritten, Average, Fused, Product
from onnxq.emulation.operands import operand, result, weight
from onnxq.emulation.plan import plan_emulation
from onnxq.emulation.rounding import requantization, requantization_or_none
from onnxq.emulation.sums import plan_sum
from onnxq.emulation.write import write_machine
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import operator_of
from onnxq.model.qdq import QdqGraph
from onnxq.model.session import open_session, run
from onnxq.model.status import Float
from onnxq.refusal import Refusal

from support.qdq_models import Layer, Scale

X = Scale("uint8", np.float32(0.5), np.uint8(10))
Y = Scale("int8", np.float32(0.25), np.int8(-3))
W = Scale("int8", np.float32(0.125), np.int8(0))


def graph_of(layer):
    return QdqGraph(layer.model())


def conv(*, weight_scale=W, bias=None, bias_scale=None, output=True, shape=(1, 2, 3, 3)):
    """A convolution of one tap from two channels to three."""
    layer = Layer()
    integers = np.arange(6, dtype=np.int8).reshape(3, 2, 1, 1)
    inputs = [layer.operand(X, shape), layer.weight("w", integers, weight_scale)]
    if bias is not None and bias_scale is not None:
        inputs.append(layer.weight("b", np.asarray(bias), bias_scale))
    elif bias is not None:
        inputs.append(layer.const("b", np.asarray(bias)))
    real = layer.op("Conv", inputs, "conv", kernel_shape=[1, 1])
    if output:
        layer.quantize(real, Y)
    else:
        layer.real_output(real)
    return layer


def planned(layer, name="conv"):
    return plan_emulation(graph_of(layer))[name]


# --- operands ----------------------------------------------------------------------------------


def test_an_activation_has_one_scale_and_a_weight_may_have_one_a_channel():
    three = Scale("int8", np.float32([1, 2, 3]), np.zeros(3, np.int8), axis=0)
    graph = graph_of(conv(weight_scale=three))
    data = operand(graph, "d0")
    assert (data.stored, data.parameters.scale, data.parameters.zero_point) == ("x0", 0.5, 10)
    assert data.parameters.interval == (-10, 245)
    assert weight(graph, "w_real").parameters.scale.tolist() == [1, 2, 3]
    assert operand(graph, "w_real") == Refusal("'w_real' has scales per channel on axis 0")
    assert weight(graph, "d0") == Refusal("'d0' is not a constant")
    assert operand(graph, "conv") == Refusal("'conv' is not quantized")


def test_a_result_is_what_one_quantizer_alone_reads():
    node, found = result(graph_of(conv()), "conv")
    assert (node.name, found.stored, found.parameters.zero_point) == ("y/q", "y", -3)
    assert isinstance(result(graph_of(conv(output=False)), "conv"), Refusal)


# --- rounding ----------------------------------------------------------------------------------


def limited(op_type, *bounds, scale=Y):
    layer = conv()
    layer.nodes.pop()
    layer.outputs.pop()
    names = [layer.const(f"bound{i}", np.float32(b)) for i, b in enumerate(bounds)]
    real = layer.op(op_type, ["conv", *names], "activation")
    layer.quantize(real, scale, "z")
    graph = graph_of(layer)
    return requantization(graph, graph.by_name["conv"])


@pytest.mark.parametrize(
    ("op_type", "bounds", "low", "high"),
    [
        ("Relu", (), -3, 127),
        ("Clip", (0, 6), -3, 21),  # 6 / 0.25 − 3
        ("Clip", (-1, 1e9), -7, 127),
        ("Clip", (-np.inf, np.inf), -128, 127),
        # Half a step goes to the even one: 0.125 / 0.25 = 0.5 → 0, 0.375 / 0.25 = 1.5 → 2.
        ("Clip", (0.125, 0.375), -3, -1),
    ],
)
def test_activations_limit_the_integers(op_type, bounds, low, high):
    found = limited(op_type, *bounds)
    assert (found.low, found.high, found.fused) == (low, high, ("activation",))
    assert found.node == "z/q"


def test_without_an_activation_the_type_limits():
    graph = graph_of(conv())
    found = requantization(graph, graph.by_name["conv"])
    assert (found.low, found.high, found.fused) == (-128, 127, ())
    assert requantization_or_none(graph, graph.by_name["conv"]) == found
    graph = graph_of(conv(output=False))
    assert requantization_or_none(graph, graph.by_name["conv"]) is None


# --- sums --------------------------------------------------------------------------------------


def test_a_sum_counts_in_steps_of_both_scales():
    found = planned(conv())
    assert isinstance(found, Accumulation)
    assert found.step == 0.0625
    assert (found.bias, found.float_bias) == (None, None)
    # Rows (0, 1), (2, 3), (4, 5) of inputs in −10…245.
    assert (found.reach.low, found.reach.high) == (-90, 9 * 245)
    (part,) = found.parts
    assert (part.channels, part.integers.ravel().tolist()) == (None, [0, 1, 2, 3, 4, 5])


def test_a_bias_in_steps_of_the_sum_is_part_of_it_and_another_comes_after():
    steps = Scale("int32", np.float32(0.0625), np.int32(0))
    found = planned(conv(bias=np.int32([5, -6, 7]), bias_scale=steps))
    assert found.bias.ravel().tolist() == [5, -6, 7]
    assert (found.reach.low, found.reach.high) == (-90, 9 * 245 + 7)
    found = planned(conv(bias=np.float32([1, 2, 3])))
    assert found.bias is None
    assert found.float_bias.ravel().tolist() == [1, 2, 3]
    assert found.requantization is None


def test_scales_along_another_axis_are_refused():
    two = Scale("int8", np.float32([1, 2]), np.zeros(2, np.int8), axis=1)
    found = planned(conv(weight_scale=two))
    assert found == Float(Refusal("its weight has scales along axis 1, which is not its outputs'"))


def test_factors_of_a_gemm_are_refused():
    layer = Layer()
    inputs = [layer.operand(X, (2, 3)), layer.weight("w", np.ones((3, 4), np.int8), W)]
    layer.quantize(layer.op("Gemm", inputs, "gemm", alpha=0.5), Y)
    graph = graph_of(layer)
    node = graph.by_name["gemm"]
    assert plan_sum(graph, node, operator_of(node)) == Refusal(
        "it multiplies its product or its bias by a factor"
    )


# --- averages ----------------------------------------------------------------------------------


def pooled(op_type="AveragePool", shape=(1, 2, 5, 5), **attributes):
    layer = Layer()
    real = layer.op(op_type, [layer.operand(X, shape)], "pool", **attributes)
    layer.quantize(real, Y)
    graph = graph_of(layer)
    return plan_average(graph, graph.by_name["pool"])


@pytest.mark.parametrize(
    ("attributes", "count", "pads"),
    [
        ({"kernel_shape": [2, 3]}, 6, None),
        ({"kernel_shape": [3, 3], "pads": [1] * 4}, 0, [1] * 4),
        ({"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}, 9, [1] * 4),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, 0, None),
        ({"kernel_shape": [3, 3], "auto_pad": "VALID"}, 9, None),
        # Five from windows of two, two apart: three of them, the last over one value.
        ({"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 0, [0, 0, 1, 1]),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 9, [0] * 4),
    ],
)
def test_how_many_values_a_window_has(attributes, count, pads):
    found = pooled(**attributes)
    assert isinstance(found, Average)
    assert (found.count, found.channels, found.rank) == (count, 2, 4)
    assert found.window.get("pads") == pads


def test_an_average_of_all_is_over_as_many_as_there_are():
    found = pooled("GlobalAveragePool")
    assert (found.window, found.count) == (None, 25)
    assert (found.reach.low, found.reach.high) == (-250, 25 * 245)
    found = pooled("GlobalAveragePool", (1, 2, "H", 5))
    assert (found.count, found.reach.high) == (0, np.inf)


@pytest.mark.parametrize(
    ("attributes", "shape", "reason"),
    [
        ({"kernel_shape": [2, 2]}, (1, "C", 5, 5), "the number of its channels is known at run time"),
        ({"kernel_shape": [300, 300]}, (1, 2, 400, 400), "float32 cannot hold sums over its window"),
        (
            {"kernel_shape": [2, 2], "ceil_mode": 1, "count_include_pad": 1},
            (1, 2, 5, 5), "it counts pads and rounds its size up",
        ),
        (
            {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
            (1, 2, "H", 5), "it rounds a size up that is known at run time only",
        ),
    ],
)  # fmt: skip
def test_averages_that_stay_float_say_why(attributes, shape, reason):
    found = pooled(shape=shape, **attributes)
    assert isinstance(found, Refusal)
    assert reason in found.reason


# --- all nodes ---------------------------------------------------------------------------------


def test_every_node_but_q_and_dq_has_a_status():
    layer = Layer()
    a, b = layer.operand(X, (2, 3)), layer.operand(X, (2, 3))
    layer.quantize(layer.op("Relu", [layer.op("Mul", [a, b], "product")], "relu"), Y)
    layer.quantize(layer.op("Add", [a, b], "sum"), Y, "z")
    layer.real_output(layer.op("Softmax", [a], "soft"))
    plan = plan_emulation(graph_of(layer))
    assert set(plan) == {"product", "relu", "sum", "soft"}
    assert isinstance(plan["product"], Product)
    assert (plan["product"].reach.low, plan["product"].reach.high) == (-2450, 245**2)
    assert plan["relu"] == Fused("product")
    assert isinstance(plan["sum"], AsWritten)
    assert plan["sum"].format == "int8"
    assert plan["soft"] == Float(Refusal("Softmax has no integer form"))


def test_reasons_of_nodes_that_are_none():
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Shape", ["x"], ["size"], name="shape"),
            node("Mine", ["x"], ["y"], name="mine", domain="d"),
            node("Add", ["x", "x"], ["sum"], name="sum"),
        ],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "sum")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    model = Model(helper.make_model(graph, opset_imports=opsets))
    plan = plan_emulation(QdqGraph(model))
    assert plan["mine"].reason == "Mine has no row in the operator table"
    assert plan["sum"].reason == "'x' is not quantized"


# --- the machine -------------------------------------------------------------------------------


def test_what_is_written_computes_the_sums_and_keeps_the_names():
    layer = conv()
    model = layer.model()
    written = write_machine(model, plan_emulation(QdqGraph(model)))
    machine, counters = written.model, written.counters
    assert counters == {}
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3)).astype(np.uint8)
    (got,) = run(open_session(machine, optimize=False), ["y"], {"x0": x})
    sums = np.einsum("oi,nihw->nohw", np.arange(6).reshape(3, 2), x.astype(np.int64) - 10)
    wanted = np.clip(np.rint(sums * 0.0625 / 0.25) - 3, -128, 127)
    assert np.array_equal(got, wanted)
    assert not any(node.op_type == "DequantizeLinear" and node.output == "w_real" for node in Graph(machine).nodes)  # fmt: skip
