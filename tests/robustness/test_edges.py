"""Numbers at the edge of float32 and int8: the outputs stay finite and close, or it is said why not."""

import numpy as np
import onnxq
import pytest
from onnxq.errors import DataError, OnnxqError
from onnxq.model.session import open_session, run

from support.builder import Builder

TARGETS = ["gpu", "cpu"]
pytestmark = pytest.mark.filterwarnings("error")  # numpy's overflow warnings are findings


def network(first=1.0, second=1.0, bias=1.0, *, channels=None):
    """Gemm, Relu, Gemm with weights and biases of the sizes given; `channels` of the first are 0."""
    b = Builder(spread=1)
    x = b.input(6)
    w = b.random(8, 6) * np.float32(first)
    if channels is not None:
        w[channels] = 0
    v = b.random(4, 8) * np.float32(second)
    h = b.op("Gemm", x, b.const(w), b.const(b.random(8) * np.float32(bias)), shape=(8,), transB=1)
    h = b.op("Relu", h)
    return b.model(b.op("Gemm", h, b.const(v), b.const(b.random(4)), shape=(4,), transB=1))


def data(scale=1.0, count=32, features=6):
    rng = np.random.default_rng(1)
    return (rng.standard_normal((count, features)) * np.float64(scale)).astype(np.float32)


def quantized_and_float(model, x, target):
    """Outputs of the int8 and of the float model; the equalized one must agree with the float one."""
    feeds = {model.inputs[0].name: x}
    (expected,) = run(open_session(model, optimize=False), None, feeds)
    equalized, record = onnxq.equalize(model, data=feeds)
    assert record.equalization.proof.identical
    (same,) = run(open_session(equalized, optimize=False), None, feeds)
    assert np.array_equal(same, expected)
    quantized, _ = onnxq.quantize(model, feeds, target=target)
    (found,) = run(open_session(quantized), None, feeds)
    emulated = onnxq.emulate(quantized, feeds).outputs[model.outputs[0].name]
    assert np.isfinite(emulated).all()
    assert np.isfinite(found).all()
    return found, expected


def close(model, x, target, share=0.05):
    found, expected = quantized_and_float(model, x, target)
    assert np.abs(found - expected).max() <= share * np.abs(expected).max() + 1e-30


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("channels", [[0, 3], range(7), range(8)])
def test_channels_whose_weights_are_all_zero(target, channels):
    close(network(channels=list(channels)), data(), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1e18, 1.0),
        (1.0, 1e18),
        (1e-18, 1.0),
        (1.0, 1e-18),
        (1e15, 1e-15),
        (1e-15, 1e15),
        (1e-25, 1e25),
    ],
)
def test_huge_and_tiny_weights(target, first, second):
    close(network(first, second, bias=first), data(), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("first", "second"), [(1e-41, 1.0), (1.0, 1e-41), (1e-45, 1e-45)])
def test_denormal_weights(target, first, second):
    """Weights below the smallest scale may become 0: nothing else may happen to them."""
    close(network(first, second), data(), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scale", [1e18, 1e-18, 1e-36, 1e-42])
def test_huge_and_tiny_inputs(target, scale):
    close(network(bias=scale), data(scale), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-42])
def test_constant_activations(target, value):
    close(network(), np.full((16, 6), value, np.float32), target)


@pytest.mark.parametrize("target", TARGETS)
def test_a_bias_beyond_int32(target):
    """In steps of input scale × weight scale it would be 10¹² of them: the layer must not clip it."""
    close(network(first=1e-9, bias=10.0), data(1e-3), target)


@pytest.mark.parametrize("target", TARGETS)
def test_one_sample_of_one_element(target):
    b = Builder()
    x = b.input(1)
    h = b.op("Relu", b.gemm(x, 1))
    close(b.model(b.gemm(h, 1)), np.ones((1, 1), np.float32), target)


@pytest.mark.parametrize("target", TARGETS)
def test_convolutions_of_one_pixel_and_channel(target):
    b = Builder()
    x = b.input(1, 1, 1)
    h = b.op("Relu", b.conv(x, 1, 3))
    model = b.model(b.conv(h, 1))
    close(model, np.linspace(-1, 1, 16, dtype=np.float32).reshape(16, 1, 1, 1), target)


@pytest.mark.parametrize("call", ["calibrate", "equalize", "quantize"])
def test_no_samples(call):
    empty = {"x": np.zeros((0, 6), np.float32)}
    with pytest.raises(DataError, match="no samples"):
        getattr(onnxq, call)(network(), data=empty)


def test_a_quantized_model_takes_an_empty_batch():
    quantized, _ = onnxq.quantize(network(), {"x": data()})
    (found,) = run(open_session(quantized), None, {"x": np.zeros((0, 6), np.float32)})
    assert found.shape == (0, 4)


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_weights_that_are_not_finite(weight):
    """Refused by name, or the layer stays in float with a reason."""
    b = Builder()
    w = np.ones((3, 6), np.float32)
    w[1, 2] = weight
    model = b.model(b.op("Gemm", b.input(6), b.const(w, "broken"), shape=(3,), transB=1))
    with pytest.raises(OnnxqError, match=r"NaN|Inf|not finite"):
        onnxq.quantize(model, {"x": data()})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scheme", ["w8", "w4", "dynamic"])
@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_a_layer_whose_weight_is_not_finite_stays_in_float_without_data(scheme, weight):
    b = Builder()
    w = np.ones((6, 3), np.float32)
    w[1, 2] = weight
    hidden = b.op("Relu", b.op("MatMul", b.input(6), b.const(w), name="broken", shape=(3,)))
    model = b.model(b.matmul(hidden, 4))
    _, result = onnxq.quantize(model, target="cpu", scheme=scheme)
    reasons = {node: str(status) for node, status in result.plan.nodes.items()}
    assert "its weight holds NaN or Inf" in reasons["broken"]
    assert len(result.plan.weights) == 1
