"""A table that is a weight too, as the embedding of a language model is its last layer."""

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.model import Model
from onnxq.quantization.sequential import TIED
from onnxq.validation.kernels import kernels

from support.exact import CPU_SATURATES
from support.running import outputs

ROWS, COLUMNS = 500, 16


def language_model(head="matmul", *, read=False, scale=None):
    """Rows of a table, a layer, and products with all the rows."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    table *= 1 if scale is None else scale
    layer = rng.standard_normal((COLUMNS, COLUMNS)).astype(np.float32) / 4
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["rows"], name="embed"),
        node("MatMul", ["rows", "layer"], ["a"], name="layer"),
        node("Relu", ["a"], ["b"], name="relu"),
    ]
    if head == "matmul":
        nodes += [node("Transpose", ["table"], ["columns"], name="transpose", perm=[1, 0]),
                  node("MatMul", ["b", "columns"], ["y"], name="head")]  # fmt: skip
    else:
        nodes += [node("Reshape", ["b", "flat"], ["c"], name="flatten"),
                  node("Gemm", ["c", "table"], ["y"], name="head", transB=1)]  # fmt: skip
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if read:
        nodes += [node("Cast", ["ids"], ["floats"], name="cast", to=TensorProto.FLOAT),
                  node("ReduceMax", ["floats"], ["largest"], name="max", keepdims=0),
                  node("Mul", ["table", "largest"], ["more"], name="more")]  # fmt: skip
        outputs.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    weights = {"table": table, "layer": layer, "flat": np.array([-1, COLUMNS])}
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "length"])],
        outputs, [numpy_helper.from_array(v, k) for k, v in weights.items() if k in used],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


DATA = {"ids": np.random.default_rng(1).integers(0, ROWS, (80, 6))}


def size(model):
    return len(model.proto.SerializeToString())


def float_tables(model):
    return [
        each.name
        for each in model.proto.graph.initializer
        if each.data_type == TensorProto.FLOAT and np.prod(each.dims) == ROWS * COLUMNS
    ]


def closeness(model, quantized):
    """SQNR in the emulator and in ONNX Runtime, dB; node by node where its kernels saturate, since
    those that do not refuse a weight that is read twice.
    """
    executions = ["emulate"] if CPU_SATURATES else ["emulate", "cpu"]
    rows = onnxq.validate(model, quantized, DATA, executions=executions).rows
    yield from (row.values["sqnr"] for row in rows[1:])
    if CPU_SATURATES:
        (exact,), (found,) = (outputs(each, DATA, optimize=False) for each in (model, quantized))
        yield 10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum())


@pytest.mark.parametrize("target", ["cpu", "gpu", "qnn"])
@pytest.mark.parametrize("head", ["matmul", "gemm"])
def test_the_table_is_stored_once(head, target):
    model = language_model(head)
    quantized, result = onnxq.quantize(model, DATA, target=target)
    onnx.checker.check_model(quantized.proto, full_check=True)
    assert float_tables(quantized) == []
    (found,) = result.plan.tables
    assert (found.node, found.place.node, found.transposed) == ("embed", "head", head == "matmul")
    if target != "gpu" or head == "matmul":
        assert size(quantized) < 0.7 * size(model)
    assert min(closeness(model, quantized)) > 30
    assert {r.node: r.reason for r in result.roundings}["head"] == TIED.reason


def test_equalization_may_scale_the_weight_alone():
    """What it did to columns of the weight is undone behind the lookup."""
    model = language_model(scale=np.exp2(np.arange(COLUMNS) % 3).astype(np.float32))
    quantized, result = onnxq.quantize(model, DATA, target="cpu")
    (found,) = result.plan.tables
    assert found.factors is not None
    assert float_tables(quantized) == []
    rows = onnxq.validate(model, quantized, DATA, executions=["emulate", "cpu"]).rows
    assert min(row.values["sqnr"] for row in rows[1:]) > 30


def test_a_table_that_is_read_in_float_stays():
    quantized, result = onnxq.quantize(language_model(read=True), DATA, target="cpu")
    assert result.plan.tables == ()
    assert len(float_tables(quantized)) == 1


def test_a_table_that_8_bits_do_not_hold_stays():
    """Scales are those of rows; small columns beside a large one vanish in them."""
    scale = np.where(np.arange(COLUMNS) == 0, 1.0, 1e-3).astype(np.float32)
    model = language_model("gemm", scale=scale)
    quantized, result = onnxq.quantize(model, DATA, target="cpu")
    assert result.plan.tables == ()
    assert float_tables(quantized) == ["table"]


@pytest.mark.parametrize("head", ["matmul", "gemm"])
def test_products_of_integers_read_the_table_that_is_looked_up(head):
    model = language_model(head)
    quantized, result = onnxq.quantize(model, target="cpu", scheme="dynamic")
    assert [table.node for table in result.plan.tables] == ["embed"]
    assert size(quantized) < 0.5 * size(model)
    stored = [
        each
        for each in quantized.proto.graph.initializer
        if each.data_type == TensorProto.INT8 and np.prod(each.dims) == ROWS * COLUMNS
    ]
    assert len(stored) == 1
    found = {each.node: each for each in kernels(quantized)}
    assert found["head"].kernel == "DynamicQuantizeMatMul"
    assert {each.layer for each in onnxq.inspect(quantized).details.learnables} == {"layer", "head"}
    rows = onnxq.validate(model, quantized, DATA, executions=["emulate", "cpu"]).rows
    assert min(row.values["sqnr"] for row in rows[1:]) > 30
