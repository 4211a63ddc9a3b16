"""Gradients of what is computed element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from onnxq.gradients.writer import Unwritable, Writer
from onnxq.model.graph import Node

Needed = frozenset[int]
Found = Mapping[int, str]
Slope = Callable[[Writer, Node, str], str]
"""Writes dy/dx times the gradient of y."""


def of_input(slope: Slope) -> Callable[[Writer, Node, Sequence[str], Needed], Found]:
    """The rule of a function of one tensor, value by value."""

    def rule(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
        return {0: slope(w, node, gradients[0])}

    return rule


def passed(_w: Writer, _node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    return {0: gradients[0]}


def _where(w: Writer, condition: str, gradient: str) -> str:
    return w.op("Where", condition, gradient, w.number(0.0))


def relu(w: Writer, node: Node, gradient: str) -> str:
    return _where(w, w.op("Greater", node.input(0), w.number(0.0)), gradient)


def _number(node: Node, name: str, default: float) -> float:
    return float(node.attributes.get(name, default))


def leaky_relu(w: Writer, node: Node, gradient: str) -> str:
    below = w.op("Less", node.input(0), w.number(0.0))
    slope = w.number(_number(node, "alpha", 0.01))
    return w.op("Where", below, w.op("Mul", gradient, slope), gradient)


def prelu(w: Writer, node: Node, gradient: str) -> str:
    below = w.op("Less", node.input(0), w.number(0.0))
    return w.op("Where", below, w.op("Mul", gradient, node.input(1)), gradient)


def clip(w: Writer, node: Node, gradient: str) -> str:
    """What was not clipped came out as it is."""
    return _where(w, w.op("Equal", node.output, node.input(0)), gradient)


def sigmoid(w: Writer, node: Node, gradient: str) -> str:
    slope = w.op("Mul", node.output, w.op("Sub", w.number(1.0), node.output))
    return w.op("Mul", gradient, slope)


def hard_sigmoid(w: Writer, node: Node, gradient: str) -> str:
    # Between its bounds, it is symmetric about one half.
    off = w.op("Abs", w.op("Sub", node.output, w.number(0.5)))
    scaled = w.op("Mul", gradient, w.number(_number(node, "alpha", 0.2)))
    return _where(w, w.op("Less", off, w.number(0.5)), scaled)


def hard_swish(w: Writer, node: Node, gradient: str) -> str:
    x = node.input(0)
    slope = w.op("Add", w.op("Mul", x, w.number(1 / 3)), w.number(0.5))
    inside = w.op("Less", w.op("Abs", x), w.number(3.0))
    return w.op("Where", inside, w.op("Mul", gradient, slope), relu(w, node, gradient))


def tanh(w: Writer, node: Node, gradient: str) -> str:
    square = w.op("Mul", node.output, node.output)
    return w.op("Mul", gradient, w.op("Sub", w.number(1.0), square))


def _bell(w: Writer, x: str, scale: float, width: float) -> str:
    """Scale times exp(−width · x²)."""
    power = w.op("Mul", w.op("Mul", x, x), w.number(-width))
    return w.op("Mul", w.op("Exp", power), w.number(scale))


def erf(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Mul", gradient, _bell(w, node.input(0), 2 / math.sqrt(math.pi), 1.0))


def gelu(w: Writer, node: Node, gradient: str) -> str:
    """Φ(x) + x·φ(x); with `approximate` the exact one too, which differs by less than 0.2 %."""
    x = node.input(0)
    erf_of = w.op("Erf", w.op("Mul", x, w.number(math.sqrt(0.5))))
    below = w.op("Mul", w.op("Add", erf_of, w.number(1.0)), w.number(0.5))
    density = _bell(w, x, 1 / math.sqrt(2 * math.pi), 0.5)
    return w.op("Mul", gradient, w.op("Add", below, w.op("Mul", x, density)))


def elu(w: Writer, node: Node, gradient: str) -> str:
    slope = w.op("Add", node.output, w.number(_number(node, "alpha", 1.0)))
    below = w.op("Less", node.input(0), w.number(0.0))
    return w.op("Where", below, w.op("Mul", gradient, slope), gradient)


def absolute(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Mul", gradient, w.op("Sign", node.input(0)))


def negative(w: Writer, _node: Node, gradient: str) -> str:
    return w.op("Neg", gradient)


def softplus(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Mul", gradient, w.op("Sigmoid", node.input(0)))


def mish(w: Writer, node: Node, gradient: str) -> str:
    """tanh(s) + x · (1 − tanh²(s)) · sigmoid(x), s = softplus(x)."""
    x = node.input(0)
    t = w.op("Tanh", w.op("Softplus", x))
    rest = w.op("Sub", w.number(1.0), w.op("Mul", t, t))
    turned = w.op("Mul", w.op("Mul", x, w.op("Sigmoid", x)), rest)
    return w.op("Mul", gradient, w.op("Add", t, turned))


def exponential(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Mul", gradient, node.output)


def logarithm(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Div", gradient, node.input(0))


def root(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Div", w.op("Mul", gradient, w.number(0.5)), node.output)


def sine(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Mul", gradient, w.op("Cos", node.input(0)))


def cosine(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Neg", w.op("Mul", gradient, w.op("Sin", node.input(0))))


def softsign(w: Writer, node: Node, gradient: str) -> str:
    """1 / (1 + |x|)², where the function is x / (1 + |x|)."""
    rest = w.op("Sub", w.number(1.0), w.op("Abs", node.output))
    return w.op("Mul", gradient, w.op("Mul", rest, rest))


def reciprocal(w: Writer, node: Node, gradient: str) -> str:
    return w.op("Neg", w.op("Mul", gradient, w.op("Mul", node.output, node.output)))


def power(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    """Of the base; an exponent that is computed has none."""
    if 1 in needed:
        raise Unwritable("its exponent is computed at run time")
    x, exponent = node.input(0), node.input(1)
    value = w.graph.constant(exponent)
    if value is not None and value.size == 1 and value.item() == 2:
        slope = w.op("Mul", x, w.number(2.0))
    else:
        number = exponent
        if not w.graph.is_float(exponent):
            number = w.op("Cast", exponent, to=1)
        lower = w.op("Sub", number, w.number(1.0))
        slope = w.op("Mul", number, w.op("Pow", x, lower))
    scaled = w.op("Mul", gradients[0], slope)
    return {0: w.summed_to(scaled, w.graph.shape(node.output), x)}


# --- several operands --------------------------------------------------------------------------


Part = Callable[[Writer, Node, str, int], str]
"""Writes the gradient of an operand, in the shape of the result."""


def of_operands(part: Part) -> Callable[[Writer, Node, Sequence[str], Needed], Found]:
    """The rule of an operator whose operands are broadcast to the shape of its result."""

    def rule(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
        have = w.graph.shape(node.output)
        return {
            place: w.summed_to(part(w, node, gradients[0], place), have, node.input(place))
            for place in sorted(needed)
        }

    return rule


def add(_w: Writer, _node: Node, gradient: str, _place: int) -> str:
    return gradient


def subtract(w: Writer, _node: Node, gradient: str, place: int) -> str:
    return w.op("Neg", gradient) if place else gradient


def mean_of(w: Writer, node: Node, gradient: str, _place: int) -> str:
    return w.op("Mul", gradient, w.number(1 / len(node.inputs)))


def extreme_of(w: Writer, node: Node, gradient: str, place: int) -> str:
    """Of the operand that is the result; of each, where several are."""
    return _where(w, w.op("Equal", node.input(place), node.output), gradient)


def chosen(w: Writer, node: Node, gradient: str, place: int) -> str:
    pair = (gradient, w.number(0.0)) if place == 1 else (w.number(0.0), gradient)
    return w.op("Where", node.input(0), *pair)


def multiply(w: Writer, node: Node, gradient: str, place: int) -> str:
    return w.op("Mul", gradient, node.input(1 - place))


def divide(w: Writer, node: Node, gradient: str, place: int) -> str:
    over = w.op("Div", gradient, node.input(1))
    return w.op("Neg", w.op("Mul", over, node.output)) if place else over
