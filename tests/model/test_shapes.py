"""Reshapes whose shape is computed at run time, as exporters write them for a batch of any size."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.shapes import run_nodes, value_at

from support.builder import Builder
from support.running import outputs


def size_of(b, x, axis):
    """Shape, then Gather: the size of one axis, of one element."""
    return b.op("Gather", b.op("Shape", x, shape=()), b.ints(axis), shape=())


def asked(b, *parts):
    """The shape made of numbers and of computed sizes."""
    parts = [b.ints(part) if isinstance(part, int) else part for part in parts]
    return b.op("Concat", *parts, axis=0, shape=())


def reshape(b, x, *parts, **attributes):
    return b.op("Reshape", x, asked(b, *parts), shape=(), name="reshape", **attributes)


def normalized(b, y, **sizes):
    """The normalized model; checked to compute the same for several sizes of the unknown axes."""
    proto = b.proto(y)
    model = normalize(Model(proto))[0]
    rng = np.random.default_rng(0)
    for trial in range(3):
        known = {name: values[trial] for name, values in sizes.items()}
        feeds = {
            spec.name: rng.standard_normal([known.get(s, s) for s in spec.shape], np.float32)
            for spec in model.inputs
        }
        pairs = (outputs(m, feeds, optimize=False) for m in (Model(proto), model))
        for before, after in zip(*pairs, strict=True):
            assert np.array_equal(before, after)
    return Graph(model)


def constant_shape(graph):
    value = graph.constant(graph.by_name["reshape"].input(1))
    return None if value is None else value.tolist()


def types(graph):
    return {node.op_type for node in graph.nodes}


BATCH = {"N": (1, 2, 5)}


def test_flattening_all_but_the_batch():
    b = Builder()
    x = b.input(3, 4)
    graph = normalized(b, reshape(b, x, size_of(b, x, 0), -1), **BATCH)
    assert constant_shape(graph) == [0, -1]
    assert types(graph) == {"Reshape"}


def test_splitting_heads_over_a_sequence_of_any_length():
    b = Builder()
    x = b.input("L", 6)
    y = reshape(b, x, size_of(b, x, 0), size_of(b, x, 1), 2, 3)
    graph = normalized(b, y, **BATCH, L=(4, 1, 3))
    assert constant_shape(graph) == [0, 0, 2, 3]
    assert graph.shape("reshape") == ("N", "L", 2, 3)


def test_numbers_of_another_axis_or_tensor_are_what_is_left():
    b = Builder()
    x = b.input(2, 3)
    y = b.op("Transpose", x, perm=[1, 2, 0], shape=None)
    graph = normalized(b, reshape(b, y, 6, size_of(b, x, 0)), **BATCH)
    assert constant_shape(graph) == [6, -1]


def test_a_product_of_sizes():
    b = Builder()
    x = b.input(2, 5)
    rows = b.op("Mul", size_of(b, x, 0), size_of(b, x, 1), shape=())
    graph = normalized(b, reshape(b, x, rows, size_of(b, x, 2)), **BATCH)
    assert constant_shape(graph) == [-1, 5]


def test_a_chain_through_other_types():
    b = Builder()
    x = b.input(3, 4)
    size = b.op("Cast", size_of(b, x, 0), to=TensorProto.INT32, shape=())
    size = b.op("Cast", size, to=TensorProto.INT64, shape=())
    graph = normalized(b, reshape(b, x, size, 12), **BATCH)
    assert constant_shape(graph) == [0, 12]


def test_one_reshape_behind_another():
    b = Builder()
    x = b.input(3, 4)
    size = b.op("Cast", size_of(b, x, 0), to=TensorProto.INT32, shape=())
    size = b.op("Cast", size, to=TensorProto.INT64, shape=())
    first = b.op("Reshape", x, asked(b, size, 12), shape=())
    y = reshape(b, b.op("Relu", first), size_of(b, first, 0), 4, 3)
    graph = normalized(b, y, **BATCH)
    assert constant_shape(graph) == [0, 4, 3]
    assert graph.shape("reshape") == ("N", 4, 3)
    assert types(graph) == {"Relu", "Reshape"}


def test_two_sizes_that_are_nowhere_in_the_input_stay_but_the_axes_are_counted():
    b = Builder()
    x = b.input("L", 6)
    rows = b.op("Mul", size_of(b, x, 0), size_of(b, x, 1), shape=())
    flat = b.op("Reshape", x, asked(b, rows, 6), shape=())
    sizes = [b.op("Cast", size_of(b, x, axis), to=TensorProto.INT32, shape=()) for axis in (1, 0)]
    sizes = [b.op("Cast", size, to=TensorProto.INT64, shape=()) for size in sizes]
    y = b.op("Relu", reshape(b, flat, *sizes, 6))
    graph = normalized(b, y, **BATCH, L=(4, 1, 3))
    assert constant_shape(graph) is None
    assert graph.rank("reshape") == 3
    assert graph.shape("reshape")[2] == 6


def test_a_zero_that_means_zero_stays():
    b = Builder()
    x = b.input(0, 4)
    y = reshape(b, x, size_of(b, x, 0), 0, 2, allowzero=1)
    graph = normalized(b, y, **BATCH)
    assert constant_shape(graph) is None


@pytest.mark.parametrize("allowzero", [0, 1])
def test_allowzero_does_not_turn_a_copied_size_into_zero(allowzero):
    b = Builder()
    x = b.input(3, 4)
    graph = normalized(b, reshape(b, x, size_of(b, x, 0), 12, allowzero=allowzero), **BATCH)
    assert constant_shape(graph) == [0, 12]
    assert not graph.by_name["reshape"].attributes.get("allowzero", 0)


def test_a_shape_that_a_caller_gives_stays():
    b = Builder()
    x = b.input(3, 4)
    b.inputs.append(helper.make_tensor_value_info("wanted", TensorProto.INT64, [2]))
    proto = b.proto(b.op("Reshape", x, "wanted", shape=(), name="reshape"))
    graph = Graph(normalize(Model(proto))[0])
    assert graph.by_name["reshape"].input(1) == "wanted"


# --- values that follow from shapes ------------------------------------------------------------


def value(b, name, **sizes):
    """What a tensor is where the axes of unknown size have these."""
    graph = Graph(Model(b.proto(b.op("Cast", name, to=TensorProto.FLOAT))))

    def sizes_of(read):
        found = [sizes.get(size, size) for size in graph.shape(read)]
        return found if all(isinstance(size, int) for size in found) else None

    found = value_at(graph, name, sizes_of)
    return None if found is None else found.tolist()


def test_constants_and_what_shapes_tell_have_values():
    b = Builder()
    x = b.input(3, 4)
    assert value(b, asked(b, size_of(b, x, 0), 12), N=7) == [7, 12]
    assert value(b, b.op("Mul", size_of(b, x, 2), b.ints(5), shape=()), N=1) == [20]
    assert value(b, b.ints(1, 2), N=7) == [1, 2]


def test_what_depends_on_values_has_none():
    b = Builder()
    x = b.input(3, 4)
    assert value(b, b.op("Cast", x, to=TensorProto.INT64), N=2) is None
    most = b.op("NonZero", x, shape=())
    assert value(b, b.op("Shape", most, shape=()), N=2) is None


def test_nodes_that_refuse_their_inputs_give_nothing():
    b = Builder()
    y = b.op("Reshape", b.input(6), b.ints(2, 3), shape=(3,), name="reshape")
    graph = Graph(Model(b.proto(y)))
    nodes = [graph.by_name["reshape"]]
    shape = {nodes[0].input(1): np.array([2, 3])}
    (found,) = run_nodes(graph, nodes, {"x": np.arange(6)} | shape, [y])
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert run_nodes(graph, nodes, {"x": np.arange(7)} | shape, [y]) is None
