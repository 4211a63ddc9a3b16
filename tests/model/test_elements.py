"""Every ONNX element type through the seam, files and parking: bit for bit the same values."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.model import elements, external, files, split_files
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.rewrite import constant, edit, node, variable
from onnxq.model.session import open_session, run
from onnxq.model.structure import check_structure
from onnxq.model.widen import NARROW


def number(name):
    return TensorProto.DataType.Value(name)


TYPES = [name for name in TensorProto.DataType.keys() if name != "UNDEFINED"]  # noqa: SIM118
STORED = [name for name in TYPES if name != "STRING"]
ODD = (5, 7)
"""A shape whose last byte holds fewer values than fit, whatever their width."""
LARGE = (41, 101)
"""One that is parked, and odd as well."""

every_type = pytest.mark.parametrize("name", TYPES)
every_stored_type = pytest.mark.parametrize("name", STORED)


def tensor(name, shape=ODD):
    """Values of all bit patterns, among them NaN of every kind and negative zeros."""
    count = int(np.prod(shape))
    if name == "STRING":
        texts = np.array([f"word {index} – ü" for index in range(count)], object)
        return numpy_helper.from_array(texts.reshape(shape), "t")
    if name == "BOOL":
        return numpy_helper.from_array(np.arange(count).reshape(shape) % 3 == 0, "t")
    bits = elements.bits(number(name))
    generator = np.random.default_rng(0)
    stream = generator.integers(0, 2, -(-count * bits // 8) * 8, np.uint8)
    stream[count * bits :] = 0
    raw = np.packbits(stream, bitorder="little").tobytes()
    return TensorProto(name="t", data_type=number(name), dims=shape, raw_data=raw)


def in_data_field(source):
    """The same tensor with its values as numbers, not as raw bytes."""
    values = numpy_helper.to_array(source)
    result = TensorProto(name=source.name, data_type=source.data_type, dims=source.dims)
    field = helper.tensor_dtype_to_field(source.data_type)
    if elements.bits(source.data_type) in {2, 4}:
        result.int32_data.extend(source.raw_data)
    elif values.dtype.kind == "c":
        parts = values.ravel().view(values.real.dtype)
        getattr(result, field).extend(parts.tolist())
    elif field == "int32_data" and values.dtype.kind not in "iu":
        width = values.dtype.itemsize
        result.int32_data.extend(values.ravel().view(f"u{width}").tolist())
    else:
        getattr(result, field).extend(values.ravel().tolist())
    return result


def bits_of(values):
    if values.dtype == object:
        return values.ravel().tolist()
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).tobytes()


def assert_same(found, expected):
    assert found.data_type == expected.data_type
    assert list(found.dims) == list(expected.dims)
    assert bits_of(external.values_of(found)) == bits_of(external.values_of(expected))


def as_initializer(source, *, extra=True):
    """`y` is the tensor, `z` the input; the two nodes have nothing to do with each other."""
    out = helper.make_tensor_value_info("y", source.data_type, list(source.dims))
    x, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xz")
    nodes = [helper.make_node("Identity", ["t"], ["y"], "typed")]
    nodes += [helper.make_node("Relu", ["x"], ["z"], "plain")] if extra else []
    graph = helper.make_graph(nodes, "g", [x], [out, z], [source])
    opset = min(files.NEWEST_OPSET, onnx.defs.onnx_opset_version())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def as_attribute(source):
    proto = as_initializer(source)
    proto.graph.node[0].CopyFrom(helper.make_node("Constant", [], ["y"], "typed", value=source))
    del proto.graph.initializer[:]
    return proto


def attribute(proto):
    (typed,) = (each for each in proto.graph.node if each.op_type == "Constant")
    return typed.attribute[0].t


def initializer(proto):
    (only,) = (each for each in proto.graph.initializer if each.name.startswith("t"))
    return only


# --- through `edit` --------------------------------------------------------------------------


def nothing(_graph):
    pass


def beside(graph):
    """Change another node than the one that reads the tensor."""
    next(each for each in graph.nodes if each.name == "plain").op = "Neg"


def look(graph):
    """Read the values, as a change does that computes new ones from them."""
    typed = next(each for each in graph.nodes if each.name == "typed")
    held = typed.inputs[0] if typed.inputs else typed.attrs["value"]
    assert held.values.shape == ODD


@every_type
@pytest.mark.parametrize("change", [nothing, beside, look])
@pytest.mark.parametrize(("place", "taken"), [(as_initializer, initializer), (as_attribute, attribute)])  # fmt: skip
def test_an_edit_keeps_every_value(name, change, place, taken):
    source = tensor(name)
    before = place(source)
    assert_same(taken(edit(Model(before), change).proto), source)


@every_stored_type
@pytest.mark.parametrize("change", [nothing, look])
def test_an_edit_keeps_values_that_are_numbers(name, change):
    source = in_data_field(tensor(name))
    assert not source.raw_data
    assert_same(initializer(edit(Model(as_initializer(source)), change).proto), source)


@every_type
def test_a_new_constant_of_every_type(name):
    source = tensor(name)
    values = numpy_helper.to_array(source)

    def change(graph):
        typed = next(each for each in graph.nodes if each.name == "typed")
        typed.inputs[0] = constant("t_new", values)

    after = edit(Model(as_initializer(tensor("FLOAT"))), change).proto
    assert_same(initializer(after), source)
    assert check_structure(after) is None


@every_type
def test_a_scalar_and_no_values_at_all(name):
    for shape in [(), (0,), (3, 0, 2)]:
        values = numpy_helper.to_array(tensor(name, shape))

        def change(graph, values=values):
            typed = next(each for each in graph.nodes if each.name == "typed")
            typed.inputs[0] = constant("t_new", values)

        after = edit(Model(as_initializer(tensor("FLOAT", shape))), change).proto
        assert_same(initializer(after), tensor(name, shape))


@every_type
def test_a_new_constant_node_of_every_type(name):
    source = tensor(name)

    def change(graph):
        typed = next(each for each in graph.nodes if each.name == "typed")
        held = constant("held", numpy_helper.to_array(source))
        made = variable("made")
        graph.nodes.append(node("Constant", "constant", [], [made], value=held))
        typed.inputs[0] = made

    after = edit(Model(as_initializer(tensor("FLOAT"))), change).proto
    assert_same(attribute(after), source)


@every_stored_type
def test_an_if_body_keeps_every_value(name):
    source = tensor(name)
    out = helper.make_tensor_value_info("inner", source.data_type, list(source.dims))
    bodies = [
        helper.make_graph([helper.make_node("Identity", ["t"], ["inner"])], branch, [], [out], [source])
        for branch in ("then", "else")
    ]  # fmt: skip
    proto = as_initializer(source)
    branches = dict(zip(("then_branch", "else_branch"), bodies, strict=True))
    proto.graph.node[0].CopyFrom(helper.make_node("If", ["c"], ["y"], "typed", **branches))
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    del proto.graph.initializer[:]
    after = edit(Model(proto), beside).proto
    (typed,) = (each for each in after.graph.node if each.op_type == "If")
    for each in typed.attribute:
        assert_same(each.g.initializer[0], source)


# --- parked ----------------------------------------------------------------------------------


@pytest.fixture
def small_limit(monkeypatch):
    """So that a small model is treated as a large one."""
    monkeypatch.setattr(external, "PARK_LIMIT", 10)


@every_stored_type
@pytest.mark.parametrize("stored", [lambda each: each, in_data_field], ids=["raw", "numbers"])
def test_parked_values_are_the_same(name, stored, small_limit):
    source = stored(tensor(name, LARGE))
    model = Model(as_initializer(source))
    parked = initializer(model.message)
    assert external.is_parked(parked)
    (length,) = (int(each.value) for each in parked.external_data if each.key == "length")
    assert length == external.byte_size(source)
    assert_same(parked, source)
    for change in (nothing, beside):
        after = initializer(edit(model, change).message)
        assert external.is_parked(after)
        assert_same(after, source)


@every_stored_type
def test_new_parked_values(name, small_limit):
    source = tensor(name, LARGE)
    values = numpy_helper.to_array(source)

    def change(graph):
        typed = next(each for each in graph.nodes if each.name == "typed")
        typed.inputs[0] = constant("t_new", values)

    after = initializer(edit(Model(as_initializer(tensor("FLOAT", LARGE))), change).message)
    assert external.is_parked(after)
    assert_same(after, source)


@every_stored_type
def test_where_values_are_does_not_change_the_fingerprint(name, monkeypatch):
    inline = Model(as_initializer(tensor(name, LARGE))).fingerprint
    monkeypatch.setattr(external, "PARK_LIMIT", 10)
    assert Model(as_initializer(tensor(name, LARGE))).fingerprint == inline


# --- files -----------------------------------------------------------------------------------


@every_stored_type
@pytest.mark.parametrize("limit", [10**9, 10])
def test_files_hold_every_type(name, limit, monkeypatch):
    monkeypatch.setattr(external, "PARK_LIMIT", limit)
    source = tensor(name, LARGE)
    with split_files.as_file(Model(as_initializer(source)).message) as path:
        onnx.checker.check_model(str(path))
        assert_same(initializer(files.read_written(path).message), source)
        loaded = files.load(path)
        assert_same(initializer(loaded.message), source)
        assert bits_of(Graph(loaded).value("t")) == bits_of(external.values_of(source))


@pytest.mark.parametrize("name", [name for name in TYPES if number(name) not in NARROW])
@pytest.mark.parametrize("place", [as_initializer, as_attribute])
def test_a_normalized_model_holds_the_same(name, place, tmp_path):
    """But for float16 and bfloat16, which become float32 (test_widen)."""
    source = tensor(name)
    proto = place(source)
    for opset, ir_version in [(21, 10), (26, 13)]:
        proto.opset_import[0].version, proto.ir_version = opset, ir_version
        onnx.save(proto, tmp_path / "m.onnx")
        after = normalize(files.load(tmp_path / "m.onnx"))[0].message
        assert_same(initializer(after) if after.graph.initializer else attribute(after), source)


@pytest.mark.parametrize("inferred", [True, False])
def test_what_the_runtime_gives_as_bytes_is_not_folded(inferred):
    """It returns float8 values as uint8, which no DequantizeLinear would take for the same."""
    values = numpy_helper.from_array(np.array([[1.5, -448], [0.25, 3]], np.float32), "w")
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    nodes = [
        helper.make_node("Cast", ["w"], ["narrow"], "cast", to=TensorProto.FLOAT8E4M3FN),
        helper.make_node("DequantizeLinear", ["narrow", "s"], ["wide"], "dequantize"),
        helper.make_node("MatMul", ["x", "wide"], ["y"], "matmul"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [values, scale])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = infer_shapes(Model(proto)) if inferred else Model(proto)
    feeds = {"x": np.eye(2, dtype=np.float32)}
    (found,) = run(open_session(normalize(model)[0]), None, feeds)
    assert found.tolist() == [[0.75, -224], [0.125, 1.5]]


@every_stored_type
def test_a_size_that_does_not_fit_is_named(name):
    for change in (lambda t: t.raw_data + b"\0", lambda t: t.raw_data[:-1]):
        proto = as_initializer(tensor(name))
        proto.graph.initializer[0].raw_data = change(proto.graph.initializer[0])
        assert "bytes where its shape takes" in check_structure(proto).reason
    proto = as_initializer(in_data_field(tensor(name)))
    field = helper.tensor_dtype_to_field(number(name))
    getattr(proto.graph.initializer[0], field).append(0)
    assert "values where its shape takes" in check_structure(proto).reason
    assert check_structure(as_initializer(in_data_field(tensor(name)))) is None


# --- the table -------------------------------------------------------------------------------


@every_stored_type
def test_bits_are_those_of_the_numpy_type(name):
    dtype = helper.tensor_dtype_to_np_dtype(number(name))
    bits = 8 * dtype.itemsize
    if dtype.kind == "V" or dtype.type.__module__ == "ml_dtypes":
        info = ml_dtypes.iinfo if "int" in dtype.name else ml_dtypes.finfo
        bits = info(dtype).bits
    assert elements.bits(number(name)) == bits


@every_stored_type
def test_raw_bytes_are_onnx_own(name):
    for shape in [ODD, LARGE, (1,), (), (0,)]:
        source = tensor(name, shape)
        values = numpy_helper.to_array(source)
        assert elements.raw_size(number(name), values.size) == len(source.raw_data)
        assert elements.raw(values).tobytes() == source.raw_data
