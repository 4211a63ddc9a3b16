"""Samples that touch each other run singly; NaN and Inf are let through where they do no harm."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.data.fitted import REFUSES_BATCHES, run_singly
from onnxq.errors import DataError
from onnxq.model.model import Model

from support.builder import Builder

X = np.random.default_rng(0).standard_normal((6, 4), np.float32)


def info(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def network(*nodes, weights=()):
    graph = helper.make_graph(nodes, "g", [info("x", "N", 4)], [info("y", "N", 4)], weights)
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def mixing():
    """A Softmax over the batch."""
    return network(helper.make_node("Softmax", ["x"], ["y"], name="softmax", axis=0))


def test_samples_that_touch_each_other_are_run_singly_and_that_is_said():
    model = mixing()
    source = api.as_source(X, model)
    assert "touch each other ('y' of two differs by" in source.note
    assert [len(batch) for batch in source.batches(8)] == [1] * 6
    found = api.calibrate(model, X)
    assert "one sample at a time" in found.note
    # Alone, each is 1; together, none is.
    assert (found.tensors["y"].low, found.tensors["y"].high) == (1, 1)
    assert api.validate(model, [], X).note == source.note


def test_samples_that_do_not_are_run_together():
    b = Builder()
    model = b.model(b.op("Softmax", b.input(4), axis=1))
    source = api.as_source(X, model)
    assert source.note == ""
    assert [len(batch) for batch in source.batches(8)] == [6]


def test_a_model_that_takes_no_batches_is_told():
    shape = numpy_helper.from_array(np.array([1, 4]), "shape")
    model = network(helper.make_node("Reshape", ["x", "shape"], ["y"]), weights=[shape])
    source = api.as_source(X, model)
    assert run_singly(source.source, model) == REFUSES_BATCHES
    assert source.note == REFUSES_BATCHES.reason


def test_nan_and_inf_are_refused_by_name_where_layers_read_them():
    b = Builder()
    model = b.model(b.conv(b.input(4, 5, 5), 3))
    x = np.zeros((6, 4, 5, 5), np.float32)
    x[4, 1, 0, :2] = np.inf
    x[4, 1, 1, 0] = np.nan
    with pytest.raises(DataError, match=r"<memory>\[4\]: input 'x' holds 1 NaN and 2 Inf"):
        list(api.as_source(x, model).batches(4))
    assert len(list(api.as_source(x, model, allow_nonfinite=True).batches(4))) == 2
