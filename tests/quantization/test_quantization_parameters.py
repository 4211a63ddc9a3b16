"""Scales of activations, weights and biases, by the formulas of the format."""

import dataclasses

import numpy as np
import pytest
from onnxq.api import calibrate
from onnxq.formats.granularity import PerChannel
from onnxq.formats.parameters import Parameters
from onnxq.model.graph import Graph, Place
from onnxq.model.operators import weight_layout
from onnxq.model.status import Quantized
from onnxq.quantization.parameters import (
    LARGEST_BIAS,
    activation_parameters,
    bias_parameters,
    weight_parameters,
)
from onnxq.quantization.placement import place
from onnxq.quantization.plan import Own, QuantizationOptions, Shared
from onnxq.quantization.planning import plan_quantization
from onnxq.quantization.ranges import Ranges
from onnxq.targets.read import target_named

from support.builder import Builder

MINMAX = QuantizationOptions(ranges="minmax")
CPU, GPU = target_named("cpu"), target_named("gpu")


def activations_of(model, data, target=CPU, *, fixed=None, options=MINMAX):
    graph, scheme = Graph(model), target.scheme("w8a8")
    calibration = calibrate(model, data)
    nodes = {node.name: Quantized(scheme) for node in graph.nodes}
    placed = place(graph, target, nodes, set(calibration.tensors))
    ranges = Ranges(graph, calibration.tensors, {}, fixed or {}, scheme.activation, options.ranges)
    return activation_parameters(graph, placed, ranges, target, options)


def weights_of(
    weight, bias=None, *, source=None, target=CPU, options=MINMAX, transposed=False, group=1
):
    """The scales of one convolution's weight; `source` is the scale of its input."""
    b = Builder()
    x = b.input(weight.shape[0] if transposed else weight.shape[1] * group, 3, 3)
    inputs = [x, b.const(weight), *([] if bias is None else [b.const(bias)])]
    kind = "ConvTranspose" if transposed else "Conv"
    graph = Graph(
        b.model(b.op(kind, *inputs, shape=None, kernel_shape=[1, 1], group=group, name="layer"))
    )
    node, scheme = graph.by_name["layer"], target.scheme("w8a8")
    layout = weight_layout(graph, node)
    known = None
    if source is not None:
        single = np.array(source, np.float32)
        known = Parameters(scheme.activation.format, single, np.array(0, np.int32))
    found = weight_parameters(graph, node, layout, target, scheme, options, known)
    place_ = Place("layer", layout.weight_position)
    return found, bias_parameters(graph, node, layout, scheme, known, {place_: found})


WEIGHT = np.float32([[[[0.5]], [[-2]]], [[[0.1]], [[0.3]]], [[[0]], [[0]]]])


def test_a_weight_has_the_scale_of_each_channels_largest():
    found, _ = weights_of(WEIGHT)
    # A channel of zeros has the scale of the widest.
    np.testing.assert_allclose(found.scale, np.float32([2, 0.3, 2]) / 127, rtol=1e-6)
    assert found.granularity == PerChannel(0)
    assert (found.zero_point == 0).all()


def test_with_one_scale_it_is_that_of_all():
    for found, _ in (
        weights_of(WEIGHT, options=dataclasses.replace(MINMAX, per_channel=False)),
        weights_of(WEIGHT, target=dataclasses.replace(CPU, one_weight_scale=frozenset({"Conv"}))),
    ):
        assert found.per_tensor
        assert found.scale == pytest.approx(2 / 127)


def test_scales_may_have_to_be_powers_of_two():
    found, _ = weights_of(WEIGHT, options=dataclasses.replace(MINMAX, power_of_two=True))
    np.testing.assert_array_equal(found.scale, np.float32([2**-5, 2**-8, 2**-5]))


def test_a_weight_of_zeros_has_a_scale_all_the_same():
    found, _ = weights_of(np.zeros((2, 1, 1, 1), np.float32))
    np.testing.assert_allclose(found.scale, 1 / 127, rtol=1e-6)


def test_a_large_bias_widens_the_scale_until_it_fits():
    bias = np.float32([1e4, 1e6, -1e6])
    found, derived = weights_of(WEIGHT, bias, source=1e-4)
    wanted = np.maximum(np.float64([2, 0.3, 0]) / 127, np.abs(bias) / (LARGEST_BIAS * 1e-4))
    np.testing.assert_allclose(found.scale[:2], wanted[:2], rtol=1e-6)
    steps = np.abs(bias[:2]) / (found.scale[:2].astype(np.float64) * 1e-4)
    assert (steps <= LARGEST_BIAS * (1 + 1e-6)).all()
    np.testing.assert_allclose(derived.parameters.scale, found.scale * np.float32(1e-4))
    assert (derived.data, derived.weight) == ("x", Place("layer", 1))
    assert str(derived.parameters.format) == "int32"


def test_a_transposed_convolution_serves_one_output_of_each_group_with_a_scale():
    weight = np.float32([[[[1]], [[2]]], [[[3]], [[-4]]]])
    found, derived = weights_of(weight, np.zeros(2, np.float32), source=0.5, transposed=True)
    np.testing.assert_allclose(found.scale, np.float32([3, 4]) / 127, rtol=1e-6)
    np.testing.assert_allclose(derived.parameters.scale, found.scale / 2)


def test_the_largest_bias_of_all_groups_decides():
    weight = np.ones((4, 1, 1, 1), np.float32)  # one output of each of two groups
    scales = []
    for bias in ([1e6, 1], [1, 1e6], [1, 1]):
        found, _ = weights_of(weight, np.float32(bias), source=1e-4, transposed=True, group=2)
        scales.append(found.scale.item())
    assert scales[0] == scales[1] == pytest.approx(1e6 / (LARGEST_BIAS * 1e-4))
    assert scales[2] == pytest.approx(1 / 127)


def test_a_target_with_float_biases_derives_none():
    assert weights_of(WEIGHT, np.ones(3, "f4"), source=1.0, target=GPU)[1] is None
    assert weights_of(WEIGHT, np.ones(3, "f4"))[1] is None  # nothing is known of the input


def pooled(op_type="MaxPool"):
    b = Builder()
    x = b.conv(b.input(1, 4, 4), 2, weight=b.const(np.float32([[[[1]]], [[[-2]]]])), bias=False, name="conv")  # fmt: skip
    if op_type == "GlobalAveragePool":
        y = b.op(op_type, x, shape=(2, 1, 1), name="pool")
    else:
        y = b.op(op_type, x, kernel_shape=[2, 2], shape=(2, 3, 3), name="pool")
    return b.model(b.conv(y, 1, name="y"))


DATA = {"x": np.random.default_rng(0).uniform(-1, 3, (16, 1, 4, 4)).astype(np.float32)}


def test_a_range_is_that_of_the_values_with_zero_in_it():
    found = activations_of(pooled(), DATA)["x"].parameters
    low, high = DATA["x"].min(), DATA["x"].max()
    assert found.scale == pytest.approx((high - low) / 255, rel=1e-6)
    assert found.zero_point == np.rint(-low / found.scale)
    positive = activations_of(pooled(), {"x": np.abs(DATA["x"]) + 1})["x"].parameters
    assert (positive.zero_point, positive.range[0]) == (0, 0)


def test_what_passes_values_on_shares_their_scale():
    found = activations_of(pooled(), DATA)
    kinds = {name: type(entry) for name, entry in found.items()}
    assert sorted(map(str, (kinds["conv"], kinds["pool"]))) == sorted(map(str, (Own, Shared)))
    shared = next(each for each in (found["conv"], found["pool"]) if isinstance(each, Shared))
    assert shared.shares_with in {"conv", "pool"}
    assert found["conv"].parameters == found["pool"].parameters


def test_a_range_that_is_settled_is_taken_for_all_that_share_it():
    found = activations_of(pooled(), DATA, fixed={"pool": (-1.0, 4.0), "conv": (-2.0, 3.0)})
    for name in ("conv", "pool"):
        low, high = found[name].parameters.range
        assert (low, high) == pytest.approx((-2, 4), abs=float(found[name].parameters.scale))


def test_an_average_far_below_its_input_is_coarsened():
    """Noise around zero averages to almost nothing."""
    data = {"x": np.tile(np.float32([[1, -1], [-1, 1]]), (16, 1, 2, 2)) * 1000}
    data["x"][:, 0, 0, 0] += 0.5
    for ratio in (255.0, 8.0):
        target = dataclasses.replace(CPU, largest_pooling_ratio=ratio)
        found = activations_of(pooled("GlobalAveragePool"), data, target)
        source, pool = (float(found[name].parameters.scale) for name in ("conv", "pool"))
        assert source / pool <= ratio * (1 + 1e-6)
        assert source / pool == pytest.approx(ratio, rel=1e-5)


def test_a_scheme_without_activations_quantizes_none():
    plan = plan_quantization(Graph(pooled()), None, CPU, QuantizationOptions(scheme="w8"))
    assert plan.activations == {}
