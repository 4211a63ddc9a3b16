"""`--layers` and what asks it, on models whose outputs are read on in the model."""

import numpy as np
import onnxq
import pytest
from onnxq.model.model import Model
from onnxq.validation.cut import cut
from onnxq.validation.pairing import pair

from support.builder import Builder

SIDE = 8
X = np.random.default_rng(0).standard_normal((48, 3, SIDE, SIDE)).astype(np.float32)


def activated(b, x, channels=8):
    return b.op("Relu", b.conv(x, channels, 3))


def several(b, x):
    """Two layers read it."""
    a = activated(b, x)
    return a, b.conv(a, 4), activated(b, a, 6)


def added(b, x):
    """A layer and an Add read it, and the sum is an output that a layer reads, too."""
    a = activated(b, x)
    total = b.op("Add", b.conv(a, 8, 3), a)
    return a, total, b.conv(total, 4)


def flattened(b, x):
    f = b.op("Flatten", activated(b, x), shape=(8 * SIDE * SIDE,))
    return f, b.gemm(f, 4)


def turned(b, x):
    t = b.op("Transpose", activated(b, x), perm=[0, 1, 3, 2])
    return t, b.conv(t, 4)


def joined(b, x):
    j = b.op("Concat", activated(b, x), activated(b, x, 4), axis=1, shape=(12, SIDE, SIDE))
    return j, b.conv(j, 4)


def parts(b, x):
    one, other = b.op("Split", activated(b, x), axis=1, outputs=2, shape=(4, SIDE, SIDE))
    return one, b.conv(one, 4), b.conv(other, 4)


def before_activation(b, x):
    c = b.conv(x, 8, 3)
    return c, b.conv(b.op("Relu", c), 4)


def functions(b, x):
    c = b.conv(x, 8, 3)
    s = b.op("Sigmoid", c)
    m = b.op("Mul", c, s)
    return c, s, m, b.conv(m, 4)


def input_too(b, x):
    return x, b.conv(activated(b, x), 4)


KINDS = (several, added, flattened, turned, joined, parts, before_activation, functions, input_too)


def built(kind):
    b = Builder(1, spread=1)
    return Model(b.proto(*kind(b, b.input(3, SIDE, SIDE))))


@pytest.mark.parametrize(
    ("kind", "target"),
    [(kind, "cpu") for kind in KINDS]
    + [(kind, target) for kind in (added, parts) for target in ("gpu", "qnn", "openvino")],
)
def test_layers_add_up_to_the_error_of_the_outputs(kind, target):
    model = built(kind)
    quantized, _ = onnxq.quantize(model, X, target=target, effort="fast")
    (found,) = onnxq.validate(model, quantized, X, layers=True).layers
    assert found.layers
    assert found.sum_of_parts == pytest.approx(found.together, abs=0.5)
    assert not found.unmatched
    assert not found.warning
    # What the weights alone do is computed from the same values.
    weighted = [layer for layer in found.layers if layer.op_type in {"Conv", "Gemm"}]
    assert weighted
    assert all(0 < layer.causes.weights <= 100 for layer in weighted)


@pytest.mark.parametrize("kind", KINDS)
def test_with_and_without_qdq_layers_read_the_same(kind):
    model = built(kind)
    quantized, _ = onnxq.quantize(model, X, target="cpu", effort="fast")
    pairing = pair(model, quantized)
    for layer in pairing.layers:
        wanted, found = (
            {info.name for info in cut(each, pairing.tensors, {layer.output}).graph.input}
            for each in (pairing.quantized, pairing.stripped)
        )
        assert found == wanted


@pytest.mark.parametrize("target", ["cpu", "qnn"])
def test_what_ranks_layers_takes_such_a_model(target):
    model = built(several)
    mixed, _ = onnxq.quantize(model, X, target=target, mixed="30%", effort="fast")
    plain, _ = onnxq.quantize(model, X, target=target, effort="fast")
    before, after = (
        onnxq.validate(model, each, X, layers=True).layers[0].together for each in (plain, mixed)
    )
    assert after > before
    _, page = onnxq.report(model, [plain], data=X)
    assert page.validation.layers


def test_a_search_for_layers_to_keep_in_float_takes_such_a_model():
    model = built(several)
    best, _ = onnxq.quantize(
        model, X, target="cpu", max_drop=0.01, validate_data=X, effort="fast"
    )  # fmt: skip
    assert onnxq.validate(model, best, X).rows
