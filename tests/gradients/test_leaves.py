"""Which tensors are the parts of outputs, and what their errors are measured in."""

import numpy as np
import pytest
from onnxq.calibration.accumulate import Accumulator
from onnxq.gradients import find_leaves
from onnxq.model.graph import Graph

from support.builder import Builder


def calibrated(model, deviations):
    """Statistics of tensors with values of these deviations."""
    rng = np.random.default_rng(0)
    found = {}
    for name, deviation in deviations.items():
        accumulator = Accumulator(None)
        accumulator.add((rng.standard_normal((1, 4000)) * deviation).astype(np.float32))
        found[name] = accumulator.finish()
    return find_leaves(Graph(model), found)


def deviations(leaves):
    return {leaf.tensors: leaf.deviation for leaf in leaves.parts}


def test_an_output_is_a_leaf():
    b = Builder()
    y = b.gemm(b.input(4), 3)
    leaves = calibrated(b.model(y), {y: 5.0})
    assert deviations(leaves) == {(y,): pytest.approx(5.0, rel=0.05)}
    assert not leaves.joined


def test_boxes_and_scores_count_by_themselves():
    b = Builder()
    x = b.input(4, 5, 5)
    boxes, scores = b.conv(x, 4), b.op("Sigmoid", b.conv(x, 3))
    joined = b.op("Concat", boxes, scores, axis=1)
    turned = b.op("Transpose", joined, perm=[0, 2, 3, 1])
    leaves = calibrated(b.model(turned), {boxes: 80.0, scores: 0.01})
    assert deviations(leaves) == {
        (boxes,): pytest.approx(80, rel=0.05), (scores,): pytest.approx(0.01, rel=0.05),
    }  # fmt: skip
    assert leaves.joined == {joined, turned}
    assert leaves.tensors == [boxes, scores]


def strides(b, x):
    boxes, scores = b.conv(x, 4), b.op("Sigmoid", b.conv(x, 3))
    joined = b.op("Concat", boxes, scores, axis=1, shape=(7, 5, 5))
    return boxes, scores, b.op("Reshape", joined, b.ints(0, 7, -1), shape=(7, 25))


def test_positions_are_pooled():
    """Of two strides the boxes have one deviation, and so have the scores."""
    b = Builder()
    x = b.input(4, 5, 5)
    (boxes, scores, one), (others, more, other) = strides(b, x), strides(b, b.op("Relu", x))
    model = b.model(b.op("Concat", one, other, axis=2))
    leaves = calibrated(model, {boxes: 80.0, others: 60.0, scores: 0.3, more: 1e-4})
    assert deviations(leaves) == {
        (boxes, others): pytest.approx(70.7, rel=0.05),
        (scores, more): pytest.approx(0.212, rel=0.05),
    }


def test_a_silent_output_does_not_count_for_more_than_those_of_its_kind():
    b = Builder()
    x = b.input(4, 5, 5)
    loud, silent = (b.op("Sigmoid", b.conv(x, 3)) for _ in range(2))
    leaves = calibrated(b.model(loud, silent), {loud: 1.0, silent: 1e-6})
    assert deviations(leaves)[(silent,)] == pytest.approx(0.1, rel=0.05)


def test_what_is_read_further_on_is_a_leaf_as_a_whole():
    b = Builder()
    x = b.input(4, 5, 5)
    joined = b.op("Concat", b.conv(x, 4), b.conv(x, 3), axis=1, shape=(7, 5, 5))
    last = b.conv(joined, 2)
    leaves = calibrated(b.model(joined, last), {joined: 1.0, last: 1.0})
    assert {leaf.tensors for leaf in leaves.parts} == {(joined,), (last,)}


def test_what_does_not_vary_is_no_leaf():
    b = Builder()
    y = b.gemm(b.input(4), 3)
    accumulator = Accumulator(None)
    accumulator.add(np.full((1, 100), 0.7, np.float32))
    assert not find_leaves(Graph(b.model(y)), {y: accumulator.finish()}).parts
    assert not find_leaves(Graph(b.model(y)), {}).parts


def test_what_is_compared_counts_as_an_output_does():
    """Of a model that says only which class is likeliest: its scores."""
    b = Builder()
    scores = b.gemm(b.op("Relu", b.input(4)), 5)
    model = b.model(b.op("ArgMax", scores, axis=1))
    assert deviations(calibrated(model, {scores: 3.0})) == {(scores,): pytest.approx(3, rel=0.05)}
