"""What ONNX Runtime cannot run with channels along the last axis, beside integer convolutions."""

import numpy as np
import onnxq
import onnxruntime as ort
import pytest
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import needs_channels_first
from onnxq.model.status import Float, Quantized

from support.builder import Builder

SIDE, SAMPLES = 16, 32
X = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
SHRINKS = {"mode": "cubic", "factors": (0.5, 0.5)}


def activated(b, x, out=8, **names):
    return b.op("Relu", b.conv(x, out, 3, **names))


def resize(b, x, mode, factors, *, sized=False, name="resize", **attributes):
    """Along height and width."""
    channels, *sides = b.shapes[x]
    shape = [int(side * factor) for side, factor in zip(sides, factors, strict=True)]
    all_axes = "axes" not in attributes
    if sized:
        how = ["", b.ints(*([1, channels] if all_axes else []), *shape)]
    else:
        how = [b.const(np.float32([*([1, 1] if all_axes else []), *factors]))]
    return b.op("Resize", x, "", *how, shape=(channels, *shape), mode=mode, name=name, **attributes)


def between(b, x, **how):
    """Conv → Conv → Resize → Conv."""
    a = activated(b, activated(b, x, name="first"), name="front")
    return b.conv(resize(b, a, **how), 4, 3, name="behind")


def shrunk(b, x):
    return between(b, x, **SHRINKS)


def shrunk_to_sizes(b, x):
    return between(b, x, **SHRINKS, sized=True)


def shrunk_along_one_axis(b, x):
    return between(b, x, mode="cubic", factors=(0.5, 2))


def of_a_function(b, x):
    c = b.conv(activated(b, x, name="first"), 8, 3, name="front")
    product = b.op("Mul", c, b.op("Sigmoid", c))
    return b.conv(resize(b, product, **SHRINKS), 4, 3, name="behind")


def of_two(b, x):
    a = activated(b, x, name="first")
    both = b.op("Concat", b.conv(a, 8, 3, name="front"), a, axis=1, shape=(16, SIDE, SIDE))
    return b.conv(resize(b, both, **SHRINKS), 4, 3, name="behind")


def in_front_of_a_pool(b, x):
    a = activated(b, activated(b, x, name="first"), name="front")
    small = resize(b, a, **SHRINKS)
    half = (8, SIDE // 4, SIDE // 4)
    pooled = b.op("MaxPool", small, kernel_shape=[2, 2], strides=[2, 2], shape=half)
    return b.conv(pooled, 4, 3, name="behind")


def in_front_of_a_transpose(b, x):
    a = activated(b, activated(b, x, name="first"), name="front")
    turned = b.op("Transpose", resize(b, a, **SHRINKS), perm=[0, 2, 3, 1])
    b.shapes[turned] = (SIDE // 2, SIDE // 2, 8)
    return b.matmul(turned, 4, name="behind")


def with_axes(mode, *, sized):
    def built(b, x):
        return between(b, x, mode=mode, factors=(2, 2), axes=[2, 3], sized=sized)

    built.__name__ = f"{mode}, sized: {sized}, with axes"
    return built


def model_of(kind):
    b = Builder(1, opset=18, spread=1, batch=1)
    return Model(b.proto(kind(b, b.input(3, SIDE, SIDE))))


def from_channels_last(b, x):
    """As TensorFlow's exporter writes it: the model's own Transpose in front of the Resize."""
    turned = b.op("Transpose", x, perm=[0, 3, 1, 2], shape=(3, SIDE, SIDE))
    return activated(b, activated(b, resize(b, turned, **SHRINKS), name="behind"), name="last")


def opened(model):
    """As it runs by default."""
    return ort.InferenceSession(model.proto.SerializeToString())


def made(model, **options):
    """The quantized model, what became of its nodes, and SQNR of ONNX Runtime's run, dB."""
    shape = [SAMPLES, *model.inputs[0].shape[1:]]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    quantized, result = onnxq.quantize(model, x, effort="fast", **{"target": "cpu"} | options)
    wanted, found = (
        np.concatenate([session.run(None, {"x": each[None]})[0] for each in x])
        for session in map(opened, (model, quantized))
    )
    noise = np.square(wanted - found).sum()
    return result.plan.nodes, 10 * np.log10(np.square(wanted).sum() / noise)


KINDS = (
    shrunk, shrunk_to_sizes, shrunk_along_one_axis, of_a_function, of_two, in_front_of_a_pool,
    in_front_of_a_transpose,     *(with_axes(mode, sized=sized) for mode in ("nearest", "linear") for sized in (False, True)),
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_layer_in_front_stays_in_float_and_the_model_runs(kind):
    nodes, sqnr = made(model_of(kind))
    assert sqnr > 30
    assert isinstance(nodes["front"], Float)
    assert "Resize 'resize' behind it with channels last" in nodes["front"].reason
    assert isinstance(nodes["behind"], Quantized)
    if kind is not of_two:
        assert isinstance(nodes["first"], Quantized)


def test_behind_a_transpose_of_the_model_the_layer_behind_stays_in_float():
    b = Builder(1, opset=18, spread=1, batch=1)
    model = Model(b.proto(from_channels_last(b, b.input(SIDE, SIDE, 3))))
    nodes, sqnr = made(model)
    assert sqnr > 30
    assert "Resize 'resize' in front of it with channels last" in nodes["behind"].reason
    assert isinstance(nodes["last"], Quantized)


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "nearest", "factors": (0.5, 0.5)},
        {"mode": "linear", "factors": (0.5, 0.5)},
        {"mode": "linear", "factors": (2, 2), "sized": True},
        {"mode": "cubic", "factors": (2, 2)},
        {"mode": "cubic", "factors": (2, 1.5), "sized": True},
        {"mode": "cubic", "factors": (0.5, 0.5), "antialias": 1},
    ],
)
def test_beside_others_layers_are_quantized(how):
    nodes, sqnr = made(model_of(lambda b, x: between(b, x, **how)))
    assert sqnr > 30
    assert all(isinstance(nodes[name], Quantized) for name in ("first", "front", "behind"))


def test_a_target_without_such_kernels_loses_nothing():
    model = model_of(shrunk)
    x = np.random.default_rng(0).standard_normal((SAMPLES, 3, SIDE, SIDE)).astype(np.float32)
    _, result = onnxq.quantize(model, x, effort="fast", target="qnn")
    assert isinstance(result.plan.nodes["front"], Quantized)


@pytest.mark.parametrize("factors", [(0.5, 0.5), (0.5, 2), (2, 2), (1.5, 1), (0.75, 1)])
@pytest.mark.parametrize(
    ("mode", "antialias"),
    [("nearest", 0), ("linear", 0), ("linear", 1), ("cubic", 0), ("cubic", 1)],
)
def test_the_table_says_which_have_no_other_kernel(mode, factors, antialias):
    """A Resize with its axes reordered computes the same, or is refused."""
    how = {"mode": mode, "antialias": antialias}
    b, c = (Builder(opset=18, batch=1) for _ in range(2))
    first = Model(b.proto(resize(b, b.input(4, 8, 8), factors=factors, **how)))
    scales = c.const(np.float32([1, *factors, 1]))
    last = Model(c.proto(c.op("Resize", c.input(8, 8, 4), "", scales, **how)))
    graph = Graph(first)
    if needs_channels_first(graph, graph.by_name["resize"]):
        with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail, match="mode only supports"):
            opened(last).run(None, {"x": X.transpose(0, 2, 3, 1)})
        return
    (wanted,) = opened(first).run(None, {"x": X})
    (found,) = opened(last).run(None, {"x": X.transpose(0, 2, 3, 1)})
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), wanted, atol=1e-5)
