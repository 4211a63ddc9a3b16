"""Sparse weights, as initializers and as values of Constant nodes, are written out."""

import ml_dtypes
import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.errors import ModelError
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, run
from onnxq.model.sparse import write_out_sparse
from onnxq.quantization.plan import Quantized

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 32)).astype(np.float32)
WEIGHT = RNG.standard_normal((32, 48)).astype(np.float32) * (RNG.random((32, 48)) < 0.3)


def sparse(weight, name="", *, by_axis=False):
    places = np.flatnonzero(weight)
    values = numpy_helper.from_array(weight.reshape(-1)[places], name)
    if by_axis:
        places = np.stack(np.unravel_index(places, weight.shape), axis=1)
    indices = numpy_helper.from_array(places.astype(np.int64), "places")
    return helper.make_sparse_tensor(values, indices, weight.shape)


def built(how, *, by_axis=False, weight=WEIGHT):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
             helper.make_node("Relu", ["a"], ["h"], name="relu"),
             helper.make_node("MatMul", ["h", "v"], ["y"], name="second")]  # fmt: skip
    weights, tensor = [], sparse(weight, "w" if how == "initializer" else "", by_axis=by_axis)
    if how == "initializer":
        weights.append(tensor)
    else:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))
    second = RNG.standard_normal((48, 8)).astype(np.float32)
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(second, "v")], sparse_initializer=weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("how", ["initializer", "constant"])
@pytest.mark.parametrize("by_axis", [False, True])
def test_written_out_they_have_the_same_values(how, by_axis):
    model = onnxq.load(built(how, by_axis=by_axis))
    dense, count = write_out_sparse(model)
    assert count == 1
    normalized, record = normalize(model)
    assert record.folded_constants == (1 if how == "initializer" else 2)
    (found,) = [t for t in normalized.message.graph.initializer if list(t.dims) == [32, 48]]
    assert np.array_equal(numpy_helper.to_array(found), WEIGHT)
    (wanted,), (got,) = (run(open_session(each), None, {"x": X}) for each in (model, dense))
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("how", ["initializer", "constant"])
def test_a_layer_of_a_sparse_weight_is_quantized(how):
    model = built(how)
    int8, result = onnxq.quantize(model, X, target="cpu")
    assert isinstance(result.plan.nodes["first"], Quantized)
    onnx.checker.check_model(int8.proto)
    found = onnxq.validate(model, int8, X, layers=True)
    assert found.rows[1].outputs[0].whole.sqnr > 30


def test_in_the_body_of_an_if():
    taken = helper.make_graph(
        [helper.make_node("Add", ["x", "s"], ["t"])], "t", [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
        sparse_initializer=[sparse(np.arange(32, dtype=np.float32), "s")],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"])], "e", [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = built("initializer")
    model.graph.node[0].input[0] = "z"
    model.graph.node.insert(
        0, helper.make_node("If", ["c"], ["z"], then_branch=taken, else_branch=other)
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    dense, count = write_out_sparse(onnxq.load(model))
    assert count == 2
    (got,) = run(open_session(dense), None, {"x": X})
    (wanted,) = run(open_session(built("initializer")), None, {"x": X + np.arange(32, dtype="f4")})
    assert got.shape == wanted.shape


def test_other_types_of_numbers_keep_theirs():
    halves = WEIGHT.astype(ml_dtypes.bfloat16)
    proto = built("initializer")
    proto.graph.sparse_initializer[0].CopyFrom(sparse(halves, "w"))
    dense, _ = write_out_sparse(onnxq.Model.adopt(proto, None))
    (found,) = [t for t in dense.message.graph.initializer if t.name == "w"]
    assert found.data_type == TensorProto.BFLOAT16
    assert np.array_equal(numpy_helper.to_array(found), halves)


def test_places_outside_are_refused():
    proto = built("initializer")
    proto.graph.sparse_initializer[0].dims[:] = [4, 4]
    with pytest.raises(ModelError, match="'w' has places outside of its shape"):
        write_out_sparse(onnxq.Model.adopt(proto, None))


def test_without_any_nothing_is_copied():
    model = onnxq.load(built("constant"))
    dense, _ = write_out_sparse(model)
    assert write_out_sparse(dense) == (dense, 0)
