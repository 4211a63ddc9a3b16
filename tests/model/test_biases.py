"""Where the bias of a weighted operator is, and the constants that become one."""

import numpy as np
import pytest
from onnxq.model.biases import BiasSite, bias_site
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.operators import weight_layout

from support.builder import Builder
from support.random_graphs import random_feeds
from support.running import outputs


def normalized(proto):
    """The normalized model, which computes the same, and its record."""
    model, record = normalize(Model(proto))
    feeds = random_feeds(model)
    pairs = (outputs(m, feeds, optimize=False) for m in (Model(proto), model))
    for before, after in zip(*pairs, strict=True):
        assert before.shape == after.shape
        assert np.allclose(before, after, rtol=1e-5, atol=1e-5)
    return model, record


def types(model):
    return [node.op_type for node in model.proto.graph.node]


def added(b, x, *shape, first=False):
    """x plus a constant of the given shape."""
    value = b.const(b.random(*shape))
    return b.op("Add", *((value, x) if first else (x, value)), shape=b.shapes[x], name="add")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 6)])
def test_a_product_of_matrices_and_a_constant_become_gemm(shape, first):
    b = Builder()
    y = added(b, b.matmul(b.input(5), 6, name="product"), *shape, first=first)
    model, record = normalized(b.proto(b.op("Relu", y)))
    assert types(model) == ["Gemm", "Relu"]
    assert record.joined_biases == {"add": "product"}
    graph = Graph(model)
    assert graph.constant(graph.nodes[0].input(2)).shape == (6,)


@pytest.mark.parametrize("shape", [(), (6, 1, 1), (1, 6, 1, 1), (1,)])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_convolution_takes_its_bias(transposed, shape):
    b = Builder()
    build = b.conv_transpose if transposed else b.conv
    y = added(b, build(b.input(2, 4, 4), 6, bias=False, name="conv"), *shape)
    model, record = normalized(b.proto(y))
    assert types(model) == ["ConvTranspose" if transposed else "Conv"]
    assert record.joined_biases == {"add": "conv"}


def test_gemm_without_a_bias_takes_one_and_forgets_its_factor():
    b = Builder()
    y = added(b, b.gemm(b.input(4), 3, bias=None, alpha=0.5, beta=3.0, name="gemm"), 3)
    model, record = normalized(b.proto(y))
    assert types(model) == ["Gemm"]
    assert record.joined_biases == {"add": "gemm"}


def test_a_batch_norm_behind_a_joined_bias_is_folded():
    b = Builder()
    y = b.batch_norm(added(b, b.conv(b.input(2, 4, 4), 6, bias=False), 6, 1, 1))
    assert types(normalized(b.proto(y))[0]) == ["Conv"]


@pytest.mark.parametrize(
    "obstacle",
    [
        "three axes",
        "second reader",
        "output",
        "row by row",
        "widened",
        "run-time bias",
        "two activations",
    ],
)
def test_what_is_no_bias_stays(obstacle):
    b = Builder(batch=2)
    x = b.input(5)
    if obstacle == "three axes":
        y = added(b, b.matmul(b.input(3, 5, name="sequence"), 6), 6)
    elif obstacle == "row by row":
        y = added(b, b.matmul(x, 6), 2, 6)
    elif obstacle == "widened":
        y = b.op("Add", b.matmul(x, 1), b.const(b.random(6)), shape=(6,))
    elif obstacle == "run-time bias":
        bias = b.op("ReduceMean", b.op("MatMul", x, b.const(b.random(5, 6)), shape=(6,)), axes=[0])
        gemm = b.op("Gemm", x, b.const(b.random(5, 6)), bias, shape=(6,))
        y = added(b, gemm, 6)
    elif obstacle == "two activations":
        y = b.op("Add", b.matmul(x, 5), x)
    else:
        product = b.matmul(x, 6)
        y = added(b, product, 6)
    extra = {"second reader": lambda: [b.op("Neg", product)], "output": lambda: [product]}
    model, record = normalized(b.proto(y, *extra.get(obstacle, list)()))
    assert not record.joined_biases
    assert "Add" in types(model)


# --- where it is -------------------------------------------------------------------------------


def site(b, output):
    graph = Graph(b.model(b.op("Relu", output)))
    node = graph.by_name["layer"]
    return bias_site(graph, node, weight_layout(graph, node))


def test_the_bias_of_a_convolution_is_its_own():
    b = Builder()
    conv = b.conv(b.input(2, 4, 4), 3, name="layer")
    found = site(b, conv)
    assert (found.node, found.position, found.output) == ("layer", 2, conv)
    assert found.value.shape == (3,)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 6), (4, 6), (1,), ()])
def test_the_bias_of_a_product_over_a_sequence_is_the_constant_behind_it(shape):
    b = Builder()
    y = added(b, b.matmul(b.input(4, 5), 6, name="layer"), *shape, first=True)
    found = site(b, y)
    assert (found.node, found.position, found.output) == ("add", 0, y)
    # A number for each channel can be added to it without changing the shape of the output.
    assert np.broadcast_shapes((found.value + np.zeros(6)).shape, (2, 4, 6)) == (2, 4, 6)


@pytest.mark.parametrize("what", ["nothing", "widened", "activation"])
def test_a_product_over_a_sequence_may_have_none(what):
    b = Builder()
    x = b.input(4, 5)
    y = b.matmul(x, {"nothing": 6, "widened": 1, "activation": 5}[what], name="layer")
    if what == "widened":
        y = b.op("Add", y, b.const(b.random(6)), shape=(4, 6))
    if what == "activation":
        y = b.op("Add", y, x)
    found = site(b, y)
    assert not isinstance(found, BiasSite)
    assert found
