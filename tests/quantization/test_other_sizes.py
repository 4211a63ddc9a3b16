"""Layers whose sizes follow from values, which quantization changes: experts, crops, frames."""

import numpy as np
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.graph import Graph
from onnxq.model.operators import weight_layout
from onnxq.quantization.columns import Columns
from onnxq.quantization.correct import measure_shift
from onnxq.quantization.plan import Quantized
from onnxq.quantization.sequential import OTHER_SIZES, UNREACHED

from support.builder import Builder

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((64, 20, 8)).astype(np.float32)
MAPS = RNG.standard_normal((64, 3, 4, 48)).astype(np.float32)
MAPS *= RNG.uniform(0.5, 1.0, (64, 1, 1, 1)).astype(np.float32)


def normal(*shape, fan):
    return (RNG.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32)


def built(nodes, shape, out, weights):
    """A model of `operator: inputs -> output` lines."""
    made = []
    for line, attributes in nodes:
        op_type, *inputs = line.split(" -> ")[0].split()
        output = line.split(" -> ")[1]
        made.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
    graph = helper.make_graph(
        made, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def experts():
    """The rows that a score is positive for go through two layers."""
    nodes = [
        ("MatMul x w0 -> a", {}), ("Relu a -> h", {}), ("MatMul h w1 -> s", {}),
        ("Reshape s flat -> scores", {}), ("Greater scores zero -> chosen", {}),
        ("Reshape h rows -> all", {}), ("Compress all chosen -> some", {"axis": 0}),
        ("MatMul some w2 -> b", {}), ("Add b b2 -> e", {}), ("Relu e -> f", {}),
        ("MatMul f w3 -> g", {}), ("ReduceMean g -> y", {"axes": [0]}),
    ]  # fmt: skip
    weights = {
        "w0": normal(8, 16, fan=8), "w1": normal(16, 1, fan=16), "w2": normal(16, 32, fan=16),
        "b2": np.zeros(32, np.float32), "w3": normal(32, 32, fan=32), "zero": np.float32(0),
        "flat": np.array([-1]), "rows": np.array([-1, 16]),
    }  # fmt: skip
    return built(nodes, [1, 20, 8], [1, 32], weights), ROWS


def cropped():
    """A mean says how many columns of a map the next convolution sees."""
    nodes = [
        ("Conv x w0 -> a", {"pads": [1] * 4}), ("Relu a -> h", {}),
        ("ReduceMean h -> mean", {"keepdims": 0}), ("Mul mean factor -> scaled", {}),
        ("Cast scaled -> whole", {"to": TensorProto.INT64}), ("Max whole three -> least", {}),
        ("Reshape least flat -> end", {}), ("Slice h start end axis -> part", {}),
        ("Conv part w1 b1 -> b", {"pads": [1] * 4}), ("Relu b -> f", {}),
        ("GlobalAveragePool f -> y", {}),
    ]  # fmt: skip
    weights = {
        "w0": normal(16, 3, 3, 3, fan=27), "w1": normal(16, 16, 3, 3, fan=144),
        "b1": np.zeros(16, np.float32), "factor": np.float32(80), "three": np.int64(3),
        "flat": np.array([-1]), "start": np.array([0]), "axis": np.array([3]),
    }  # fmt: skip
    return built(nodes, [1, 3, 4, 48], [1, 16, 1, 1], weights), MAPS


@pytest.mark.parametrize(("case", "layer"), [(experts, "b"), (cropped, "b")])
@pytest.mark.parametrize("target", ["cpu", "qnn"])
def test_they_are_quantized_and_rounded_to_nearest(case, layer, target):
    model, data = case()
    int8, result = onnxq.quantize(model, data, target=target)
    assert isinstance(result.plan.nodes[layer], Quantized)
    reasons = {each.node: each.reason for each in result.roundings}
    assert reasons[layer] == OTHER_SIZES.reason
    assert not any(each.accepted for each in result.corrections if each.node == layer)
    found = onnxq.validate(model, int8, data, layers=True, executions=["emulate"])
    assert found.rows[1].outputs[0].whole.sqnr > 20


@pytest.mark.parametrize("scheme", ["w8", "dynamic", "w8a8"])
@pytest.mark.parametrize("threshold", [0.6, 1e6])
def test_rows_that_come_in_few_samples_or_in_none(scheme, threshold):
    """The scores are exact: what decides on the rows is the input, which is not quantized."""
    nodes = [
        ("ReduceMax x -> scores", {"axes": [0, 2], "keepdims": 0}),
        ("Greater scores threshold -> chosen", {}), ("Reshape x rows -> all", {}),
        ("Compress all chosen -> some", {"axis": 0}), ("MatMul some w0 -> b", {}),
        ("Relu b -> f", {}), ("MatMul f w1 -> g", {}), ("MatMul all w1 -> h", {}),
        ("ReduceSum g axis -> i", {}), ("Add h i -> y", {}),
    ]  # fmt: skip
    weights = {
        "w0": normal(8, 8, fan=8), "w1": normal(8, 8, fan=8), "threshold": np.float32(threshold),
        "rows": np.array([-1, 8]), "axis": np.array([0]),
    }  # fmt: skip
    data = np.where(np.arange(64)[:, None, None] < 8, ROWS, 0.1 * ROWS).astype(np.float32)
    model = built(nodes, [1, 20, 8], [20, 8], weights)
    int8, result = onnxq.quantize(model, data, target="cpu", scheme=scheme)
    found = onnxq.validate(model, int8, data, layers=True, executions=["emulate"])
    assert found.rows[1].outputs[0].whole.sqnr > 25
    if scheme == "w8" and threshold > 1:
        assert {each.node: each.reason for each in result.roundings}["b"] == UNREACHED.reason


def test_outputs_of_other_sizes_have_no_mean_error():
    wanted = [np.ones((9, 4), np.float32), np.ones((7, 4), np.float32)]
    got = [np.zeros((8, 4), np.float32), np.zeros((7, 4), np.float32)]
    shift, record = measure_shift("n", wanted, got, 1, None)
    assert not shift.any()
    assert not record.accepted


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "other"),
    [
        ("gemm", (5, 6), (5, 4), (3, 6)), ("matmul", (2, 5, 6), (2, 5, 4), (2, 7, 6)),
        ("matmul", (6,), (4,), (1, 7, 6)), ("conv", (2, 6, 5, 7), (2, 4, 5, 7), (2, 6, 5, 8)),
        ("conv", (0, 6, 5, 7), (0, 4, 5, 7), (1, 6, 5, 7)),
    ],
)  # fmt: skip
def test_whether_outputs_belong_to_inputs(kind, inputs, outputs, other):
    b = Builder(0)
    if kind == "conv":
        y = b.conv(b.input(6, 5, 7), 4, 3, name="node")
    else:
        y = (
            b.gemm(b.input(6), 4, name="node")
            if kind == "gemm"
            else b.matmul(b.input(5, 6), 4, name="node")
        )
    graph = Graph(b.model(y))
    node = graph.by_name["node"]
    columns = Columns(graph, node, weight_layout(graph, node))
    assert columns.fit([inputs, inputs], [outputs, outputs])
    assert not columns.fit([inputs, other], [outputs, outputs])
