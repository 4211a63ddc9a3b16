"""What a target rounds besides the inputs of layers counts when scales are chosen."""

import numpy as np
import pytest
from onnxq.api import calibrate, equalize, quantize
from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import rounded_beside
from onnxq.targets import target_named
from test_channel_factors import post_norm_encoder

from support.builder import Builder
from support.random_graphs import random_feeds


def prelu_blocks(blocks=3):
    """Residual blocks with a slope a channel, as face and hand landmark models have: on `cpu` a
    convolution is rounded before the PReLU, which is float. The channels of layers that a
    depthwise convolution and a projection follow are planted uneven."""
    b = Builder(0, spread=0)

    def conv(x, out, size, *, uneven=1.0, lean=2.0, group=1):
        inputs = b.shapes[x][0] // group
        weight = b.random(out, inputs, size, size, scale=(1.5 / (inputs * size * size)) ** 0.5)
        weight *= np.exp2(uneven * b.rng.standard_normal((out, 1, 1, 1))).astype(np.float32)
        bias = b.const(b.random(out) * 1.5 * lean - lean)
        pads = [size // 2] * 4
        shape = (out, *b.shapes[x][1:])
        return b.op("Conv", x, b.const(weight), bias, shape=shape, pads=pads, group=group)

    def prelu(x):
        return b.op("PRelu", x, b.const(0.12 * b.random(b.shapes[x][0], 1, 1)))

    x = prelu(conv(b.input(3, 16, 16), 32, 3))
    for _ in range(blocks):
        y = conv(prelu(conv(x, 16, 1)), 16, 3, group=16)
        x = prelu(b.op("Add", x, conv(y, 32, 1, uneven=0.3, lean=0.1)))
    return b.model(b.head(x, 8))


@pytest.fixture(scope="module")
def blocks():
    model = prelu_blocks()
    return model, random_feeds(model, 3, batch=48)


@pytest.mark.parametrize("target", ["cpu", "gpu", "qnn"])
def test_equalization_gains_where_a_layer_is_rounded_before_its_activation(blocks, target):
    """Before its own output counted, `cpu` was 3.5 dB worse for being equalized, `qnn` 1.6."""
    model, data = blocks
    _, found = quantize(model, data, target=target, rounding="nearest")
    plain, equalized = found.prepared.trials
    assert equalized.sqnr > plain.sqnr + 0.5
    assert found.equalization.changed


def rounded(target, scheme="w8a8"):
    b = Builder(0)
    x = b.conv(b.input(4, 8, 8), 4, 1, name="first")
    x = b.op("PRelu", x, b.const(np.full((4, 1, 1), 0.1)), name="slope")
    y = b.op("MaxPool", x, kernel_shape=[1, 1], name="moved", shape=(4, 8, 8))
    y = b.conv(y, 4, 1, name="second")
    model = b.model(b.op("Add", y, x, name="sum"))
    calibration = calibrate(model, random_feeds(model, batch=4))
    options = QuantizationOptions(scheme=scheme)
    return rounded_beside(Graph(model), calibration, target_named(target), options)


def test_what_each_target_rounds_for_others_than_layers():
    assert rounded("gpu") == {"slope"}
    assert rounded("cpu") == {"first", "second"}  # what ends in float reads the slope in float
    assert rounded("qnn") == {"first", "slope", "second", "sum"}


def test_nothing_where_activations_stay_in_float():
    assert rounded("cpu", "w8") == frozenset()


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_equalize_chooses_what_quantize_chooses(target):
    model = post_norm_encoder()
    calibration = calibrate(model, random_feeds(model, batch=32))
    _, alone = equalize(model, calibration=calibration, target=target)
    _, inside = quantize(model, calibration=calibration, target=target)
    ours, theirs = alone.equalization, inside.equalization
    assert ours.factors == theirs.factors
    assert ours.expected_gain == pytest.approx(theirs.expected_gain)
    assert ours.expected_gain > 6
    assert ours.exponents.keys() == theirs.exponents.keys()
    assert all(np.array_equal(ours.exponents[n], theirs.exponents[n]) for n in ours.exponents)
    assert (ours.options.target, str(ours.options.scheme)) == (target, "w8a8")


def test_equalize_asks_what_the_weights_will_be():
    """One scale for a whole weight asks for other factors than a scale a channel."""
    model = prelu_blocks()
    calibration = calibrate(model, random_feeds(model, batch=4))
    scales = [
        equalize(model, calibration=calibration, weights=weights)[1].equalization.exponents
        for weights in ("per-channel", "per-tensor")
    ]
    assert any(not np.array_equal(scales[0][name], scales[1][name]) for name in scales[0])


def test_a_scheme_that_the_target_does_not_take_is_refused_by_name():
    with pytest.raises(UsageError, match="target gpu does not take scheme w8a16"):
        equalize(post_norm_encoder(), target="gpu", scheme="w8a16")
