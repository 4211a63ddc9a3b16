"""Why a layer is off: shares of weights and of clipping, levels in use, by hand."""

import numpy as np
import pytest
from onnxq.api import calibrate
from onnxq.model.graph import Graph
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.targets.read import target_named
from onnxq.validation.causes import CauseFinder
from onnxq.validation.pairing import pair

from support.builder import Builder

RNG = np.random.default_rng(0)
WEIGHT = np.float32([[[[1.0]], [[1.0]]], [[[0.01]], [[0.01]]], [[[0.02]], [[0.02]]]])


def finder(x, *, per_channel=True):
    """Of one convolution from two channels to three, calibrated on x."""
    b = Builder()
    y = b.conv(b.input(2, 3, 3), 3, weight=b.const(WEIGHT), bias=False, name="conv")
    model = b.model(y)
    options = QuantizationOptions(ranges="minmax", per_channel=per_channel)
    plan = plan_quantization(Graph(model), calibrate(model, {"x": x}), target_named("gpu"), options)
    return CauseFinder(pair(model, insert(model, plan)), {"conv"}), plan.activations["x"].parameters


def samples(first=1.0, second=1.0, count=16):
    x = RNG.uniform(-1, 1, (count, 2, 3, 3)).astype(np.float32)
    x[0, :, 0, 0] = 1
    return x * np.float32([[[first]], [[second]]])


def causes(x, *, own, rounded, calibrated=None, per_channel=True, batches=1):
    """Causes where the own error and that of the weights alone have these rms."""
    found, parameters = finder(x if calibrated is None else calibrated, per_channel=per_channel)
    for part in np.array_split(x, batches):
        elements = len(part) * 27
        powers = ({"conv": float(rms) ** 2 * elements} for rms in (own, rounded))
        found.add(*powers, found.look({"x": part}))
    return found.finish()["conv"], parameters


@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize(
    ("own", "rounded", "share"), [(2.0, 1.0, 25), (1.0, 1.0, 100), (1.0, 3.0, 100), (0.0, 0.0, 0)]
)
def test_the_share_of_the_weights_is_that_of_the_powers(own, rounded, share, batches):
    found, _ = causes(samples(), own=np.float32(own), rounded=np.float32(rounded), batches=batches)
    assert found.weights == pytest.approx(share)
    assert found.note == ("its weight" if share > 50 else "its input")


def test_clipped_values_and_what_they_cost():
    x = samples()
    wide = x.copy()
    wide[1:3] *= 4
    found, parameters = causes(wide, calibrated=x, own=np.float32(1), rounded=np.float32(0))
    low, high = parameters.range
    inside = np.clip(wide, low, high)
    error = wide - np.rint(inside / parameters.scale) * parameters.scale
    beyond = np.abs(wide - inside) > 0.501 * parameters.scale
    assert found.clipped == pytest.approx(100 * beyond.mean())
    assert found.clipping == pytest.approx(100 * (error[beyond] ** 2).sum() / (error**2).sum(), rel=1e-4)  # fmt: skip
    assert found.clipping > 50
    assert found.note == f"its input: {found.clipped:.2g} % of the values are clipped"


def test_channels_that_use_few_levels():
    x = samples(first=1.0, second=0.01)
    found, parameters = causes(x, own=np.float32(1), rounded=np.float32(0))
    peaks = np.abs(x).max(axis=(0, 2, 3))
    widest = max(map(abs, parameters.range))
    assert found.input_levels == pytest.approx(100 * np.median(peaks) / widest, rel=1e-5)
    assert found.input_levels > 25  # the median of two is their mean
    assert found.clipped == 0
    few, _ = causes(samples(0.01, 0.01), calibrated=samples(), own=np.float32(1), rounded=0)
    assert few.note == "its input: half of the channels use at most 1 % of the levels"


def test_one_scale_for_a_weight_of_uneven_channels():
    x, one = samples(), np.float32(1)
    found, _ = causes(x, own=one, rounded=one, per_channel=False)
    # Two hundredths are three of 127 levels.
    assert found.weight_levels == pytest.approx(100 * 3 / 127)
    assert found.note == (
        "its weight: one scale for all, and half of the channels use at most 2 % of the levels"
    )
    found, _ = causes(x, own=one, rounded=one)
    assert np.isnan(found.weight_levels)
