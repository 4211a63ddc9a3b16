"""Functions written out value by value, between the one tensor that they are of and where they end."""

import numpy as np
import pytest
from onnxq.model.elementwise import before_join
from onnxq.model.graph import Graph

from support.activations import WRITTEN
from support.builder import Builder


def joined(write):
    """Node types between the input and the last operator that reads several values of it."""
    b = Builder()
    x = b.conv(b.input(4, 8, 8), 4)
    y = WRITTEN[write](b, x) if isinstance(write, str) else write(b, x)
    graph = Graph(b.model(b.conv(y, 4)))
    found = [before_join(graph, node) for node in graph.nodes]
    return [node.op_type for node in max(found, key=len)]


@pytest.mark.parametrize(
    ("write", "inside"),
    [
        ("gelu", ["Div", "Erf", "Add"]),
        ("gelu, halved first", ["Mul", "Div", "Erf", "Add"]),
        ("gelu, x by its weight", ["Div", "Erf", "Add", "Mul"]),
        ("gelu by tanh", ["Pow", "Mul", "Add", "Mul", "Tanh", "Add"]),
        ("gelu by tanh, cubed by products", ["Mul", "Mul", "Mul", "Add", "Mul", "Tanh", "Add"]),
        ("silu", ["Sigmoid"]),
        ("quick gelu", ["Mul", "Sigmoid"]),
        ("mish", ["Softplus", "Tanh"]),
        ("hard swish", ["Add", "Clip", "Div"]),
    ],
)
def test_what_stands_between(write, inside):
    assert sorted(joined(write)) == sorted(inside)


def test_a_layer_between_makes_it_no_such_function():
    assert joined(lambda b, x: b.op("Mul", x, b.op("Sigmoid", b.conv(x, 4)))) == []


def test_a_mean_over_the_image_makes_it_no_such_function():
    def excite(b, x):
        pooled = b.op("GlobalAveragePool", x, shape=(4, 1, 1))
        return b.op("Mul", x, b.op("Sigmoid", pooled), shape=(4, 8, 8))

    assert joined(excite) == []


def test_functions_of_two_tensors_are_none():
    assert joined(lambda b, x: b.op("Mul", x, b.op("Sigmoid", b.input(4, 8, 8, name="z")))) == []


def test_a_longer_chain_than_any_function_is_given_up():
    def long(b, x):
        y = x
        for _ in range(40):
            y = b.op("Add", y, b.const(np.float32(1)))
        return b.op("Mul", x, b.op("Sigmoid", y))

    assert joined(long) == []
