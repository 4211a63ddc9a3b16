"""What leads only to squares that are compressed is found; what also leads elsewhere is not."""

import numpy as np
import pytest
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.spectral import spectral_front_ends

from support.builder import Builder


def found(b, *outputs):
    model, _ = normalize(Model(b.proto(*outputs)))
    return set(spectral_front_ends(Graph(model)))


def transform(b, x, how):
    """Real and imaginary part of a Fourier transform, as two layers or as one that is split."""
    if how == "two layers":
        return b.conv(x, 4, 1, name="re"), b.conv(x, 4, 1, name="im")
    both = b.conv(x, 8, 1, name="both")
    return b.op("Split", both, b.ints(4, 4), outputs=2, axis=1, shape=(4, 6, 6), name="split")


def square(b, x, how):
    if how == "Mul":
        return b.op("Mul", x, x)
    return b.op("Pow", x, b.const(np.float32(2)))


def front_end(b, x, *, parts="two layers", squared="Mul", compressed="Log", root=False):
    powers = [square(b, each, squared) for each in transform(b, x, parts)]
    power = b.op("Add", *powers, name="power")
    power = b.op("Sqrt", power, name="magnitude") if root else power
    mel = b.conv(power, 3, bias=False, name="mel")
    positive = b.op("Max", mel, b.const(np.float32(1e-6)), name="floor")
    if compressed == "Log":
        return b.op("Log", positive, name="log")
    return b.op("Pow", positive, b.const(np.float32(compressed)), name="log")


@pytest.mark.parametrize("parts", ["two layers", "one layer"])
@pytest.mark.parametrize("squared", ["Mul", "Pow"])
@pytest.mark.parametrize("compressed", ["Log", 0.3])
@pytest.mark.parametrize("root", [True, False])
def test_front_ends_are_found(parts, squared, compressed, root):
    b = Builder()
    y = front_end(b, b.input(2, 6, 6), parts=parts, squared=squared, compressed=compressed,
                  root=root)  # fmt: skip
    there = found(b, b.conv(y, 5, 3, name="network"))
    layers = {"re", "im"} if parts == "two layers" else {"both", "split"}
    assert layers | {"power", "mel"} <= there
    assert "network" not in there
    assert ("magnitude" in there) == root


def test_a_magnitude_that_is_squared_again_leads_to_its_own_squares():
    """A constant-Q transform that gives magnitudes, and decibels made of their squares."""
    b = Builder()
    re, im = transform(b, b.input(2, 6, 6), "two layers")
    both = b.op("Mul", b.op("Concat", re, im, axis=1, shape=(8, 6, 6)), b.const(np.float32(0.3)))
    power = b.op("Conv", b.op("Mul", both, both), b.const(np.ones((3, 8, 1, 1))), shape=(3, 6, 6),
                 name="power")  # fmt: skip
    magnitude = b.op("Sqrt", power, name="magnitude")
    squared = b.op("Add", b.op("Mul", magnitude, magnitude), b.const(np.float32(1e-6)))
    there = found(b, b.conv(b.op("Log", squared), 5, 3, name="network"))
    assert {"re", "im", "power", "magnitude"} <= there
    assert "network" not in there


def test_framing_before_the_transform_belongs_to_it():
    b = Builder()
    framed = b.conv(b.input(2, 6, 6), 4, 3, name="frames")
    window = b.op("Mul", framed, b.const(np.abs(b.random(4, 6, 6))), name="window")
    assert {"frames", "window", "re", "im"} <= found(b, front_end(b, window))


@pytest.mark.parametrize("reader", ["phase", "output", "root alone", "difference", "softmax"])
def test_what_leads_elsewhere_too_is_no_front_end(reader):
    b = Builder()
    x = b.input(2, 6, 6)
    layer = b.conv(x, 4, 1, name="layer")
    outputs = []
    if reader == "softmax":
        y = b.op("Log", b.op("Softmax", layer, axis=1))
    else:
        power = b.op("Mul", layer, layer)
        if reader == "difference":
            power = b.op("Sub", power, b.op("Sigmoid", layer))
        y = b.op("Sqrt" if reader == "root alone" else "Log", b.op("Abs", power))
        outputs = {"phase": [b.op("Tanh", layer)], "output": [layer]}.get(reader, [])
    assert "layer" not in found(b, y, *outputs)


def test_a_deep_network_between_square_and_logarithm_is_none():
    b = Builder()
    layer = b.conv(b.input(2, 6, 6), 4, 1, name="layer")
    x = b.op("Mul", layer, layer)
    for _ in range(4):
        x = b.op("Relu", b.conv(x, 4, 3))
    assert found(b, b.op("Log", x)) == set()
