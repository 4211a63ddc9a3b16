"""Activations as exporters write them out, node by node."""

import numpy as np


def _number(b, value):
    return b.const(np.float32(value))


def gelu(b, x):
    bent = b.op("Erf", b.op("Div", x, _number(b, np.sqrt(2))))
    return b.op("Mul", b.op("Mul", x, b.op("Add", bent, _number(b, 1))), _number(b, 0.5))


def gelu_halved_first(b, x):
    bent = b.op("Erf", b.op("Div", x, _number(b, np.sqrt(2))))
    return b.op("Mul", b.op("Mul", x, _number(b, 0.5)), b.op("Add", bent, _number(b, 1)))


def gelu_weighed_last(b, x):
    bent = b.op("Erf", b.op("Div", x, _number(b, np.sqrt(2))))
    return b.op("Mul", x, b.op("Mul", b.op("Add", bent, _number(b, 1)), _number(b, 0.5)))


def gelu_by_tanh(b, x, cube=None):
    cube = b.op("Pow", x, _number(b, 3)) if cube is None else cube
    inner = b.op("Add", x, b.op("Mul", cube, _number(b, 0.044715)))
    bent = b.op("Tanh", b.op("Mul", inner, _number(b, np.sqrt(2 / np.pi))))
    return b.op("Mul", b.op("Mul", x, b.op("Add", bent, _number(b, 1))), _number(b, 0.5))


def gelu_cubed(b, x):
    return gelu_by_tanh(b, x, b.op("Mul", b.op("Mul", x, x), x))


def silu(b, x):
    return b.op("Mul", x, b.op("Sigmoid", x))


def quick_gelu(b, x):
    return b.op("Mul", x, b.op("Sigmoid", b.op("Mul", x, _number(b, 1.702))))


def mish(b, x):
    return b.op("Mul", x, b.op("Tanh", b.op("Softplus", x)))


def hard_swish(b, x):
    gate = b.op("Clip", b.op("Add", x, _number(b, 3)), _number(b, 0), _number(b, 6))
    return b.op("Mul", x, b.op("Div", gate, _number(b, 6)))


WRITTEN = {
    "gelu": gelu,
    "gelu, halved first": gelu_halved_first,
    "gelu, x by its weight": gelu_weighed_last,
    "gelu by tanh": gelu_by_tanh,
    "gelu by tanh, cubed by products": gelu_cubed,
    "silu": silu,
    "quick gelu": quick_gelu,
    "mish": mish,
    "hard swish": hard_swish,
}
