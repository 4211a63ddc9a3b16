"""Which class each element belongs to, and where data movement takes it."""

import numpy as np
import pytest
from onnxq.equalization.observed import tensors_to_observe
from onnxq.equalization.patterns import along_axis, compress, follow_move
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.refusal import Refusal

from support.builder import Builder


def test_ids_lie_along_one_axis():
    found = along_axis(np.array([4, 5, 6]), 4, 1)
    assert found.shape == (1, 3, 1, 1)
    assert found.ravel().tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("ids", "shape"),
    [
        (np.zeros((2, 3)), (1, 1)),
        ([[1, 2, 3]] * 4, (1, 3)),
        ([[1, 1], [2, 2]], (2, 1)),
        ([[1, 2], [2, 1]], (2, 2)),
        ([[1], [1]], (1, 1)),
        (3, ()),
    ],
)
def test_axes_along_which_nothing_changes_have_size_1(ids, shape):
    ids = np.array(ids, np.int64)
    found = compress(ids)
    assert found.shape == shape
    assert np.array_equal(np.broadcast_to(found, ids.shape), ids)


CHANNELS = along_axis(np.array([7, 8, 9, 7]), 4, 1)


def moved(b, y, pattern=CHANNELS):
    """What the node that computes y does to the pattern of its first input."""
    graph = Graph(Model(b.proto(y)))
    node = graph.producers[y]
    return follow_move(graph, node, [pattern, *[None] * (len(node.inputs) - 1)])


def test_a_transpose_turns_the_pattern():
    b = Builder()
    (found,) = moved(b, b.op("Transpose", b.input(4, 2, 3), perm=[0, 2, 3, 1]))
    assert found.shape == (1, 1, 1, 4)
    assert found.ravel().tolist() == [7, 8, 9, 7]


def test_a_reshape_repeats_the_ids():
    b = Builder()
    (found,) = moved(b, b.op("Reshape", b.input(4, 2, 3), b.ints(0, -1), shape=(24,)))
    assert found.shape == (1, 24)
    assert found.ravel().tolist() == [id_ for id_ in (7, 8, 9, 7) for _ in range(6)]


def test_each_piece_of_a_split_has_its_own():
    b = Builder()
    first, _ = b.op("Split", b.input(4, 2, 3), b.ints(1, 3), axis=1, outputs=2, shapes=[(1, 2, 3), (3, 2, 3)])  # fmt: skip
    found = moved(b, first)
    assert [each.ravel().tolist() for each in found] == [[7], [8, 9, 7]]


def test_an_axis_of_unknown_size_may_pass_but_not_be_mixed_in():
    b = Builder()
    x = b.input(4, "W", 3)
    (found,) = moved(b, b.op("Transpose", x, perm=[0, 1, 3, 2]))
    assert found.shape == (1, 4, 1, 1)
    b = Builder()
    mixed = moved(b, b.op("Reshape", b.input(4, "W", 3), b.ints(0, -1, 3), shape=None))
    assert "mixes channels into an axis whose size is known at run time only" in str(mixed)


def test_what_is_not_followed_says_why():
    b = Builder()
    shape = b.op("Cast", b.op("ReduceMax", b.input(4, 2, 3), keepdims=0), to=7)
    found = moved(b, b.op("Reshape", "x", shape, shape=None))
    assert found == Refusal("its parameters are computed at run time")
    b = Builder()
    large = moved(b, b.op("Transpose", b.input(4, 2000, 2000), perm=[0, 2, 3, 1]))
    assert large == Refusal("its tensor is too large to follow")


# --- what calibration looks at -----------------------------------------------------------------


def observed(b, *names):
    return tensors_to_observe(Graph(b.model(*names)))


def test_what_only_a_fused_activation_reads_is_left_out():
    b = Builder()
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 4, name="conv"), name="relu")
    y = b.conv(x, 2, name="y")
    assert observed(b, y) == {"x": 1, "relu": 1, "y": 1}


def test_a_layer_s_input_is_counted_by_channel_where_its_scales_are_pinned_too():
    """Channel factors ask for it; a tensor that no layer reads has no channels to tell apart."""
    b = Builder()
    x = b.op("Sigmoid", b.input(3, 4, 4), name="sigmoid")
    assert observed(b, b.conv(x, 2, name="y")) == {"x": None, "sigmoid": 1, "y": 1}


@pytest.mark.parametrize("exposed", ["output", "second reader"])
def test_what_others_read_too_is_observed(exposed):
    b = Builder()
    conv = b.conv(b.input(3, 4, 4), 4, name="conv")
    y = b.conv(b.op("Relu", conv), 2, name="y")
    other = conv if exposed == "output" else b.op("Sigmoid", conv)
    assert "conv" in observed(b, y, other)


def test_what_nothing_reads_and_what_is_no_float_is_left_out():
    b = Builder()
    first, second = b.op("Split", b.input(4), b.ints(2, 2), axis=1, outputs=2, shapes=[(2,), (2,)])
    kind = b.op("Cast", first, to=7)
    found = observed(b, b.op("Sigmoid", first), b.op("Cast", kind, to=1, name="back"))
    assert first in found
    assert second not in found
    assert kind not in found


def test_an_input_under_a_relu_is_observed():
    b = Builder()
    assert "x" in observed(b, b.op("Relu", b.input(4)))
