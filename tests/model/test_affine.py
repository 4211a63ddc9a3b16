"""Constants around a weighted operator: they go into its weight and bias, before and behind it."""

import numpy as np
import pytest
from onnxq.model.affine import affine_of, fold_affine
from onnxq.model.factors import fold_factors_forward, fold_gemm_factors
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize

from support.builder import Builder
from support.random_graphs import random_feeds
from support.running import outputs


def types(model):
    return [node.op_type for node in model.proto.graph.node]


def normalized(b, *names, rtol=1e-5):
    proto = b.proto(*names)
    model, record = normalize(Model(proto))
    feeds = random_feeds(model, batch=2)
    before, after = (outputs(m, feeds, optimize=False) for m in (Model(proto), model))
    for a, c in zip(before, after, strict=True):
        assert a.shape == c.shape
        assert np.abs(a - c).max() <= rtol * np.abs(a).max()
    return model, record


# --- behind it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("op_type", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_behind_a_convolution(op_type, first, shape, bias):
    b = Builder()
    conv = b.conv(b.input(2, 4, 4), 6, 3, bias=bias, name="conv")
    value = b.const(np.abs(b.random(*shape)) + 0.5)
    operands = (value, conv) if first else (conv, value)
    y = b.op(op_type, *operands, shape=(6, 4, 4), name="constant")
    model, record = normalized(b, b.op("Relu", y))
    if op_type == "Div" and first:  # c / x is not affine
        assert types(model) == ["Conv", "Div", "Relu"]
        return
    assert types(model) == ["Conv", "Relu"]
    scales = op_type in {"Mul", "Div"} or (op_type == "Sub" and first)
    folded = record.folded_factors if scales else record.joined_biases
    assert folded == {"constant": "conv"}
    assert (record.joined_biases if scales else record.folded_factors) == {}


@pytest.mark.parametrize("build", ["gemm", "conv_transpose", "matmul"])
def test_a_factor_behind_each_kind_of_layer(build):
    b = Builder()
    if build == "conv_transpose":
        y = b.conv_transpose(b.input(2, 4, 4), 6, name="layer")
        factor = b.random(6, 1, 1)
    elif build == "gemm":
        y, factor = b.gemm(b.input(4), 6, beta=0.5, alpha=2.0, name="layer"), b.random(6)
    else:
        y, factor = b.matmul(b.input(3, 4), 6, name="layer"), b.random(6)
    model, record = normalized(b, b.op("Mul", y, b.const(factor), name="factor"))
    assert len(types(model)) == 1
    assert record.folded_factors == {"factor": "layer"}


def test_what_paddle_writes_behind_a_convolution():
    b = Builder()
    conv = b.conv(b.input(3, 8, 8), 4, 3, name="conv")
    scaled = b.op("Mul", conv, b.const(np.float32([0.94])), name="scale")
    shifted = b.op("Add", scaled, b.const(np.float32([0.5])), name="shift")
    again = b.batch_norm(shifted, name="norm")
    model, record = normalized(b, b.op("Relu", again))
    assert types(model) == ["Conv", "Relu"]
    assert record.folded_factors == {"scale": "conv"}
    assert record.joined_biases == {"shift": "conv"}
    assert record.folded_batch_norms == {"norm": "conv"}


@pytest.mark.parametrize(
    "obstacle", ["second reader", "output", "position by position", "more axes", "infinite"]
)
def test_what_stays_behind_it(obstacle):
    b = Builder()
    conv = b.conv(b.input(2, 4, 4), 6)
    shapes = {"position by position": (6, 4, 4), "more axes": (1, 1, 6, 1, 1)}
    value = np.abs(b.random(*shapes.get(obstacle, (6, 1, 1)))) + 0.5
    if obstacle == "infinite":
        value[:] = 3e38
    shape = (1, 6, 4, 4) if obstacle == "more axes" else None
    y = b.op("Mul", conv, b.const(value), shape=shape)
    extra = {"second reader": lambda: [b.op("Neg", conv)], "output": lambda: [conv]}
    proto = b.proto(y, *extra.get(obstacle, list)())
    model, record = normalize(Model(proto))
    assert record.folded_factors == {}
    assert "Mul" in types(model)


def test_a_bias_of_every_position_of_a_sequence_stays():
    b = Builder()
    y = b.op("Add", b.matmul(b.input(3, 4), 6), b.const(b.random(3, 6)))
    model, record = normalized(b, y)
    assert types(model) == ["MatMul", "Add"]
    assert record.joined_biases == {}


def keras(b, x, out, *, relu=True):
    """A Conv1D as tf2onnx writes it: an axis comes and goes, and the bias stands behind it."""
    wide = b.op("Unsqueeze", x, b.ints(2), shape=(b.shapes[x][0], 1, b.shapes[x][1]))
    conv = b.conv(wide, out, bias=False, name=f"conv{out}")
    narrow = b.op("Squeeze", conv, b.ints(2), shape=(out, b.shapes[x][1]))
    y = b.op("Add", narrow, b.const(b.random(out, 1)), name=f"bias{out}")
    return b.op("Relu", y, name=f"relu{out}") if relu else y


def test_a_bias_and_relu_behind_a_squeeze():
    b = Builder()
    y = keras(b, keras(b, b.input(4, 10), 6), 8)
    model, record = normalized(b, y)
    assert types(model) == ["Unsqueeze", "Conv", "Relu", "Conv", "Relu", "Squeeze"]
    assert record.joined_biases == {"bias6": "conv6", "bias8": "conv8"}
    assert record.moved_activations == {"relu6": "conv6", "relu8": "conv8"}
    # Names that hold another value than before are new ones.
    assert {"conv6", "conv8"}.isdisjoint(Graph(model).producers)


@pytest.mark.parametrize("perm", [[0, 2, 3, 1], [0, 3, 1, 2]])
def test_a_batch_norm_and_bias_behind_a_transpose(perm):
    b = Builder()
    y = b.op("Transpose", b.conv(b.input(2, 4, 4), 4), perm=perm)
    value = np.moveaxis(b.random(4, 1, 1, 1), 0, perm.index(1))
    model, _ = normalized(b, b.op("Add", y, b.const(value)))
    assert types(model) == ["Conv", "Transpose"]


def test_a_squeeze_of_whatever_has_size_one_is_left():
    b = Builder(batch=2)
    conv = b.conv(b.input(2, 1, 4), 6)
    y = b.op("Squeeze", conv, shape=(6, 4))
    model, _ = normalized(b, b.op("Add", y, b.const(b.random(6, 1))))
    assert "Add" in types(model)


# --- before it ---------------------------------------------------------------------------------


def hard_swish(b, x):
    inner = b.clip(b.op("Add", x, b.const(np.float32(3))))
    return b.op("Div", b.op("Mul", x, inner), b.const(np.float32(6)), name="six")


@pytest.mark.parametrize("pad", [1, 3])
@pytest.mark.parametrize("readers", [1, 2])
def test_what_paddle_writes_before_a_convolution(pad, readers):
    b = Builder()
    x = hard_swish(b, b.conv(b.input(3, 8, 8), 4))
    x = b.op("Mul", x, b.const(np.float32([0.476])), name="scale")
    x = b.op("Add", x, b.const(np.float32([-0.0076])), name="shift")
    convs = [b.conv(x, 5, pad, name=f"conv{i}") for i in range(readers)]
    model, record = normalized(b, *convs)
    assert types(model) == ["Conv", "Add", "Clip", "Mul", "Add"] + ["Conv"] * readers
    assert record.folded_factors == {"six": "conv0", "scale": "conv0"}
    assert "shift" not in Graph(model).producers  # it holds another value now


@pytest.mark.parametrize("obstacle", ["second reader", "output", "by channel", "tiny"])
def test_factors_that_stay_before_it(obstacle):
    b = Builder()
    x = b.op("Sigmoid", b.conv(b.input(3, 4, 4), 4))
    value = {"by channel": np.abs(b.random(4, 1, 1)), "tiny": np.float32(1e-9)}
    x = b.op("Mul", x, b.const(value.get(obstacle, np.float32(0.3))))
    extra = {"second reader": lambda: [b.op("Sigmoid", x)], "output": lambda: [x]}
    model, record = normalized(b, b.conv(x, 5), *extra.get(obstacle, list)())
    assert record.folded_factors == {}
    assert "Mul" in types(model)


def test_the_half_of_a_gelu_stays():
    """Runtimes find a Gelu by it and run one kernel."""
    b = Builder()
    x = b.matmul(b.input(3, 4), 8)
    inner = b.op("Erf", b.op("Div", x, b.const(np.float32(2**0.5))))
    gate = b.op("Add", inner, b.const(np.float32(1)))
    x = b.op("Mul", b.op("Mul", x, gate), b.const(np.float32(0.5)))
    model, record = normalized(b, b.matmul(x, 4))
    assert record.folded_factors == {}
    assert types(model).count("Mul") == 2


# --- what a node does --------------------------------------------------------------------------


def affine(op_type, *inputs, **attributes):
    """What the last node does; inputs are numbers, or None for the tensor."""
    b = Builder()
    x = b.input(3, 2, 2)
    names = [x if each is None else b.const(np.asarray(each, np.float32)) for each in inputs]
    graph = Graph(Model(b.proto(b.op(op_type, *names, name="node", **attributes))))
    return affine_of(graph, graph.by_name["node"])


@pytest.mark.parametrize(
    ("op_type", "inputs", "position", "gain", "shift"),
    [
        ("Mul", (None, 3), 0, 3, 0),
        ("Mul", (3, None), 1, 3, 0),
        ("Mul", (None, 0), 0, 0, 0),
        ("Div", (None, 4), 0, 0.25, 0),
        ("Add", (None, 3), 0, 1, 3),
        ("Add", (3, None), 1, 1, 3),
        ("Sub", (None, 3), 0, 1, -3),
        ("Sub", (3, None), 1, -1, 3),
    ],
)
def test_gain_and_shift_are_those_of_the_formula(op_type, inputs, position, gain, shift):
    found = affine(op_type, *inputs)
    assert (found.position, found.gain, found.shift) == (position, gain, shift)
    assert found.gain.dtype == found.shift.dtype == np.float64
    assert not found.batch_norm


def test_a_batch_norm_is_a_gain_and_a_shift_of_each_channel():
    gamma, beta, mean, variance = np.float64([[1, -2, 0], [3, 0, 1], [0, 4, 5], [1, 0, 9]])
    found = affine("BatchNormalization", None, gamma, beta, mean, variance, epsilon=0.25)
    x = np.random.default_rng(0).standard_normal((2, 3))
    wanted = gamma * (x - mean) / np.sqrt(variance + 0.25) + beta
    np.testing.assert_allclose(found.gain * x + found.shift, wanted, rtol=1e-6)
    assert found.batch_norm


@pytest.mark.parametrize(
    ("op_type", "inputs"),
    [
        ("Div", (4, None)),
        ("Div", (None, 0)),
        ("Div", (None, [[[1]], [[0]], [[1]]])),
        ("Mul", (2, 3)),
        ("Mul", (None, None)),
        ("Min", (None, 3)),
        ("Pow", (None, 2)),
        ("Relu", (None,)),
    ],
)
def test_what_is_not_affine(op_type, inputs):
    assert affine(op_type, *inputs) is None


def same_function(b, change, *names):
    """The changed model; its outputs are close to the first ones."""
    model = Model(b.proto(*names))
    changed = change(model)
    found = changed[0] if isinstance(changed, tuple) else changed
    feeds = random_feeds(model, batch=2)
    before, after = (outputs(m, feeds, optimize=False) for m in (model, found))
    for a, c in zip(before, after, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    return changed


def test_only_the_usual_is_folded_where_nodes_have_their_places():
    b = Builder()
    x = b.batch_norm(b.conv(b.input(2, 4, 4), 6, 3, name="first"), name="bn")
    x = b.op("Mul", x, b.const(np.float32(2)), name="factor")
    x = b.conv(x, 6, bias=False, name="second")
    x = b.op("Add", x, b.const(b.random(6, 1, 1)), shape=(6, 4, 4), name="bias")
    model, folded = same_function(b, lambda m: fold_affine(m, only_usual=True), x)
    assert folded.batch_norms == {"bn": "first"}
    assert (folded.factors, folded.biases) == ({}, {"bias": "second"})
    assert types(model) == ["Conv", "Mul", "Conv"]


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("beta", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("bias", ["vector", "row", "scalar", ""])
def test_a_gemm_has_no_factors_and_a_vector_for_a_bias(alpha, beta, bias):
    b = Builder()
    y = b.gemm(b.input(4), 6, bias=bias, alpha=alpha, beta=beta, name="gemm")
    graph = Graph(same_function(b, fold_gemm_factors, y))
    node = graph.by_name["gemm"]
    assert {"alpha", "beta"} & {k for k, v in node.attributes.items() if v != 1} == (
        set() if bias or beta == 1 else {"beta"}
    )
    assert graph.constant(node.input(2)) is None or graph.constant(node.input(2)).shape == (6,)


@pytest.mark.parametrize("added", [True, False])
def test_a_factor_before_it_goes_into_every_weight_that_reads_it(added):
    b = Builder()
    x = b.op("Div", b.op("Relu", b.input(2, 4, 4)), b.const(np.float32(6)), name="factor")
    if added:
        x = b.op("Add", x, b.const(b.random(2, 1, 1)), shape=(2, 4, 4))
    ys = [b.conv(x, 3, name="one"), b.conv(x, 5, 3, name="two")]
    model, found = same_function(b, fold_factors_forward, *ys)
    assert found == {"factor": "one"}
    assert types(model).count("Div") == 0
