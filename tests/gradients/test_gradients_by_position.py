"""What the positions of a layer's output count, and what rounding makes of it."""

import numpy as np
import onnxq
import pytest
from onnxq.calibration.statistics import Calibration
from onnxq.data.tokens import NO_TOKENS
from onnxq.gradients import power_by_position
from onnxq.model.graph import Graph
from onnxq.progress import SILENT
from onnxq.quantization.importance import LEAST, MOST, importance_of
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.quantization.sequential import settle_layers
from onnxq.targets.read import target_named

from support.builder import Builder

TOKENS, WIDTH = 4, 6


@pytest.fixture
def made():
    """A layer on tokens, of which the first counts ten times the second and the others nothing."""
    b = Builder(0)
    x = b.input(TOKENS, WIDTH)
    layer = b.op("MatMul", x, b.const(b.random(WIDTH, WIDTH)), shape=(TOKENS, WIDTH), name="layer")
    counts = np.zeros((1, TOKENS, 1), np.float32)
    counts[0, :2, 0] = 10, 1
    y = b.op("Mul", layer, b.const(counts), shape=(TOKENS, WIDTH))
    model = b.model(b.op("ReduceSum", y, b.const([1], dtype=np.int64), keepdims=0, shape=(WIDTH,)))
    values = np.random.default_rng(1).standard_normal((64, TOKENS, WIDTH)).astype(np.float32)
    return model, layer, values, onnxq.calibrate(model, {"x": values})


def test_squared_gradients_are_those_of_the_outputs(made):
    model, layer, values, calibration = made
    found = power_by_position(model, calibration, [{"x": values[:5]}, {"x": values[5:7]}],
                              {layer: -1})  # fmt: skip
    assert [each.shape for each in found[layer]] == [(5, TOKENS), (2, TOKENS)]
    powers = np.concatenate(found[layer])
    # A gradient of ±count/σ at every channel, whatever the signs.
    assert powers[:, 0] == pytest.approx(100 * powers[:, 1], rel=1e-5)
    assert not powers[:, 2:].any()


def test_a_sample_counts_the_same_wherever_it_stands(made):
    model, layer, values, calibration = made
    one, other = (
        np.concatenate(power_by_position(model, calibration, parts, {layer: -1})[layer])
        for parts in ([{"x": values[:6]}], [{"x": values[5::-1][:2]}, {"x": values[3::-1]}])
    )
    assert np.array_equal(one[::-1], other)


def planned(model, calibration: Calibration):
    return plan_quantization(Graph(model), calibration, target_named("gpu"), QuantizationOptions())


def test_what_positions_count_is_bounded(made):
    model, layer, values, calibration = made
    plan, batches = planned(model, calibration), [{"x": values}]
    found = importance_of(model, calibration, plan, batches, NO_TOKENS, SILENT)
    (counts,) = found[layer]
    assert counts[:, 0] == pytest.approx(400 / 101)
    assert np.all(counts[:, 1:] == np.float32(LEAST))
    assert counts.max() <= MOST


def test_convolutions_have_no_counts():
    b = Builder(0)
    model = b.model(b.op("Relu", b.conv(b.input(3, 8, 8), 4)))
    values = np.random.default_rng(1).standard_normal((16, 3, 8, 8)).astype(np.float32)
    calibration = onnxq.calibrate(model, {"x": values})
    plan = planned(model, calibration)
    assert plan.weights
    assert not importance_of(model, calibration, plan, [{"x": values}], NO_TOKENS, SILENT)


def test_weights_are_rounded_for_the_positions_that_count(made):
    model, _, values, calibration = made
    # Tokens that do not count are large, and would decide on the rounding otherwise.
    values = values.copy()
    values[:, 2:] *= np.linspace(0.1, 8, WIDTH, dtype=np.float32)
    plan = planned(model, calibration)
    batches = [{"x": values}]
    weighed = importance_of(model, calibration, plan, batches, NO_TOKENS, SILENT)
    plain, own = (
        settle_layers(model, plan, batches, adaptive=True, correct=False, importance=each)
        for each in ({}, weighed)
    )
    (place,) = plan.weights
    assert not np.array_equal(plain.weights[place], own.weights[place])
    weight = Graph(model).constant(Graph(model).by_name["layer"].inputs[1])
    scale = plan.weights[place].scale
    errors = [
        np.square(values[:, 0] @ (each.weights[place] * scale - weight)).mean()
        for each in (plain, own)
    ]
    assert errors[1] < errors[0]
