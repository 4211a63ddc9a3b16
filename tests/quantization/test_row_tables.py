"""A large table of its own: int8 rows with a scale each, and the rows looked up are multiplied."""

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.formats.fit import ANY_SCALE
from onnxq.formats.granularity import PerChannel
from onnxq.formats.scheme import REFERENCE
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.quantization.tables import LARGE, TableForm, row_tables

COLUMNS = 60
BY_ROW = (TableForm(REFERENCE.weight),)
ROWS = -(-LARGE // COLUMNS)


def encoder(rows=ROWS, *, columns=COLUMNS, lookups=1, scale=1.0, read=False, axis=0):
    """The rows of some words, added, and a layer."""
    rng = np.random.default_rng(0)
    table = (rng.standard_normal((rows, columns)) * scale).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Gather", ["table", f"ids{i}"], [f"rows{i}"], name=f"embed{i}", axis=axis)
        for i in range(lookups)
    ]
    data = "rows0"
    if lookups > 1:
        nodes.append(node("Add", ["rows0", "rows1"], ["sum"], name="add"))
        data = "sum"
    nodes.append(node("MatMul", [data, "layer"], ["y"], name="layer"))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if read:
        nodes.append(node("ReduceMax", ["table"], ["most"], name="max", keepdims=0))
        outputs.append(helper.make_tensor_value_info("most", TensorProto.FLOAT, None))
    layer = (rng.standard_normal((columns, 16)) / 8).astype(np.float32)
    inputs = [
        helper.make_tensor_value_info(f"ids{i}", TensorProto.INT64, ["N", "length"])
        for i in range(lookups)
    ]
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(layer, "layer")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def words(lookups=1, rows=ROWS):
    rng = np.random.default_rng(1)
    return {f"ids{i}": rng.integers(-rows, rows, (80, 6)) for i in range(lookups)}


def stored(model):
    return {each.name: (each.data_type, tuple(each.dims)) for each in model.proto.graph.initializer}


@pytest.mark.parametrize(
    ("rows", "columns", "block"), [(2048, 64, 32), (8000, 128, 32), (8448, 256, 128)]
)
def test_rows_of_many_columns_have_a_scale_for_each_block_of_them(rows, columns, block):
    model, feeds = encoder(rows, columns=columns), words(rows=rows)
    quantized, result = onnxq.quantize(model, feeds, target="cpu")
    assert f"in blocks of {block}" in result.plan.nodes["embed0"].reason
    scales = [dims for kind, dims in stored(quantized).values() if dims[:1] == (rows,)]
    assert sorted(scales) == [(rows, columns // block), (rows, columns)]
    plain = run(open_session(model, optimize=False), ["y"], feeds)[0]
    found = run(open_session(quantized, optimize=True), ["y"], feeds)[0]
    assert np.abs(found - plain).max() < 0.03 * np.abs(plain).max()


@pytest.mark.parametrize("lookups", [1, 2])
def test_rows_are_stored_once_in_a_quarter_of_the_bytes(lookups):
    model = encoder(lookups=lookups)
    quantized, result = onnxq.quantize(model, words(lookups), target="cpu")
    tables = [kind for kind, dims in stored(quantized).values() if np.prod(dims) == ROWS * COLUMNS]
    assert tables == [TensorProto.INT8]
    assert "stored in int8, by row" in result.plan.nodes["embed0"].reason
    assert len(quantized.proto.SerializeToString()) < 0.28 * len(model.proto.SerializeToString())
    assert result.quantized_sqnr > 35
    onnx.checker.check_model(quantized.proto, full_check=True)


def test_what_is_looked_up_is_the_row_to_half_a_step():
    model, feeds = encoder(scale=3.0), words()
    quantized, _ = onnxq.quantize(model, feeds, target="cpu")
    graph = Graph(quantized)
    (gather,) = (n for n in graph.nodes if n.name == "embed0")
    (scales,) = (graph.constant(n.inputs[0]) for n in graph.nodes if n.name == "embed0/scale")
    table = graph_table(model)
    integers = graph.constant(gather.inputs[0])
    assert np.abs(integers).max() == 127
    assert np.allclose(scales, np.abs(table).max(axis=1) / 127, rtol=1e-6)
    error = np.abs(integers * scales[:, None] - table)
    assert np.all(error <= scales[:, None] * 0.5001)
    session = open_session(quantized, optimize=False, threads=1)
    assert run(session, None, feeds)[0].shape == (80, 6, 16)


def graph_table(model):
    return Graph(model).value("table")


@pytest.mark.parametrize(
    "model",
    [encoder(ROWS - 1), encoder(read=True), encoder(rows=COLUMNS, axis=1)],
    ids=["small", "read by others too", "columns"],
)
def test_other_tables_stay_in_float(model):
    assert row_tables(Graph(model), BY_ROW, ANY_SCALE, ()) == ()


def test_rows_with_outliers_that_integers_would_not_hold_stay_in_float():
    model = encoder()
    table = graph_table(model).copy()
    table[:, 3] *= 100
    model.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    assert row_tables(Graph(model), BY_ROW, ANY_SCALE, ()) == ()
    table[5, 5] = np.inf
    model.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    assert row_tables(Graph(model), BY_ROW, ANY_SCALE, ()) == ()


def test_rows_of_zeros_stay_zeros():
    model = encoder()
    table = graph_table(model).copy()
    table[7] = 0
    model.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    (found,) = row_tables(Graph(model), BY_ROW, ANY_SCALE, ())
    assert found.parameters.granularity == PerChannel(0)
    assert np.all(found.parameters.scale > 0)


def test_exclude_and_gpu_leave_it_alone():
    model, data = encoder(), words()
    for options in ({"target": "cpu", "exclude": ["embed"]}, {"target": "gpu"}):
        quantized, _ = onnxq.quantize(model, data, **options)
        assert stored(quantized)["table"] == (TensorProto.FLOAT, (ROWS, COLUMNS))


def test_every_command_reads_such_a_model(tmp_path):
    model, data = encoder(), words()
    quantized, _ = onnxq.quantize(model, data, target="cpu")
    found = onnxq.validate(model, [quantized], data, executions=["emulate", "cpu"], layers=True)
    for row in found.rows[1:]:
        assert row.values["sqnr"] > 35
    assert onnxq.inspect(quantized).details.is_quantized
    page, _ = onnxq.report(model, [quantized], data=data)
    assert "stored in int8, by row" in page
