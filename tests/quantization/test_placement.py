"""Where Q/DQ go: on a residual block, a head of boxes, and what is not calibrated."""

import dataclasses

import pytest
from onnxq.api import calibrate
from onnxq.model.graph import Graph, Place
from onnxq.model.status import Float, Quantized
from onnxq.quantization.placement import place
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.refusal import Refusal
from onnxq.targets.read import target_named

from support.activations import WRITTEN
from support.builder import Builder
from support.random_graphs import random_feeds


def placed(model, target, *, keep=(), calibrated=None, **changes):
    """What becomes of the nodes if all but `keep` could be quantized."""
    graph, target = Graph(model), target_named(target)
    scheme = target.scheme("w8a8")
    nodes = {node.name: Quantized(scheme) for node in graph.nodes}
    nodes |= {name: Float(Refusal("kept")) for name in keep}
    calibrated = set(graph.activations) if calibrated is None else calibrated
    return place(graph, dataclasses.replace(target, **changes), nodes, calibrated)


def becomes(found):
    """Node → "" for a kernel of its own, the node it goes into, or None for float."""
    return {
        name: (status.fused_into or "") if isinstance(status, Quantized) else None
        for name, status in found.nodes.items()
    }


def places(*texts):
    return {Place(node, int(position)) for node, position in (text.split(":") for text in texts)}


def residual():
    b = Builder()
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 4, name="c1"), name="r1")
    y = b.op("Relu", b.op("Add", b.conv(x, 4, name="c2"), x, name="add"), name="r2")
    return b.model(b.conv(y, 2, name="c3"))


def test_on_inputs_the_branch_beside_a_convolution_is_quantized():
    found = placed(residual(), "gpu")
    assert becomes(found) == {"c1": "", "r1": "c1", "c2": "", "add": "c2", "r2": None, "c3": ""}
    assert found.readers == places("c1:0", "c2:0", "add:1", "c3:0")
    assert found.tensors == {"x", "r1", "r2"}
    assert found.nodes["r2"].reason == "target gpu runs Relu in float"


def test_a_convolution_that_stays_float_takes_nothing_in():
    found = placed(residual(), "gpu", keep=["c2"])
    assert becomes(found) == {"c1": "", "r1": "c1", "c2": None, "add": None, "r2": None, "c3": ""}
    assert found.readers == places("c1:0", "c3:0")


def test_a_target_without_residuals_leaves_them_in_float():
    found = placed(residual(), "gpu", residual=frozenset())
    assert becomes(found)["add"] is None


def test_on_everything_each_kernel_is_between_two_pairs():
    found = placed(residual(), "cpu")
    assert becomes(found) == {"c1": "", "r1": "c1", "c2": "", "add": "", "r2": "add", "c3": ""}
    assert found.readers == places("c1:0", "c2:0", "add:0", "add:1", "c3:0")
    assert found.tensors == {"x", "r1", "c2", "r2", "c3"}


def test_what_is_not_calibrated_stays_float_and_what_needs_it_too():
    model = residual()
    calibrated = {"x", "r1", "r2", "c3"}
    found = placed(model, "cpu", calibrated=calibrated)
    assert found.nodes["c2"].reason == "its output 'c2' was not calibrated"
    assert becomes(found)["add"] == ""  # r1 is quantized, and so is its other operand


def test_an_operator_after_nothing_quantized_stays_float():
    found = placed(residual(), "cpu", keep=["c1", "c2"])
    assert becomes(found)["add"] is None
    assert found.nodes["add"].reason == "target cpu runs Add in float here"


def test_a_constant_operand_is_no_branch():
    b = Builder()
    x = b.conv(b.input(3, 4, 4), 4, name="c1")
    y = b.op("Mul", b.op("Sigmoid", x, name="s"), b.const([[[2.0]], [[3]], [[4]], [[5]]]), name="m")
    model = b.model(b.conv(y, 2, name="c2"))
    (name,) = (node.name for node in Graph(model).nodes if node.op_type == "Mul")
    assert "is a constant" in placed(model, "cpu").nodes[name].reason


@pytest.mark.parametrize(("target", "ends"), [("cpu", True), ("cpu", False)])
def test_what_only_the_caller_reads_is_left_in_float(target, ends):
    b = Builder()
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 4, name="c1"), name="r1")
    y = b.op("Add", b.conv(x, 4, name="c2"), x, name="add")
    model = b.model(b.op("Concat", y, x, axis=1, shape=(8, 4, 4), name="concat"))
    found = placed(model, target, float_ends=ends)
    assert becomes(found)["add"] == becomes(found)["concat"] == (None if ends else "")
    if ends:
        assert found.nodes["concat"].reason == "only the caller or float operators read it"
    assert becomes(found)["c2"] == ""


@pytest.mark.parametrize(("target", "stored"), [("gpu", False), ("cpu", False)])
def test_a_last_matrix_product_may_write_float(target, stored):
    b = Builder()
    found = placed(b.model(b.gemm(b.gemm(b.input(4), 5, name="a"), 3, name="y")), target)
    assert ("y" in found.tensors) is stored
    assert found.tensors == {"x", "a"}


def test_moves_before_a_quantized_reader_follow_it():
    b = Builder()
    x = b.op("MaxPool", b.op("Sigmoid", b.input(3, 4, 4)), kernel_shape=[2, 2], shape=(3, 3, 3), name="pool")  # fmt: skip
    model = b.model(b.conv(x, 4, name="conv"), b.op("MaxPool", x, kernel_shape=[2, 2], shape=(3, 2, 2), name="end"))  # fmt: skip
    found = becomes(placed(model, "gpu"))
    assert (found["pool"], found["conv"], found["end"]) == ("", "", None)


def attention_output(*, layer=False):
    """Heads joined in front of a projection, behind what is float or behind a layer."""
    b = Builder()
    x = b.op("Sigmoid", b.input(2, 6, 4), name="float")
    if layer:
        x = b.op("MatMul", x, b.const(b.random(4, 4)), name="layer", shape=(2, 6, 4))
    x = b.op("Transpose", x, perm=[0, 2, 1, 3], shape=(6, 2, 4), name="swap")
    x = b.op("Reshape", x, b.ints(0, 0, 8), shape=(6, 8), name="join")
    return b, b.op("MatMul", x, b.const(b.random(8, 4)), shape=(6, 4), name="project")


def test_behind_a_float_operator_one_pair_stands_in_front_of_the_reader():
    b, y = attention_output()
    found = placed(b.model(y), "gpu")
    assert becomes(found) == {"float": None, "swap": None, "join": None, "project": ""}
    assert found.tensors == {"join"}
    assert "integers are made behind" in found.nodes["swap"].reason


def test_behind_a_layer_values_are_moved_as_integers():
    b, y = attention_output(layer=True)
    found = placed(b.model(y), "gpu")
    assert becomes(found) == {"float": None, "layer": "", "swap": "", "join": "", "project": ""}
    assert found.tensors == {"float", "layer", "swap", "join"}


def test_what_others_read_in_integers_is_moved_as_integers():
    b, y = attention_output()
    b.op("MatMul", "float", b.const(b.random(4, 3)), shape=(2, 6, 3), name="beside")
    found = placed(b.model(y, "beside"), "gpu")
    assert becomes(found) == {
        "float": None, "swap": "", "join": "", "project": "", "beside": "",
    }  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_function_written_out_is_integers_throughout_or_float_throughout(name):
    """On `cpu` a SiLU has kernels for both its operators; of the others one has none, and a product
    in integers would round what is float on both sides."""
    b = Builder()
    y = WRITTEN[name](b, b.conv(b.input(4, 8, 8), 4, name="first"))
    graph = Graph(model := b.model(b.conv(y, 4, name="second")))
    found = quantization_nodes(model, "cpu")
    inside = {found[node.name] for node in graph.nodes if node.op_type != "Conv"}
    assert inside == ({True} if name == "silu" else {False})
    assert found["first"]
    assert found["second"]


def quantization_nodes(model, target):
    """Node → whether the plan quantizes it."""
    calibration = calibrate(model, random_feeds(model, batch=4))
    plan = plan_quantization(
        Graph(model), calibration, target_named(target), QuantizationOptions()
    )  # fmt: skip
    return {name: isinstance(status, Quantized) for name, status in plan.nodes.items()}


def test_keys_that_only_attention_reads_stay_float_behind_their_layer():
    """Through a Reshape and a Transpose too: no kernel would take them in integers."""
    b = Builder()
    x = b.input(6, 8)
    q, k = (b.op("MatMul", x, b.const(b.random(8, 8)), name=name) for name in ("query", "key"))
    k = b.op("Reshape", k, b.ints(0, 0, 2, 4), shape=(6, 2, 4), name="heads")
    k = b.op("Transpose", k, perm=[0, 2, 3, 1], shape=(2, 4, 6), name="turned")
    q = b.op("Reshape", q, b.ints(0, 2, 6, 4), shape=(2, 6, 4))
    model = b.model(b.op("MatMul", q, k, shape=(2, 6, 6), name="scores"))
    found = quantization_nodes(model, "cpu")
    assert {name for name, quantized in found.items() if quantized} == {"query", "key"}
    calibration = calibrate(model, random_feeds(model, batch=4))
    plan = plan_quantization(Graph(model), calibration, target_named("cpu"), QuantizationOptions())
    assert set(plan.activations) == {"x"}


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_a_constant_on_the_left_is_said_to_be_one(operator):
    b = Builder(batch=4)
    product = b.op(operator, b.const(b.random(4, 4)), b.input(4), name="left")
    model = b.model(b.op("MatMul", product, b.const(b.random(4, 4)), name="right"))
    calibration = calibrate(model, random_feeds(model))
    plan = plan_quantization(Graph(model), calibration, target_named("cpu"), QuantizationOptions())
    assert plan.nodes["left"].reason == "its constant is the left operand"
