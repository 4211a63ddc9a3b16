"""What tensors take, by shapes and by running one sample."""

import numpy as np
import pytest
from onnxq.errors import ModelError
from onnxq.model.footprint import known_footprint, measure_axes, measure_footprint
from onnxq.model.graph import Graph
from onnxq.model.session import Runtime

from support.builder import Builder


def samples(*shape):
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def test_shapes_and_a_run_tell_the_same():
    b = Builder(0)
    model = b.model(b.clip(b.conv(b.clip(b.conv(b.input(3, 8, 8), 4, 3)), 5)))
    graph = Graph(model)
    known = known_footprint(graph)
    measured = measure_footprint(model, samples(1, 3, 8, 8), Runtime())
    assert known.sizes == {name: measured.sizes[name] for name in known.sizes}
    assert known.sizes["x"] == 4 * 3 * 8 * 8


def test_shapes_that_are_not_known_are_measured():
    b = Builder(0)
    model = b.model(b.op("Relu", b.input("h", "w")))
    assert known_footprint(Graph(model)) is None
    found = measure_footprint(model, samples(1, 6, 7), Runtime())
    assert set(found.sizes.values()) == {4 * 6 * 7}


def test_a_batch_inside_another_axis_is_not_known():
    b = Builder(0)
    x = b.op("Reshape", b.input(4, 6), b.const(np.array([-1, 6])), shape=None)
    assert known_footprint(Graph(b.model(b.op("Relu", x)))) is None


def test_the_peak_is_what_is_alive_at_a_time():
    b = Builder(0)
    x = b.input(100)
    names = [x]
    for _ in range(4):
        names.append(b.op("Relu", names[-1]))
    model = b.model(names[-1])
    graph, found = Graph(model), known_footprint(Graph(model))
    # The tensor read and the one written, whatever the depth.
    assert found.peak(graph, ()) == 2 * 400
    assert found.peak(graph, names) == 5 * 400
    # One that stays, beside those.
    assert found.peak(graph, [names[1]]) == 3 * 400


def test_the_axis_that_grows_with_the_samples():
    b = Builder(0)
    x = b.input(5, 6)
    turned = b.op("Transpose", x, perm=[1, 0, 2])
    flat = b.op("Reshape", x, b.const(np.array([-1, 6])))
    row = b.op("Slice", x, b.const(np.array([0])), b.const(np.array([1])))
    squares = b.op("MatMul", flat, b.op("Transpose", flat, perm=[1, 0]))
    model = b.model(turned, flat, row, squares)
    axes = measure_axes(model, samples(1, 5, 6), samples(2, 5, 6), Runtime())
    assert (axes["x"], axes[turned], axes[flat], axes[row]) == (0, 1, 0, None)
    # Pairs of samples: no part of a batch makes a part of them.
    assert squares not in axes


def test_a_model_that_takes_one_sample_has_no_axes():
    b = Builder(0)
    model = b.model(b.op("Relu", b.op("Reshape", b.input(4), b.const(np.array([1, 4])))))
    assert measure_footprint(model, samples(1, 4), Runtime()).sizes["x"] == 16
    with pytest.raises(ModelError):
        measure_axes(model, samples(1, 4), samples(2, 4), Runtime())
