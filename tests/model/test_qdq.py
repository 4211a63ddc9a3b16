"""THE reader of Q/DQ: every format, with and without zero points, per tensor, channel and block."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.formats.granularity import PER_TENSOR, Blocks, PerChannel
from onnxq.formats.table import FORMATS, Floating
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.qdq import (
    QdqGraph,
    Quantization,
    quantization_of,
    quantized_activations,
    quantizer_of,
    standing_for,
    stored_weight,
)
from onnxq.refusal import Refusal

STORED = [row for row in FORMATS.values() if row.name != "int32"]
each_format = pytest.mark.parametrize("row", STORED, ids=str)


def tensor(name, values, row=None):
    """An initializer, packed where the format is narrower than a byte."""
    values = np.asarray(values)
    return numpy_helper.from_array(values if row is None else values.astype(row.dtype), name)


def model(nodes, initializers, *, outputs=("y",), opset=28, x=(2, 4), infos=()):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        initializers, value_info=infos,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return Model(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def pair(row, *, zero=True, dq_zero=True, **quantizer):
    """x → Q → DQ → y in a format."""
    constants = [tensor("s", np.float32(0.5))]
    if zero or dq_zero:
        constants.append(tensor("z", 0, row))
    nodes = [
        helper.make_node(
            "QuantizeLinear", ["x", "s", *(["z"] if zero else [])], ["q"], **quantizer
        ),
        helper.make_node("DequantizeLinear", ["q", "s", *(["z"] if dq_zero else [])], ["y"]),
    ]
    return QdqGraph(model(nodes, constants))


def both(graph):
    return [quantization_of(graph, node) for node in graph.nodes]


@each_format
def test_the_zero_point_states_the_format(row):
    for found in both(pair(row)):
        assert (found.real, found.stored) in {("x", "q"), ("y", "q")}
        assert found.format is row
        assert found.parameters.granularity == PER_TENSOR
        assert (float(found.parameters.scale), int(found.parameters.zero_point)) == (0.5, 0)


@each_format
def test_output_dtype_states_the_format(row):
    for found in both(pair(row, zero=False, dq_zero=False, output_dtype=row.element)):
        assert found.format is row
        assert int(found.parameters.zero_point) == 0


def test_without_any_statement_it_is_uint8():
    for found in both(pair(FORMATS["uint8"], zero=False, dq_zero=False)):
        assert found.format.name == "uint8"


def test_an_int8_activation_may_lack_its_zero_point_behind():
    """Q says int8; the DQ behind leaves its third input out."""
    for found in both(pair(FORMATS["int8"], dq_zero=False)):
        assert found.format.name == "int8"
        assert found.parameters.range == (-64.0, 63.5)


@each_format
def test_weights_of_every_format(row):
    values = np.array([[-1, 0, 1, 1], [1, 1, 0, -1]]) if row.signed else np.eye(2, 4)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    graph = QdqGraph(model(nodes, [tensor("w", values, row), tensor("s", np.float32(0.25))]))
    found = stored_weight(graph, "r")
    assert found.format is row
    assert np.array_equal(graph.constant("r"), (values * 0.25).astype(np.float32))


@pytest.mark.parametrize("row", [row for row in STORED if row.blocks], ids=str)
def test_scales_by_block(row):
    values = np.ones((4, 6))
    scale = np.array([[1, 2, 4]] * 4, np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["r"], axis=1, block_size=2),
        helper.make_node("MatMul", ["x", "r"], ["y"]),
    ]
    graph = QdqGraph(model(nodes, [tensor("w", values, row), tensor("s", scale)]))
    found = stored_weight(graph, "r")
    assert found.parameters.granularity == Blocks(1, 2)
    assert graph.constant("r")[0].tolist() == [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize("size", [4, 5])
def test_the_last_block_may_be_shorter(size):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["r"], axis=0, block_size=size),
        helper.make_node("MatMul", ["x", "r"], ["y"]),
    ]
    w, s = tensor("w", np.ones((6, 3)), FORMATS["int8"]), tensor("s", np.ones((2, 3), np.float32))
    graph = QdqGraph(model(nodes, [w, s], x=(2, 6)))
    assert stored_weight(graph, "r").parameters.granularity == Blocks(0, size)
    assert graph.constant("r").shape == (6, 3)


def test_scales_by_channel_count_their_axis_from_either_end():
    for axis in (0, -2):
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["r"], axis=axis),
            helper.make_node("MatMul", ["x", "r"], ["y"]),
        ]
        constants = [
            tensor("w", np.full((4, 3), 2), FORMATS["uint8"]),
            tensor("s", np.arange(1, 5, dtype=np.float32)),
            tensor("z", np.arange(4), FORMATS["uint8"]),
        ]
        graph = QdqGraph(model(nodes, constants))
        assert stored_weight(graph, "r").parameters.granularity == PerChannel(axis)
        assert graph.constant("r")[:, 0].tolist() == [2, 2, 0, -4]


def dq(constants, **attributes):
    names = [each.name for each in constants]
    nodes = [
        helper.make_node("DequantizeLinear", names, ["r"], **attributes),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    graph = QdqGraph(model(nodes, constants))
    return quantization_of(graph, graph.nodes[0]), graph


W = tensor("w", np.ones((2, 4)), FORMATS["int8"])


@pytest.mark.parametrize(
    ("constants", "attributes", "reason"),
    [
        ([W, tensor("s", np.float32(0))], {}, "not a positive number"),
        ([W, tensor("s", np.float32(np.nan))], {}, "not a positive number"),
        ([W, tensor("s", np.int64(1))], {}, "is int64"),
        ([W, tensor("s", np.ones((2, 4), np.float32))], {}, "2 axes but no block size"),
        ([W, tensor("s", np.ones((2, 3), np.float32))], {"block_size": 2}, "do not fit its blocks"),
        ([W, tensor("s", np.ones((2,), np.float32))], {"block_size": 3}, "do not fit its blocks"),
        ([tensor("w", np.ones((2, 4), np.float64)), tensor("s", np.float32(1))], {}, "is double"),
        ([W, tensor("s", np.ones(2, np.float32)), tensor("z", np.zeros(3), FORMATS["int8"])],
         {"axis": 0}, "2 scales and 3 zero points"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(constants, attributes, reason):
    found, graph = dq(constants, **attributes)
    assert isinstance(found, Refusal)
    assert reason in found.reason
    assert graph.constant("r") is None


def test_scales_that_do_not_fit_a_weight_are_no_weight():
    _, graph = dq([W, tensor("s", np.ones(3, np.float32))], axis=0)
    assert "do not fit" in stored_weight(graph, "r").reason


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_scales_of_narrow_floats(kind):
    found, _ = dq([W, tensor("s", np.array(0.5, kind))])
    assert found.parameters.scale.dtype == np.float32
    assert float(found.parameters.scale) == 0.5


def test_scales_computed_at_run_time():
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    graph = QdqGraph(model(nodes, []))
    assert "computed at run time" in quantization_of(graph, graph.nodes[1]).reason
    assert quantization_of(graph, graph.nodes[0]) is None
    assert "computed at run time" in standing_for(graph, "y").reason
    assert "not quantized" in standing_for(graph, "x").reason


def test_who_quantizes_a_tensor():
    graph = pair(FORMATS["uint16"])
    node, found = quantizer_of(graph, "x")
    assert (node.op_type, found.format.name) == ("QuantizeLinear", "uint16")
    assert isinstance(quantizer_of(graph, "y"), Refusal)
    assert {n: q.format.name for n, q in quantized_activations(graph).items()} == {"x": "uint16"}
    plain = Graph(graph.model)
    assert isinstance(quantization_of(plain, plain.nodes[0]), Quantization)


def test_floating_formats_have_no_zero_point():
    for row in STORED:
        if isinstance(row.grid, Floating):
            assert not any(q.parameters.zero_point.any() for q in both(pair(row)))
