"""Sums of pairs that saturate: against products added up two by two, as kernels pack them."""

import numpy as np
import onnxq
import pytest
from onnxq.api import as_source
from onnxq.emulation.emulate import emulate as emulate_samples
from onnxq.emulation.emulate import machine_of
from onnxq.model.session import Runtime

from support.builder import Builder
from support.cli_case import run
from support.qdq_models import Layer, Scale

LIMITS = -(2**15), 2**15 - 1
INT8 = np.array(0)


def pairs_added(x, w):
    """Bytes (positions, K) times signed bytes (K, outputs): sums, and how many pairs saturated."""
    pad = x.shape[1] % 2
    x, w = np.pad(x, ((0, 0), (0, pad))), np.pad(w, ((0, pad), (0, 0)))
    products = x.astype(np.int64)[:, :, None] * w.astype(np.int64)[None]
    two = products.reshape(len(x), -1, 2, w.shape[1]).sum(axis=2)
    kept = np.clip(two, *LIMITS)
    return kept.sum(axis=1), int(np.count_nonzero(kept != two)), two.size


def columns(x, k, pad, stride, fill):
    """im2col of (N, C, H, W), taps first and channels last: (N·positions, k·k·C), and the size."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    size = [(n - k) // stride + 1 for n in x.shape[2:]]
    taps = [
        x[:, :, i : i + stride * size[0] : stride, j : j + stride * size[1] : stride]
        for i in range(k) for j in range(k)
    ]  # fmt: skip
    stacked = np.stack(taps, axis=1)[:, :, :, : size[0], : size[1]]
    return stacked.transpose(0, 3, 4, 1, 2).reshape(-1, k * k * x.shape[1]), size


def extreme(rng, dtype, shape):
    """Numbers near the ends of a type, whose pairs often saturate."""
    info = np.iinfo(dtype)
    low = rng.integers(info.min, info.min + 40, shape)
    high = rng.integers(info.max - 40, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.4, low, high).astype(dtype)


def run_saturating(layer, data):
    machine = machine_of(layer.model(), saturate=True).open(Runtime())
    (found,), counts = machine.run_counted({"x0": data})
    return found, counts.saturated["layer"], counts.pairs["layer"]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("channels", "outputs", "k", "groups", "stride"),
    [(4, 5, 1, 1, 1), (3, 4, 3, 1, 2), (5, 3, 3, 1, 1), (6, 4, 3, 2, 1), (4, 8, 3, 4, 1)],
)
def test_convolutions_saturate_two_by_two(channels, outputs, k, groups, stride, dtype):
    rng = np.random.default_rng(channels)
    zero = 17
    data = extreme(rng, dtype, (2, channels, 6, 7))
    weight = extreme(rng, np.int8, (outputs, channels // groups, k, k))
    bias = rng.integers(-999, 999, outputs).astype(np.int32)
    layer = Layer()
    one = Scale("int32", np.float32(1), np.array(0))
    inputs = [
        layer.operand(Scale(dtype, np.float32(1), np.array(zero)), data.shape),
        layer.weight("w", weight, Scale("int8", np.float32(1), INT8)),
        layer.weight("b", bias, one),
    ]
    pads = [k // 2] * 4
    out = layer.op("Conv", inputs, "layer", group=groups, strides=[stride] * 2, pads=pads)
    layer.real_output(out)
    found, saturated, pairs = run_saturating(layer, data)
    offset = -int(np.iinfo(dtype).min)
    raw = data.astype(np.int64) + offset
    expected, all_saturated, all_pairs = [], 0, 0
    for group in range(groups):
        part = slice(group * channels // groups, (group + 1) * channels // groups)
        rows, size = columns(raw[:, part], k, k // 2, stride, zero + offset)
        own = weight[group * outputs // groups : (group + 1) * outputs // groups]
        matrix = own.transpose(2, 3, 1, 0).reshape(-1, len(own))
        sums, some, every = pairs_added(rows, matrix)
        sums = sums - (zero + offset) * matrix.astype(np.int64).sum(axis=0)
        expected.append(sums.reshape(2, *size, len(own)).transpose(0, 3, 1, 2))
        all_saturated, all_pairs = all_saturated + some, all_pairs + every
    expected = np.concatenate(expected, axis=1) + bias[:, None, None]
    assert (saturated, pairs) == (all_saturated, all_pairs)
    assert saturated > 0
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("op_type", "trans"), [("Gemm", 1), ("Gemm", 0), ("MatMul", 0)])
def test_matrices_saturate_two_by_two(op_type, trans):
    rng = np.random.default_rng(5)
    data, weight = extreme(rng, np.uint8, (4, 9)), extreme(rng, np.int8, (9, 6))
    layer = Layer()
    stored = np.ascontiguousarray(weight.T) if trans else weight
    inputs = [
        layer.operand(Scale("uint8", np.float32(1), np.array(3)), data.shape),
        layer.weight("w", stored, Scale("int8", np.float32(1), INT8)),
    ]
    attributes = {"transB": trans} if op_type == "Gemm" else {}
    layer.real_output(layer.op(op_type, inputs, "layer", **attributes))
    found, saturated, pairs = run_saturating(layer, data)
    sums, *counts = pairs_added(data, weight)
    assert [saturated, pairs] == counts
    assert np.array_equal(found, sums - 3 * weight.astype(np.int64).sum(axis=0))


@pytest.mark.parametrize(
    ("what", "weights", "dtype"),
    [("7-bit weights", (-63, 64), "int8"), ("unsigned weights", (0, 256), "uint8"),
     ("a depthwise convolution", (-128, 128), "int8")],
)  # fmt: skip
def test_what_cannot_saturate_is_exact(what, weights, dtype):
    rng = np.random.default_rng(1)
    groups = 6 if "depthwise" in what else 1
    data = rng.choice([0, 255], (1, 6, 5, 5)).astype(np.uint8)
    weight = rng.choice([weights[0], weights[1] - 1], (6, 6 // groups, 3, 3)).astype(dtype)
    layer = Layer()
    inputs = [
        layer.operand(Scale("uint8", np.float32(1), np.array(0)), data.shape),
        layer.weight("w", weight, Scale(dtype, np.float32(1), INT8)),
    ]
    layer.real_output(layer.op("Conv", inputs, "layer", group=groups))
    model = layer.model()
    exact = machine_of(model).open(Runtime()).run({"x0": data})[0][0]
    (found,), counts = machine_of(model, saturate=True).open(Runtime()).run_counted({"x0": data})
    assert np.array_equal(found, exact)
    assert counts.saturated.total() == 0


def test_products_of_integers_saturate_too():
    rng = np.random.default_rng(2)
    b = Builder(2, spread=0)
    model = b.model(b.matmul(b.input(16), 8))
    data = {"x": rng.choice([-1.0, 1.0], (8, 16)).astype(np.float32)}
    quantized, _ = onnxq.quantize(model, target="cpu", scheme="dynamic", equalize=False)
    source = as_source(data, quantized)
    found = emulate_samples(quantized, source, saturate=True)
    (each,) = found.saturations.values()
    assert each.pairs == 8 * 8 * 8
    assert 0 < each.saturated < each.pairs
    exact = emulate_samples(quantized, source)
    assert exact.saturations == {}
    (name,) = exact.outputs
    assert not np.array_equal(found[name], exact[name])


def test_the_command_tells_the_share_and_seven_bits_are_safe(tmp_path):
    b = Builder(4, spread=0)
    x = b.op("Relu", b.conv(b.input(8, 6, 6), 16, 3))
    model, data = tmp_path / "model.onnx", tmp_path / "x.npy"
    onnxq.save(b.model(b.conv(x, 4)), model)
    np.save(data, np.random.default_rng(0).choice([-1.0, 1.0], (16, 8, 6, 6)).astype(np.float32))
    shares = {}
    for scheme in ("w8a8", "w7a8"):
        out = tmp_path / f"{scheme}.onnx"
        run("quantize", model, "--data", data, "--target", "cpu", "--scheme", scheme, "-o", out)
        told = run("emulate", out, "--data", data, "--saturate")
        assert "of products saturated in 16 bits" in told.out
        document = run("emulate", out, "--data", data, "--saturate", "--json").json
        assert all(layer["pairs"] > 0 for layer in document["layers"])
        shares[scheme] = sum(layer["saturated_pairs"] for layer in document["layers"])
    assert shares["w8a8"] > 0
    assert shares["w7a8"] == 0
    words = ("--execution", "emulate", "--execution", "saturate", "--json")
    rows = run("validate", model, tmp_path / "w8a8.onnx", "--data", data, *words).json["rows"]
    sqnr = {row["execution"]: row["metrics"]["sqnr"]["value"] for row in rows[1:]}
    assert sqnr["saturate"] < sqnr["emulate"]
