"""Tensors that share one scale, and those that are better off with their own."""

import json

import numpy as np
import onnxq
import pytest
from onnxq.model.status import Float, Quantized
from onnxq.quantization.details import METADATA_KEY
from onnxq.report.quantization import summary, uneven_text

from support.builder import Builder

HALVES = ("Split", "Slice", "Gather")


def halves(ratio, op_type="Split", *, meet=False):
    """A convolution's channels taken apart by half, the second half's values `ratio` larger."""
    b = Builder(0, spread=0)
    sizes = np.repeat([1.0, ratio], 8)[:, None, None, None]
    weight = b.const(b.random(16, 3, 3, 3, scale=0.2) * sizes)
    # A Sigmoid keeps equalization from evening the channels out.
    x = b.conv(b.input(3, 8, 8), 16, 3, bias=False, weight=weight)
    x = b.op("Mul", x, b.op("Sigmoid", x), name="whole")
    shape = (8, 8, 8)
    if op_type == "Split":
        low, high = b.op("Split", x, b.ints(8, 8), outputs=2, shapes=[shape] * 2, axis=1)
    elif op_type == "Slice":
        low, high = (b.op("Slice", x, b.ints(i), b.ints(i + 8), b.ints(1), shape=shape)
                     for i in (0, 8))  # fmt: skip
    else:
        low, high = (b.op("Gather", x, b.ints(*range(i, i + 8)), shape=shape, axis=1)
                     for i in (0, 8))  # fmt: skip
    ends = [b.conv(part, 4, 3, name=f"y{i}") for i, part in enumerate((low, high))]
    if meet:
        ends.append(b.conv(b.op("Concat", low, high, shape=(16, 8, 8), axis=1), 4, 3))
    return b.model(*ends), (low, high)


def quantized(model, target, **options):
    data = {"x": np.random.default_rng(1).standard_normal((64, 3, 8, 8), np.float32)}
    return onnxq.quantize(model, data, target=target, **options)


def status(result, op_type):
    return [
        result.plan.nodes[node.name]
        for node in result.prepared.model.proto.graph.node
        if node.op_type == op_type
    ]


@pytest.mark.parametrize("op_type", HALVES)
def test_parts_of_other_ranges_have_scales_of_their_own_on_gpu(op_type):
    model, parts = halves(8, op_type)
    _, result = quantized(model, "gpu")
    low, high = (float(result.plan.activations[name].parameters.scale) for name in parts)
    assert high > 4 * low
    # The other half has the range of the whole, and may move as integers where it is a node.
    assert isinstance(status(result, op_type)[0], Float)
    assert result.quantized_sqnr > 30
    assert result.uneven == ()


@pytest.mark.parametrize("op_type", HALVES)
def test_parts_of_one_range_move_as_integers(op_type):
    _, result = quantized(halves(1, op_type)[0], "gpu")
    assert all(isinstance(each, Quantized) for each in status(result, op_type))


def test_parts_that_meet_again_share_a_scale_whatever_their_split_does():
    # Channel factors would put a Mul in float behind the Concat.
    _, result = quantized(halves(8, meet=True)[0], "gpu", equalize=False)
    assert all(isinstance(each, Quantized) for each in status(result, "Split"))


def test_it_is_said_where_one_scale_serves_ranges_far_apart():
    model, (low, high) = halves(30)
    made, result = quantized(model, "cpu")
    (worst, *others) = result.uneven
    assert (worst.tensor, others) == (low, [])
    assert 15 < worst.ratio < 60
    (line,) = [text for text in summary(result) if text.startswith("one scale for")]
    assert repr(low) in line
    assert f"whose range is {worst.ratio:,.0f} times its own" in line
    record = json.loads(made.metadata[METADATA_KEY])["uneven_scales"]
    assert [each["tensor"] for each in record] == [low]
    assert worst.shares_with in {"whole", high}


def test_few_are_named_and_the_rest_counted():
    _, result = quantized(halves(30)[0], "cpu")
    assert uneven_text(result.uneven * 5).endswith("; and 2 other tensors, all in --json")


def test_nothing_is_said_of_ranges_alike():
    _, result = quantized(halves(2)[0], "cpu")
    assert result.uneven == ()
    assert not any(text.startswith("one scale for") for text in summary(result))
