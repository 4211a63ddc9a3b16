"""Bias absorption: float outputs agree up to rounding, int8 gains, and what it must leave alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from onnxq.api import calibrate, equalize, quantize
from onnxq.calibration.stream import observe
from onnxq.data.open import open_data
from onnxq.equalization.center import center_by
from onnxq.equalization.centering import plan_centering
from onnxq.equalization.classes import find_classes
from onnxq.equalization.prepare import centered, unchanged
from onnxq.equalization.prove import compare_outputs, run_reference
from onnxq.equalization.sensitivity import input_gains
from onnxq.errors import UsageError
from onnxq.model.graph import Graph

from support.builder import Builder
from support.random_graphs import random_feeds, random_models


def samples(model, count=32):
    return random_feeds(model, batch=count)


def calibrated(model):
    """A calibration of exactly this normalized model."""
    data = open_data(random_feeds(model, batch=16), model.inputs)
    names = {name: 1 for name in Graph(model).activations if (Graph(model).rank(name) or 0) > 1}
    return observe(model, data, names, fingerprint="x", allow_nonfinite=True)


def change(model, other, seed=1):
    return compare_outputs(run_reference(model, [random_feeds(model, seed)]), other)


def pointwise(activation, channels=16):
    """Conv 3×3 → activation → Conv 1×1, which reads no padding."""
    b = Builder(2)
    x = activation(b, b.conv(b.input(3, 8, 8), channels, 3, name="first"))
    x = b.conv(x, 8, 1, name="second")
    return b.model(b.head(x))


def relu6_by_channel(b, x):
    bounds = b.const(np.linspace(1, 6, b.shapes[x][0], dtype=np.float32).reshape(1, -1, 1, 1))
    return b.op("Min", b.op("Relu", x), bounds)


ACTIVATIONS = {
    "Relu": lambda b, x: b.op("Relu", x),
    "Clip": lambda b, x: b.clip(x),
    "Clip above": lambda b, x: b.clip(x, 0.5, None),
    "Min by channel": relu6_by_channel,
    "nothing": lambda _b, x: x,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_centered(kind):
    model = pointwise(ACTIVATIONS[kind])
    calibration = calibrated(model)
    done = centered(unchanged(model, calibration), "mse", 255)
    plan = done.centering
    shift = next(s for s in plan.shifts if s.producer == "first")
    assert shift.readers == ("second",)
    assert change(model, done.model).difference < 1e-5
    before = calibration.tensors[shift.tensor]
    after = done.calibration.tensors[shift.tensor]
    assert max(-after.low, after.high) < max(-before.low, before.high)
    if kind != "nothing":
        assert shift.limits
        assert shift.gain > 2  # one bit is 6 dB, less what was clipped anyway


def test_zeros_of_a_relu_stay_exact():
    """The range of a centered Relu is ±offset, so its zeros become −127 and lose nothing."""
    model = pointwise(ACTIVATIONS["Relu"])
    int8, _ = quantize(model, samples(model), weights="per-tensor")
    graph = Graph(int8)
    (clip,) = (node for node in graph.nodes if node.op_type == "Clip")
    (scale,) = (
        graph.constant(node.inputs[1])
        for node in graph.nodes
        if node.op_type == "QuantizeLinear" and node.inputs[0] == clip.output
    )
    low = graph.constant(clip.inputs[1])
    assert np.rint(low / scale) == -127
    assert abs(low / scale + 127) < 1e-4


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        (lambda b, x: b.conv(x, 4, 3), "pads its input with zeros"),
        (lambda b, x: b.op("Sigmoid", x), "does not carry an offset"),
        (lambda b, x: b.op("Mul", x, b.const(np.float32(2))), "does not carry an offset"),
    ],
)
def test_what_cannot_absorb_stops_it(reader, reason):
    b = Builder(2)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 16, 3, name="first"))
    model = b.model(b.head(reader(b, x)))
    plan = centered(unchanged(model, calibrated(model)), "mse", 255).centering
    assert reason in plan.refused["first"]


def test_offsets_of_residual_branches_add_up():
    b = Builder(5)
    x = b.conv(b.input(3, 8, 8), 8, 3, name="trunk")
    y = b.conv(b.op("Relu", b.conv(x, 16)), 8, name="branch")
    total = b.op("Add", x, y)
    model = b.model(b.head(b.conv(total, 4, name="last")))
    calibration = calibrated(model)
    done = centered(unchanged(model, calibration), "mse", 255)
    plan = done.centering
    assert {"trunk", "branch"} <= {shift.producer for shift in plan.shifts}
    offsets = {shift.producer: shift.offset for shift in plan.shifts}
    assert np.allclose(plan.offsets[total], offsets["trunk"] + offsets["branch"])
    assert change(model, done.model).difference < 1e-5
    # The derived histograms agree with those of the centered model to the width of a bin.
    fresh, derived = calibrated(done.model), done.calibration
    for name in plan.offsets:
        a, b_ = fresh.tensors[name], derived.tensors[name]
        assert np.allclose(a.minimum, b_.minimum, atol=1e-4)
        assert np.allclose(a.maximum, b_.maximum, atol=1e-4)
        assert np.allclose(a.mean_square, b_.mean_square, rtol=0.05, atol=1e-3)


@settings(max_examples=60)
@given(random_models())
def test_random_graphs_keep_their_outputs(model):
    graph = Graph(model)
    calibration = calibrated(model)
    gains = input_gains(graph, find_classes(graph), calibration)
    plan = plan_centering(graph, calibration, gains, "minmax", 255)
    moved = center_by(model, plan)
    assert -change(model, moved).sqnr < -80
    weighted = {node.name for node in graph.nodes if node.op_type in {"Conv", "Gemm"}}
    named = {shift.producer for shift in plan.shifts} | set(plan.refused)
    assert weighted <= named


def test_it_gains_in_int8():
    model = pointwise(ACTIVATIONS["Clip"])
    data = samples(model, 128)
    (off, _), (on, _) = (
        quantize(model, data, include=["second"], absorb_bias=absorb_bias)
        for absorb_bias in (False, True)
    )
    reference = run_reference(model, [random_feeds(model, 3, batch=32)], levels=(False,))
    plain, better = (compare_outputs(reference, each).sqnr for each in (off, on))
    assert better > plain + 1


def test_equalize_absorbs_only_when_asked():

    model = pointwise(ACTIVATIONS["Clip"])
    calibration = calibrate(model, samples(model))
    same, result = equalize(model, calibration=calibration)
    assert result.centering is None
    assert result.change.identical
    moved, result = equalize(model, calibration=calibration, absorb_bias=True)
    assert result.centering.shifts
    assert result.equalization.proof.identical
    assert 0 < result.change.difference < 1e-5
    assert moved.proto != same.proto
    with pytest.raises(UsageError, match="needs to know the activations"):
        equalize(model, absorb_bias=True)
