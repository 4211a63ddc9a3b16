"""The arithmetic of int8, bit for bit that of ONNX Runtime and of onnx's reference."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxq.formats.parameters import (
    Parameters,
    activation_parameters,
    dequantize,
    quantize,
    quantize_weight,
    weight_parameters,
)
from onnxq.model.session import exact_equal, open_session, run

LIMIT = 1e6


def node_model(op_type, inputs, axis, output):
    kinds = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
    infos = [
        helper.make_tensor_value_info(name, kinds[str(value.dtype)], value.shape)
        for name, value in inputs.items()
    ]
    attributes = {} if axis is None else {"axis": axis}
    node = helper.make_node(op_type, list(inputs), ["y"], **attributes)
    out = [helper.make_tensor_value_info("y", kinds[output], inputs["x"].shape)]
    graph = helper.make_graph([node], "g", infos, out)
    opset = [helper.make_opsetid("", 19)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    return model


def both(op_type, inputs, axis, output):
    """Results of ONNX Runtime and of the reference."""
    model = node_model(op_type, inputs, axis, output)
    (first,) = run(open_session(model, optimize=False), None, inputs)
    (second,) = ReferenceEvaluator(model).run(None, inputs)
    return first, np.asarray(second)


floats = st.floats(-LIMIT, LIMIT, width=32)
# The reference converts x / scale to int32 before it saturates.
scales = st.floats(2.0**-10, 2.0**10, width=32)
arrays = hnp.arrays(np.float32, (3, 4), elements=floats)


@given(arrays, scales, st.sampled_from(["int8", "uint8"]), st.integers(0, 127))
def test_per_tensor(x, scale, dtype, zero):
    parameters = Parameters(np.array(scale, np.float32), np.array(zero, dtype))
    q = quantize(x, parameters)
    inputs = {"x": x, "scale": parameters.scale, "zero": parameters.zero_point}
    for expected in both("QuantizeLinear", inputs, None, dtype):
        assert exact_equal(q, expected)
    inputs["x"] = q
    for expected in both("DequantizeLinear", inputs, None, "float32"):
        assert exact_equal(dequantize(q, parameters), expected)


@given(arrays, st.lists(scales, min_size=4, max_size=4), st.integers(0, 1))
def test_per_channel(x, scale, axis):
    scale = np.array(scale[: x.shape[axis]], np.float32)
    parameters = Parameters(scale, np.zeros(scale.shape, np.int8), axis)
    q = quantize(x, parameters)
    inputs = {"x": x, "scale": scale, "zero": parameters.zero_point}
    for expected in both("QuantizeLinear", inputs, axis, "int8"):
        assert exact_equal(q, expected)
    inputs["x"] = q
    for expected in both("DequantizeLinear", inputs, axis, "float32"):
        assert exact_equal(dequantize(q, parameters), expected)


def test_ties_go_to_even():
    one = Parameters(np.float32(1), np.array(0, np.int8))
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert quantize(x, one).tolist() == [-2, -2, 0, 0, 2, 2]
    assert quantize_weight(x, one).tolist() == [-2, -2, 0, 0, 2, 2]


def test_saturation():
    x = np.array([-1e30, -200, 200, 1e30], np.float32)
    assert quantize(x, Parameters(np.float32(1), np.array(0, np.int8))).tolist() == [
        -128, -128, 127, 127,
    ]  # fmt: skip
    assert quantize(x, Parameters(np.float32(1), np.array(7, np.uint8))).tolist() == [
        0,
        0,
        207,
        255,
    ]
    assert quantize_weight(x, weight_parameters(np.array([127.0]), axis=None)).tolist() == [
        -127, -127, 127, 127,
    ]  # fmt: skip


@given(floats, floats, st.booleans(), st.booleans())
def test_activation_parameters_cover_their_range(a, b, symmetric, power_of_two):
    low, high = min(a, b), max(a, b)
    dtype = "int8" if symmetric else "uint8"
    p = activation_parameters(
        low, high, dtype=dtype, symmetric=symmetric, power_of_two=power_of_two
    )
    assert p.scale > 0
    assert float(dequantize(quantize(np.zeros(1), p), p)[0]) == 0
    x = np.array([low, high], np.float32)
    # The zero point is whole, so either end may fall half a step outside.
    assert np.all(np.abs(dequantize(quantize(x, p), p) - x) <= float(p.scale) * 1.001)
    if symmetric:
        assert int(p.zero_point) == 0
    if power_of_two:
        assert np.frexp(p.scale)[0] == 0.5


@given(hnp.arrays(np.float64, 5, elements=st.floats(0, LIMIT)), st.booleans())
def test_weight_parameters_cover_their_channels(magnitude, power_of_two):
    p = weight_parameters(magnitude, axis=0, power_of_two=power_of_two)
    assert np.all(np.isfinite(p.scale))
    assert np.all(p.scale > 0)
    assert np.all(magnitude <= 127 * p.scale.astype(np.float64) * (1 + 1e-6))


def test_what_is_all_zero_gets_an_ordinary_scale():
    p = activation_parameters(0.0, 0.0, dtype="uint8", symmetric=False)
    assert float(p.scale) == pytest.approx(1 / 255)
    p = weight_parameters(np.array([0.0, 1.27]), axis=0)
    assert p.scale.tolist() == pytest.approx([0.01, 0.01])
