"""The arithmetic of formats, bit for bit that of ONNX Runtime and of onnx's reference."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnxq.formats.granularity import PER_TENSOR, Blocks, PerChannel
from onnxq.formats.parameters import (
    Parameters,
    as_quantized,
    centered,
    dequantize,
    quantize,
)
from onnxq.formats.table import FORMATS, Floating, Uniform
from onnxq.model.session import exact_equal, open_session, run

LIMIT = 1e6
UNIFORM = ("int8", "uint8", "int16", "uint16")
floats = st.floats(-LIMIT, LIMIT, width=32)
# The reference converts x / scale to int32 before it saturates.
scales = st.floats(2.0**-10, 2.0**10, width=32)
arrays = hnp.arrays(np.float32, (3, 4), elements=floats)


def made(name, scale, zero=0, granularity=PER_TENSOR):
    scale = np.asarray(scale, np.float32)
    zero = np.broadcast_to(np.asarray(zero, np.int32), scale.shape)
    return Parameters(FORMATS[name], scale, zero, granularity)


def node_model(op_type, kinds, shapes, output, attributes):
    infos = [
        helper.make_tensor_value_info(name, kind, shapes[name]) for name, kind in kinds.items()
    ]
    node = helper.make_node(op_type, list(kinds), ["y"], **attributes)
    out = [helper.make_tensor_value_info("y", output, shapes["x"])]
    graph = helper.make_graph([node], "g", infos, out)
    opset = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model)
    return model


def both(op_type, x, parameters):
    """Results of ONNX Runtime and of the reference."""
    format_, granularity = parameters.format, parameters.granularity
    inputs = {"x": x, "scale": parameters.scale, "zero": parameters.stored_zero_point}
    float_ = onnx.TensorProto.FLOAT
    quantizes = op_type == "QuantizeLinear"
    kinds = {"x": float_ if quantizes else format_.element, "scale": float_}
    kinds["zero"] = format_.element
    attributes = {}
    if granularity != PER_TENSOR:
        attributes["axis"] = granularity.axis
    if isinstance(granularity, Blocks):
        attributes["block_size"] = granularity.size
    shapes = {name: value.shape for name, value in inputs.items()}
    output = format_.element if quantizes else float_
    model = node_model(op_type, kinds, shapes, output, attributes)
    (first,) = run(open_session(model, optimize=False), None, inputs)
    (second,) = ReferenceEvaluator(model).run(None, inputs)
    return first, np.asarray(second)


def agrees(x, parameters):
    q = quantize(x, parameters)
    assert q.dtype == parameters.format.dtype
    for expected in both("QuantizeLinear", x, parameters):
        assert exact_equal(q, expected)
    for expected in both("DequantizeLinear", q, parameters):
        assert exact_equal(dequantize(q, parameters), expected)
    assert exact_equal(as_quantized(x, parameters), dequantize(q, parameters))


@given(arrays, scales, st.sampled_from(UNIFORM), st.integers(0, 127))
def test_per_tensor(x, scale, name, zero):
    agrees(x, made(name, scale, zero))


@given(
    arrays, st.lists(scales, min_size=4, max_size=4), st.integers(0, 1), st.sampled_from(UNIFORM)
)
def test_per_channel(x, scale, axis, name):
    agrees(x, made(name, scale[: x.shape[axis]], granularity=PerChannel(axis)))


@given(
    hnp.arrays(np.float32, (3, 4), elements=floats), hnp.arrays(np.float32, (3, 2), elements=scales)
)
def test_by_block(x, scale):
    agrees(x, made("int8", scale, granularity=Blocks(1, 2)))


def test_the_last_block_may_be_shorter():
    parameters = made("int8", [[1.0, 2.0], [4.0, 8.0]], granularity=Blocks(1, 3))
    x = np.full((2, 4), 8, np.float32)
    assert quantize(x, parameters).tolist() == [[8, 8, 8, 4], [2, 2, 2, 1]]
    assert dequantize(quantize(x, parameters), parameters).tolist() == x.tolist()


def test_ties_go_to_even():
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert quantize(x, made("int8", 1)).tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize(
    ("name", "zero", "expected"),
    [
        ("int8", 0, [-128, -128, 127, 127]),
        ("uint8", 7, [0, 0, 207, 255]),
        ("uint8", 128, [0, 0, 255, 255]),
        ("int16", 0, [-32768, -200, 200, 32767]),
        ("uint16", 100, [0, 0, 300, 65535]),
    ],
)
def test_activations_saturate_where_quantize_linear_does(name, zero, expected):
    x = np.array([-1e30, -200, 200, 1e30], np.float32)
    parameters = made(name, 1, zero)
    assert quantize(x, parameters).tolist() == expected
    low, high = parameters.range
    assert (low, high) == (expected[0] - zero, expected[-1] - zero)


def test_a_grid_in_use_may_be_smaller_than_the_format():
    """Symmetric weights leave out the lowest number, so that w and −w cost the same."""
    narrow = Parameters(
        FORMATS["int8"], np.array(1, np.float32), np.array(0, np.int32), PER_TENSOR,
        Uniform(-127, 127),
    )  # fmt: skip
    x = np.array([-1e30, -127.6, 127.6], np.float32)
    assert quantize(x, narrow).tolist() == [-127, -127, 127]
    assert narrow.range == (-127.0, 127.0)


@pytest.mark.parametrize(
    "name", [n for n, row in FORMATS.items() if row.bits == 8 and isinstance(row.grid, Floating)]
)
def test_floating_formats_round_and_saturate_as_onnx_runtime_does(name, rng):
    x = (rng.standard_normal((64, 16)) * np.exp2(rng.integers(-12, 12, (64, 16)))).astype(
        np.float32
    )
    parameters = made(name, 0.25)
    constants = {"scale": parameters.scale, "zero": parameters.stored_zero_point}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, x.shape) for n in "xy")
    graph = helper.make_graph(
        nodes, "g", [next(ends)], [next(ends)],
        [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (restored,) = run(open_session(model, optimize=False), None, {"x": x})
    assert exact_equal(dequantize(quantize(x, parameters), parameters), restored)


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
def test_narrow_integers(name):
    grid = FORMATS[name].grid
    x = np.array([-100, -1, 0, 1, 100], np.float32)
    q = quantize(x, made(name, 1))
    assert q.dtype == FORMATS[name].dtype
    assert q.astype(np.int32).tolist() == np.clip(x, grid.lowest, grid.highest).tolist()
    assert centered(q, made(name, 1, 1)).tolist() == (q.astype(np.int32) - 1).tolist()


def test_biases_are_exact_beyond_24_bits():
    x = np.array([2**30 + 1, -(2**31), 1e30], np.float64)
    parameters = Parameters(
        FORMATS["int32"], np.array(1, np.float32), np.array(0, np.int32), PER_TENSOR,
        Uniform(1 - 2**31, 2**31 - 1),
    )  # fmt: skip
    assert quantize(x, parameters).tolist() == [2**30 + 1, 1 - 2**31, 2**31 - 1]
