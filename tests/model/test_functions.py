"""What all that reads a tensor makes of it, as one function: found in graphs, and its values."""

import numpy as np
import pytest
from onnxq.model.functions import function_of, within_function
from onnxq.model.graph import Graph

from support.builder import Builder
from support.running import outputs

POINTS = np.linspace(-6, 6, 101)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(b, x):
    return b.op("Mul", x, b.op("Sigmoid", x, name="gate"))


def gelu(b, x):
    erf = b.op("Erf", b.op("Div", x, b.const(np.float32(np.sqrt(2)))))
    whole = b.op("Add", erf, b.const(np.float32(1)), name="gate")
    return b.op("Mul", b.op("Mul", x, whole), b.const(np.float32(0.5)))


def mish(b, x):
    return b.op("Mul", x, b.op("Tanh", b.op("Softplus", x), name="gate"))


def hard_swish(b, x):
    return b.op("HardSwish", x)


def one_after_the_other(b, x):
    return b.op("Tanh", b.op("Abs", x))


WRITTEN = {
    silu: lambda x: x * sigmoid(x),
    gelu: lambda x: x * (1 + np.vectorize(__import__("math").erf)(x / np.sqrt(2))) / 2,
    mish: lambda x: x * np.tanh(np.log1p(np.exp(x))),
    hard_swish: lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    one_after_the_other: lambda x: np.tanh(np.abs(x)),
}


def graph_of(function, more=()):
    """Conv → function → Conv, and other readers of the first one's output."""
    b = Builder(1)
    x = b.conv(b.input(3, 4, 4), 4, name="before")
    ends = [b.conv(function(b, x), 2, name="after"), *(other(b, x) for other in more)]
    return Graph(b.model(*ends))


@pytest.mark.parametrize("written", WRITTEN, ids=lambda f: f.__name__)
def test_what_reads_a_tensor_is_one_function_of_it(written):
    graph = graph_of(written)
    function = function_of(graph, "before")
    assert function.end == graph.by_name["after"].input(0)
    assert np.allclose(function.at(POINTS), WRITTEN[written](POINTS), atol=1e-6)


@pytest.mark.parametrize("written", [silu, gelu, mish], ids=lambda f: f.__name__)
def test_a_gate_lies_within_the_function_of_what_it_gates(written):
    graph = graph_of(written)
    assert function_of(graph, "gate") is None
    function = within_function(graph, "gate")
    assert function.root == "before"
    gate = function.at(POINTS, "gate")
    # The rest multiplies the gate by x, or by x/2.
    slope = function.behind("gate", POINTS, gate + 0.25) - function.at(POINTS)
    factor = 0.5 if written is gelu else 1.0
    assert np.allclose(slope, 0.25 * factor * POINTS, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [lambda b, x: b.conv(x, 2), lambda b, x: b.op("Reshape", x, b.ints(0, -1), shape=(64,))],
)
def test_another_reader_leaves_no_function(other):
    graph = graph_of(silu, [other])
    assert function_of(graph, "before") is None
    assert within_function(graph, "gate") is None


def test_an_output_of_the_model_ends_a_function():
    b = Builder(2)
    y = b.op("Sigmoid", b.conv(b.input(3, 4, 4), 4, name="before"), name="scores")
    z = b.op("Relu", y)
    graph = Graph(b.model(y, z))
    assert function_of(graph, "before").end == "scores"


@pytest.mark.parametrize("channels", [1, 4])
def test_a_constant_for_each_channel_makes_no_function(channels):
    def scaled(b, x):
        bent = b.op("Tanh", x, name="bent")
        return b.op("Mul", bent, b.const(b.random(channels, 1, 1)))

    assert (function_of(graph_of(scaled), "bent") is None) == (channels > 1)


def test_two_activations_make_no_function():
    b = Builder(3)
    x = b.input(3, 4, 4)
    one, other = b.conv(x, 4, name="one"), b.conv(x, 4, name="other")
    graph = Graph(b.model(b.op("Mul", one, b.op("Sigmoid", other))))
    assert function_of(graph, "one") is None
    assert function_of(graph, "other").end == graph.by_name[
        graph.producers[graph.outputs[0]].name
    ].input(1)


def test_the_function_is_what_the_model_computes():
    b = Builder(4, spread=0)
    x = b.input(5)
    model = b.model(gelu(b, x))
    values = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    (wanted,) = outputs(model, {"x": values}, optimize=False)
    found = function_of(Graph(model), "x").at(values.ravel().astype(np.float64))
    assert np.allclose(found, np.ravel(wanted), atol=1e-6)
