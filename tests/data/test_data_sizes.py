"""Random samples find sizes with which a model runs."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.data.random import random_feeds
from onnxq.data.sizes import SIDES, parse_shapes
from onnxq.errors import DataError, UsageError
from onnxq.model.model import Model, TensorSpec

from support.builder import Builder


def info(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, **weights):
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def shape_of(model, name="x", **options):
    (batch,) = api.as_source("random:2", model, **options).batches(2)
    return batch.feeds[name].shape


def test_any_side_of_an_image_will_do():
    model = pooled()
    assert shape_of(model) == (2, 3, SIDES[0], SIDES[0])


def pooled():
    return model_of(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool")],
        [info("x", "N", 3, "h", "w")], [info("y", "N", 3, 1, 1)],
    )  # fmt: skip


def grid(height, width):
    """Folds an image to so many pixels: another size does not fit the constant added to it."""
    return model_of(
        [helper.make_node("Add", ["x", "positions"], ["y"], name="add")],
        [info("x", "N", 3, "h", "w")], [info("y", "N", 3, height, width)],
        positions=np.zeros((3, height, width), np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("sides", [(320, 320), (96, 96), (640, 384), (48, 320)])
def test_sides_are_searched_each_alone_where_they_must_be(sides):
    assert shape_of(grid(*sides)) == (2, 3, *sides)


def test_a_layer_says_what_it_expects():
    """No list of usual sizes holds 784."""
    model = model_of(
        [helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm")],
        [info("x", "N", "features")], [info("y", "N", 3)], w=np.zeros((784, 3), np.float32),
    )  # fmt: skip
    assert shape_of(model) == (2, 784)


def test_one_name_has_one_size():
    model = model_of(
        [helper.make_node("Add", ["x", "z"], ["y"], name="add")],
        [info("x", "N", "length"), info("z", "N", "length")], [info("y", "N", "length")],
    )  # fmt: skip
    assert shape_of(model) == shape_of(model, "z")


def test_the_shape_that_was_said():
    model = pooled()
    assert shape_of(model, input_shapes=["1x3x40x48"]) == (2, 3, 40, 48)
    assert shape_of(model, input_shapes=["x:1x3x40x48"]) == (2, 3, 40, 48)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "'x' is no shape .*images:1x3x320x320"),
        ("1x3", "does not say for which input .*x:1x3"),
        ("z:1x3", "no input 'z'"),
        ("x:1x4", "shape 1×4 does not fit the input 'x', N×3"),
        ("x:1x3x1", "does not fit"),
    ],
)
def test_shapes_that_cannot_be(text, message):
    specs = [TensorSpec(name, np.dtype("float32"), ("N", 3)) for name in ("x", "y")]
    with pytest.raises(UsageError, match=message):
        parse_shapes([text], specs)
    assert parse_shapes(["a:0:1x3"], [TensorSpec("a:0", np.dtype("f4"), (1, 3))]) == {"a:0": (1, 3)}


def test_a_model_that_runs_with_no_size_says_what_it_said_first():
    model = model_of(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="fold")],
        [info("x", "N", "length")], [info("y", None, 7919)], shape=np.array([-1, 7919 * 31]),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"no size of length .* Reshape .*--input-shape x:"):
        api.as_source("random:2", model)


def test_ids_lie_within_the_table_they_index():
    model = model_of(
        [helper.make_node("Gather", ["table", "ids"], ["y"], name="embed")],
        [info("ids", "N", "length", kind=TensorProto.INT64)], [info("y", "N", "length", 3)],
        table=np.zeros((50, 3), np.float32),
    )  # fmt: skip
    (batch,) = api.as_source("random:8", model).batches(8)
    ids = batch.feeds["ids"]
    assert 40 < ids.max() < 50
    assert ids.min() >= 0


def test_what_samples_share_is_drawn_once():
    model = model_of(
        [helper.make_node("Add", ["x", "mask"], ["y"], name="add")],
        [info("x", "N", 4), info("mask", 1, 4)], [info("y", "N", 4)],
    )  # fmt: skip
    (batch,) = api.as_source("random:8", model).batches(8)
    assert {name: v.shape for name, v in batch.feeds.items()} == {"x": (8, 4), "mask": (1, 4)}


def test_a_batch_that_the_model_fixes_is_filled():
    b = Builder(batch=3)
    source = api.as_source("random:8", b.model(b.op("Relu", b.input(4))))
    assert source.count == 9
    assert [len(batch) for batch in source.batches(8)] == [3, 3, 3]


def test_the_proof_without_data_finds_them_too():
    model = grid(320, 96)
    assert [feeds["x"].shape for feeds in random_feeds(model)] == [(2, 3, 320, 96)] * 2
    _, record = api.equalize(model)
    assert record.equalization.proof.identical
    assert record.equalization.proof.samples == 4
    _, record = api.equalize(pooled(), input_shapes=["1x3x8x8"])
    assert record.equalization.proof.identical
