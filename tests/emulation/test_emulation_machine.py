"""The integer machine is exact: against int64 arithmetic and onnx's reference evaluator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxq.emulation.layers import Accumulation, AsWritten, Average, Fused, Product
from onnxq.formats.accumulators import Accumulator
from onnxq.quantization.plan import Float

from support.qdq_models import (
    Layer,
    Scale,
    along,
    convolution,
    emulate,
    factor,
    quantize,
    reference,
    requantize,
    transposed_convolution,
)

INT32 = Accumulator(32)

EXAMPLES = settings(max_examples=50)

dtypes = st.sampled_from(["int8", "uint8"])
wide_dtypes = st.sampled_from(["int8", "uint8", "int16", "uint16"])
seeds = st.integers(0, 2**16)


@st.composite
def scales(draw, channels=1, axis=None):
    """Per tensor, or per channel along an axis."""
    # Activations have 8 or 16 bits, weights 8.
    dtype = draw(wide_dtypes if axis is None else dtypes)
    info = np.iinfo(dtype)
    zero = draw(st.sampled_from([info.min, 0, info.max]) | st.integers(info.min, info.max))
    if axis is None or draw(st.booleans()):
        return Scale(dtype, np.float32(draw(st.floats(2**-10, 4, width=32))), np.array(zero))
    rng = np.random.default_rng(draw(seeds))
    values = rng.uniform(2**-10, 4, channels).astype(np.float32)
    zeros = rng.integers(info.min, info.max + 1, channels) * draw(st.sampled_from([0, 1]))
    return Scale(dtype, values, zeros, axis)


def values(rng, scale, shape):
    """Integers of the type, its extremes often among them."""
    low, high = scale.limits
    drawn = rng.integers(low, high + 1, shape)
    extreme = rng.random(shape) < 0.3
    return np.where(extreme, rng.choice([low, high], shape), drawn).astype(scale.dtype)


def shifted(integers, scale):
    zero = along(scale.zero, integers.ndim, scale.axis or 0)
    return integers.astype(np.int64) - zero


ACTIVATIONS = {
    None: (-np.inf, np.inf),
    "Relu": (0.0, np.inf),
    "Clip": (-1.5, 2.25),
}


@st.composite
def tails(draw):
    """How a layer ends: bias, fused activation, zero point and spread of the result."""
    return {
        "bias": draw(st.sampled_from([None, "int32", "large int32", "float"])),
        "activation": draw(st.sampled_from(list(ACTIVATIONS))),
        "y": draw(scales()),
        "fill": draw(st.sampled_from([0.3, 1, 3])),
        "quantized": draw(st.booleans()) or draw(st.booleans()),
    }


def check_layer(rng, op_type, attributes, x, shape, w, integers, total, outputs, tail, **kind):
    """Emulate one weighted layer and compare it with the definition."""
    axis = kind.get("output_axis", 1)
    data = values(rng, x, shape)
    sums = total(shifted(data, x), shifted(integers, w))
    layer = Layer()
    inputs = [layer.operand(x, shape), layer.weight("w", integers, w)]
    step = factor(x, w, channels=outputs)
    bias = tail["bias"] if kind.get("takes_bias", True) else None
    real = None
    if bias in {"int32", "large int32"}:
        magnitude = 2**28 if bias == "large int32" else 2**12
        vector = rng.integers(-magnitude, magnitude, outputs).astype(np.int32)
        per_output = Scale("int32", step, np.zeros(step.shape), 0)
        if not step.ndim:
            per_output.axis = None
        inputs.append(layer.weight("b", vector, per_output))
        sums = sums + along(vector.astype(np.int64), sums.ndim, axis)
    elif bias == "float":
        real = (rng.standard_normal(outputs) * float(step.max()) * 300).astype(np.float32)
        inputs.append(layer.const("b", real))
    result = layer.op(op_type, inputs, "layer", **attributes)
    spread = float(np.std(sums * along(step, sums.ndim, axis))) or 1.0
    y = Scale(tail["y"].dtype, np.float32(spread * tail["fill"] / 60), tail["y"].zero)
    low, high = ACTIVATIONS[tail["activation"]]
    if tail["activation"]:
        bounds = [layer.const("low", np.float32(low)), layer.const("high", np.float32(high))]
        extra = bounds if tail["activation"] == "Clip" else []
        result = layer.op(tail["activation"], [result, *extra], "activation")
    if tail["quantized"]:
        layer.quantize(result, y)
    else:
        layer.real_output(result)
    found, plan, overflows = emulate(layer.model(), data)
    assert overflows == {}
    entry = plan["layer"]
    assert isinstance(entry, Accumulation)
    assert entry.reach.largest >= np.abs(sums).max(initial=0)
    if tail["quantized"] and bias != "float":
        expected = requantize(
            sums, along(factor(x, w, y, channels=outputs), sums.ndim, axis), y, low, high
        )
        assert isinstance(plan.get("activation", Fused("layer")), Fused)
    else:
        expected = sums.astype(np.float32) * along(step, sums.ndim, axis)
        if real is not None:
            expected = expected + along(real, sums.ndim, axis)
        expected = np.clip(expected, np.float32(low), np.float32(high))
        if tail["quantized"]:
            expected = quantize(expected, y)
    np.testing.assert_array_equal(found, expected, strict=True)
    return layer, data, entry, y


@st.composite
def windows(draw, axes, sizes, *, transposed=False):
    """Kernel, strides, pads and dilations that leave something to compute."""
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    strides = [draw(st.integers(1, 3)) for _ in range(axes)]
    pads = [draw(st.integers(0, 2)) for _ in range(2 * axes)]
    for i in range(axes):
        reach = (kernel[i] - 1) * dilations[i] + 1
        if transposed:
            room = (sizes[i] - 1) * strides[i] + reach - 1
            pads[i] = min(pads[i], room)
            pads[axes + i] = min(pads[axes + i], room - pads[i])
        elif sizes[i] + pads[i] + pads[axes + i] < reach:
            kernel[i] = 1
    return {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}


@EXAMPLES
@given(st.data())
def test_convolutions_follow_the_formula(data):
    draw = data.draw
    rng = np.random.default_rng(draw(seeds))
    axes = draw(st.integers(1, 2))
    sizes = [draw(st.integers(1, 6)) for _ in range(axes)]
    group = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = draw(st.sampled_from([1, 2, 5])), draw(st.integers(1, 3)) * group
    x, w = draw(scales()), draw(scales(outputs, 0))
    attributes = draw(windows(axes, sizes))
    integers = values(rng, w, (outputs, inputs, *attributes["kernel_shape"]))
    arithmetic = {k: attributes[k] for k in ("strides", "pads", "dilations")}
    layer, x0, entry, y = check_layer(
        rng, "Conv", attributes | {"group": group}, x, (2, inputs * group, *sizes), w, integers,
        lambda a, b: convolution(a, b, group=group, **arithmetic), outputs, draw(tails()),
    )  # fmt: skip
    if entry.requantization is None or w.axis is not None:
        return
    # The same in onnx's own integer operators, run by its reference evaluator.
    bias = entry.bias if entry.bias is not None else np.zeros(outputs, np.int32)
    steps = factor(x, w, y)
    nodes = [
        helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["c"], group=group, **attributes),
        helper.make_node("Add", ["c", "b"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "factor"], ["scaled"]),
        helper.make_node("QuantizeLinear", ["scaled", "one", "yz"], ["q"]),
    ]
    expected = reference(
        nodes,
        {
            "w": integers, "xz": np.asarray(x.zero, x.dtype), "wz": np.asarray(w.zero, w.dtype),
            "b": along(bias, axes + 2, 1), "factor": steps, "one": np.float32(1),
            "yz": np.asarray(y.zero, y.dtype),
        },
        {"x": x0}, "q",
    )  # fmt: skip
    limits = entry.requantization.low, entry.requantization.high
    found, _, _ = emulate(layer.model(), x0)
    np.testing.assert_array_equal(found, np.clip(expected, *limits), strict=True)


@EXAMPLES
@given(st.data())
def test_transposed_convolutions_follow_the_formula(data):
    draw = data.draw
    rng = np.random.default_rng(draw(seeds))
    sizes = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    group = draw(st.sampled_from([1, 2, 3]))
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x, w = draw(scales()), draw(scales(outputs, 1))
    attributes = draw(windows(2, sizes, transposed=True))
    integers = values(rng, w, (inputs * group, outputs, *attributes["kernel_shape"]))
    arithmetic = {k: attributes[k] for k in ("strides", "pads", "dilations")}
    check_layer(
        rng, "ConvTranspose", attributes | {"group": group}, x, (2, inputs * group, *sizes), w,
        integers, lambda a, b: transposed_convolution(a, b, group=group, **arithmetic),
        outputs * group, draw(tails()),
    )  # fmt: skip


@EXAMPLES
@given(st.data())
def test_gemms_follow_the_formula(data):
    draw = data.draw
    rng = np.random.default_rng(draw(seeds))
    inputs, outputs, flip = draw(st.integers(1, 40)), draw(st.integers(1, 5)), draw(st.booleans())
    x, w = draw(scales()), draw(scales(outputs, 0 if flip else 1))
    integers = values(rng, w, (outputs, inputs) if flip else (inputs, outputs))
    check_layer(
        rng, "Gemm", {"transB": int(flip)}, x, (3, inputs), w, integers,
        lambda a, b: a @ (b.T if flip else b), outputs, draw(tails()),
    )  # fmt: skip


@EXAMPLES
@given(st.data())
def test_matmuls_follow_the_formula(data):
    draw = data.draw
    rng = np.random.default_rng(draw(seeds))
    inputs, outputs = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    x, w = draw(scales()), draw(scales(outputs, 1))
    check_layer(
        rng, "MatMul", {}, x, (2, 3, inputs), w, values(rng, w, (inputs, outputs)), np.matmul,
        outputs, draw(tails()), output_axis=-1, takes_bias=False,
    )  # fmt: skip


@EXAMPLES
@given(scales(), scales(), scales(), st.integers(1, 2000), st.booleans(), seeds)
def test_matmuls_of_two_activations_follow_the_formula(a, b, y, terms, known, seed):
    rng = np.random.default_rng(seed)
    first, second = values(rng, a, (2, 3, terms)), values(rng, b, (2, terms, 4))
    sums = shifted(first, a) @ shifted(second, b)
    y.scale = np.float32(max(np.std(sums), 1) * a.scale * b.scale / 40)
    layer = Layer()
    size = terms if known else "L"
    real = layer.op(
        "MatMul", [layer.operand(a, (2, 3, size)), layer.operand(b, (2, size, 4))], "layer"
    )
    layer.quantize(real, y)
    found, plan, overflows = emulate(layer.model(), first, second)
    assert plan["layer"].reach.fits(plan["layer"].accumulator) == known
    assert overflows == {}
    np.testing.assert_array_equal(found, requantize(sums, factor(a, b, y), y), strict=True)


@EXAMPLES
@given(scales(), scales(), scales(), st.sampled_from(list(ACTIVATIONS)), seeds)
def test_products_follow_the_formula(a, b, y, activation, seed):
    rng = np.random.default_rng(seed)
    first, second = values(rng, a, (2, 3, 4)), values(rng, b, (2, 3, 1))
    products = shifted(first, a) * shifted(second, b)
    y.scale = np.float32(max(np.std(products), 1) * a.scale * b.scale / 40)
    layer = Layer()
    real = layer.op("Mul", [layer.operand(a, (2, 3, 4)), layer.operand(b, (2, 3, 1))], "layer")
    low, high = ACTIVATIONS[activation]
    if activation:
        extra = [layer.const("low", np.float32(low)), layer.const("high", np.float32(high))]
        real = layer.op(activation, [real, *(extra if activation == "Clip" else [])], "activation")
    layer.quantize(real, y)
    found, plan, _ = emulate(layer.model(), first, second)
    assert isinstance(plan["layer"], Product)
    expected = requantize(products, factor(a, b, y), y, low, high)
    np.testing.assert_array_equal(found, expected, strict=True)


@EXAMPLES
@given(st.data())
def test_averages_follow_the_formula(data):
    draw = data.draw
    rng = np.random.default_rng(draw(seeds))
    x, y = draw(scales()), draw(scales())
    y.scale = np.float32(x.scale * draw(st.floats(0.2, 2)))
    sizes = [draw(st.integers(3, 7)), draw(st.integers(3, 7))]
    attributes = draw(windows(2, sizes))
    kernel = attributes["kernel_shape"]
    attributes["pads"] = [
        min(p, k - 1) for p, k in zip(attributes["pads"], kernel * 2, strict=True)
    ]
    del attributes["dilations"]
    whole, counts_pads = draw(st.booleans()), draw(st.booleans())
    ceil = draw(st.booleans()) and not counts_pads
    integers = values(rng, x, (2, 3, *sizes))
    layer = Layer()
    named = draw(st.booleans()) and not ceil
    operand = layer.operand(x, (2, 3, *(["H", "W"] if named else sizes)))
    if whole:
        real = layer.op("GlobalAveragePool", [operand], "layer")
        sums = shifted(integers, x).sum(axis=(2, 3), keepdims=True)
        counts = np.full_like(sums, np.prod(sizes))
    else:
        more = {"count_include_pad": int(counts_pads), "ceil_mode": int(ceil)}
        real = layer.op("AveragePool", [operand], "layer", **attributes, **more)
        pads, strides = list(attributes["pads"]), attributes["strides"]
        for i in range(2 * ceil):
            room = sizes[i] + pads[i] + pads[2 + i] - kernel[i]
            steps = -(-room // strides[i])
            # A window that would begin in the pads behind is none.
            steps -= steps * strides[i] >= sizes[i] + pads[i]
            pads[2 + i] += max(steps * strides[i] - room, 0)
        ones = np.ones((3, 1, *kernel), np.int64)
        arithmetic = {"group": 3, "strides": strides, "pads": pads, "dilations": [1, 1]}
        sums = convolution(shifted(integers, x), ones, **arithmetic)
        counts = convolution(np.ones((2, 3, *sizes), np.int64), ones, **arithmetic)
        if counts_pads:
            counts = np.full_like(counts, np.prod(kernel))
    layer.quantize(real, y)
    found, plan, overflows = emulate(layer.model(), integers)
    assert isinstance(plan["layer"], Average)
    assert overflows == {}
    steps = np.float32(y.scale) * counts.astype(np.float32)
    expected = requantize(sums, np.float32(x.scale) / steps, y)
    np.testing.assert_array_equal(found, expected, strict=True)


@EXAMPLES
@given(scales(), scales(), scales(), st.sampled_from(["Add", "Sub", "Max"]), st.booleans(), seeds)
def test_values_of_two_operands_are_rounded_once(a, b, y, op_type, relu, seed):
    rng = np.random.default_rng(seed)
    first, second = values(rng, a, (2, 5)), values(rng, b, (2, 5))
    y.scale = np.float32(max(a.scale, b.scale) * 1.5)
    layer = Layer()
    real = layer.op(op_type, [layer.operand(a, (2, 5)), layer.operand(b, (2, 5))], "layer")
    if relu:
        real = layer.op("Relu", [real], "activation")
    layer.quantize(real, y)
    found, plan, _ = emulate(layer.model(), first, second)
    assert isinstance(plan["layer"], AsWritten)
    reals = [shifted(q, s).astype(np.float32) * s.scale for q, s in ((first, a), (second, b))]
    result = {"Add": np.add, "Sub": np.subtract, "Max": np.maximum}[op_type](*reals)
    expected = quantize(np.maximum(result, 0) if relu else result, y)
    np.testing.assert_array_equal(found, expected, strict=True)


# --- exactness beyond 24 bits, and overflow --------------------------------------------------


def wide_layer(op_type, w_shape, x_shape, *, magnitude=127, **attributes):
    """Weights of one sign that meet inputs of one sign: sums as large as they get."""
    rng = np.random.default_rng(0)
    x = Scale("uint8", np.float32(0.01), np.array(0))
    w = Scale("int8", np.float32(0.01), np.array(0))
    data = rng.integers(200, 256, x_shape).astype(np.uint8)
    integers = rng.integers(magnitude - 9, magnitude + 1, w_shape).astype(np.int8)
    layer = Layer()
    inputs = [layer.operand(x, x_shape), layer.weight("w", integers, w)]
    layer.real_output(layer.op(op_type, inputs, "layer", **attributes))
    return layer, data, integers, np.float32(x.scale) * np.float32(w.scale)


@pytest.mark.parametrize("group", [1, 2])
def test_sums_beyond_24_bits_are_split_and_stay_exact(group):
    layer, data, w, step = wide_layer(
        "Conv", (4, 600, 3, 3), (1, 600 * group, 4, 4), pads=[1] * 4, group=group
    )
    sums = convolution(
        data.astype(np.int64), w.astype(np.int64), group=group, strides=[1, 1], pads=[1] * 4,
        dilations=[1, 1],
    )  # fmt: skip
    assert sums.max() > 2**27
    found, plan, overflows = emulate(layer.model(), data)
    assert len(plan["layer"].parts) > 8
    assert plan["layer"].reach.fits(INT32)
    assert overflows == {}
    np.testing.assert_array_equal(found, sums.astype(np.float32) * step)


def test_a_float32_kernel_alone_would_not_be_exact():
    """What the split is for: the float model's own sums are off."""
    layer, data, w, step = wide_layer("MatMul", (5400, 4), (2, 5400))
    sums = data.astype(np.int64) @ w.astype(np.int64)
    found, _, _ = emulate(layer.model(), data)
    np.testing.assert_array_equal(found, sums.astype(np.float32) * step)
    one_kernel = data.astype(np.float32) @ w.astype(np.float32)
    assert (one_kernel != sums).any()


def test_overflow_of_int32_is_counted_and_wraps():
    layer, data, w, step = wide_layer("MatMul", (80_000, 2), (3, 80_000))
    data[0] = 100
    sums = data.astype(np.int64) @ w.astype(np.int64)
    assert (sums > 2**31).sum() == 4
    found, plan, overflows = emulate(layer.model(), data)
    assert not plan["layer"].reach.fits(INT32)
    assert overflows == {"layer": 4}
    wrapped = sums.astype(np.int32)
    np.testing.assert_array_equal(found, wrapped.astype(np.float32) * step)


def test_sums_that_might_overflow_but_do_not_are_not_reported():
    layer, data, w, step = wide_layer("MatMul", (80_000, 2), (3, 80_000))
    data[:] = 100
    found, plan, overflows = emulate(layer.model(), data)
    assert not plan["layer"].reach.fits(INT32)
    assert overflows == {}
    sums = data.astype(np.int64) @ w.astype(np.int64)
    np.testing.assert_array_equal(found, sums.astype(np.float32) * step)


def test_a_bias_near_the_end_of_int32_is_measured():
    x = Scale("uint8", np.float32(0.5), np.array(0))
    w = Scale("int8", np.float32(0.5), np.array(0))
    data = np.array([[0], [255]], np.uint8)
    layer = Layer()
    inputs = [
        layer.operand(x, (2, 1)), layer.weight("w", np.array([[127]], np.int8), w),
        layer.weight("b", np.array([2**31 - 100], np.int32),
                     Scale("int32", np.float32(0.25), np.array(0))),
    ]  # fmt: skip
    layer.real_output(layer.op("Gemm", inputs, "layer"))
    found, _, overflows = emulate(layer.model(), data)
    assert overflows == {"layer": 1}
    wrapped = np.array([[2**31 - 100], [2**31 - 100 + 255 * 127]]).astype(np.int32)
    np.testing.assert_array_equal(found, wrapped.astype(np.float32) * np.float32(0.25))


# --- what stays in float, and why ------------------------------------------------------------

X, W, Y = (Scale(d, np.float32(0.1), np.array(0)) for d in ("uint8", "int8", "uint8"))


def reason(build):
    """The reason that a layer is not computed in integers."""
    layer = Layer()
    inputs = [layer.operand(X, (1, 4, 5, 5)), *build(layer)]
    attributes = inputs.pop() if isinstance(inputs[-1], dict) else {}
    op_type = attributes.pop("op", "Conv")
    layer.quantize(layer.op(op_type, inputs, "layer", **attributes), Y)
    data = np.full((1, 4, 5, 5), 7, np.uint8)
    found, plan, _ = emulate(layer.model(attributes.pop("opset", 17)), data)
    assert found.shape[0] == 1
    assert isinstance(plan["layer"], Float)
    return plan["layer"].reason


def test_reasons_name_what_is_missing():
    rng = np.random.default_rng(0)
    w = rng.integers(-9, 9, (4, 4, 1, 1)).astype(np.int8)

    def by_input_channel(layer):
        return [layer.weight("w", w, Scale("int8", np.full(4, 0.1), np.zeros(4), 1))]

    def float_weight(layer):
        return [layer.const("w", w.astype(np.float32))]

    def wide_weight(layer):
        return [layer.weight("w", w.astype(np.int32), Scale("int32", np.float32(1), np.array(0)))]

    def no_row(layer):
        return [{"op": "Selu"}]

    def no_form(layer):
        return [{"op": "Softmax"}]

    assert "axis 1" in reason(by_input_channel)
    assert reason(float_weight) == "'w' is not quantized"
    assert reason(wide_weight) == "'w_real' is int32, of more than 16 bits"
    assert reason(no_row) == "Selu has no row in the operator table"
    assert reason(no_form) == "Softmax has no integer form"


def test_a_bias_in_other_steps_is_a_float_bias():
    rng = np.random.default_rng(0)
    layer = Layer()
    w = rng.integers(-9, 9, (4, 4, 1, 1)).astype(np.int8)
    bias = rng.integers(-99, 99, 4).astype(np.int32)
    inputs = [
        layer.operand(X, (1, 4, 5, 5)), layer.weight("w", w, W),
        layer.weight("b", bias, Scale("int32", np.float32(0.3), np.array(0))),
    ]  # fmt: skip
    layer.real_output(layer.op("Conv", inputs, "layer"))
    data = rng.integers(0, 255, (1, 4, 5, 5)).astype(np.uint8)
    found, plan, _ = emulate(layer.model(), data)
    assert plan["layer"].bias is None
    sums = np.einsum("oi,nihw->nohw", w[:, :, 0, 0].astype(np.int64), data.astype(np.int64))
    real = (bias.astype(np.float32) * np.float32(0.3)).reshape(-1, 1, 1)
    step = np.float32(0.1) * np.float32(0.1)
    np.testing.assert_array_equal(found, sums.astype(np.float32) * step + real)


def test_float16_results_are_rounded_last():
    """A model whose rest is float16: scales, bias and results are float16, sums are not."""
    rng = np.random.default_rng(0)
    layer = Layer()
    w = rng.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8)
    half = [layer.const(f"{name}_scale", np.float16(0.0123)) for name in ("x", "w")]
    real = layer.operand(X, (2, 4, 5, 5))
    layer.nodes.clear()
    zero = layer.const("x_zero", np.uint8(3))
    layer.op("DequantizeLinear", ["x0", half[0], zero], real)
    layer.op(
        "DequantizeLinear", [layer.const("w", w), half[1], layer.const("wz", np.int8(0))], "wr"
    )
    bias = rng.standard_normal(4).astype(np.float16)
    result = layer.op("Conv", [real, "wr", layer.const("b", bias)], "layer", pads=[1] * 4)
    layer.outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT16, None))
    data = rng.integers(0, 256, (2, 4, 5, 5)).astype(np.uint8)
    found, plan, _ = emulate(layer.model(opset=21), data)
    assert isinstance(plan["layer"], Accumulation)
    sums = convolution(
        data.astype(np.int64) - 3, w.astype(np.int64), strides=[1, 1], pads=[1] * 4,
        dilations=[1, 1],
    )  # fmt: skip
    step = np.float32(np.float16(0.0123)) * np.float32(np.float16(0.0123))
    expected = sums.astype(np.float32) * step + bias.astype(np.float32).reshape(-1, 1, 1)
    np.testing.assert_array_equal(found, expected.astype(np.float16), strict=True)


def test_weights_behind_quantize_and_dequantize_are_integers_too():
    """How NNCF and PyTorch's exporter write weights: Q/DQ on a float constant."""
    rng = np.random.default_rng(0)
    layer = Layer()
    real = rng.standard_normal((3, 4, 1, 1)).astype(np.float32)
    x = layer.operand(X, (1, 4, 5, 5))
    parameters = layer.parameters("w", W)
    layer.op("QuantizeLinear", [layer.const("w", real), *parameters], "wq")
    layer.op("DequantizeLinear", ["wq", *parameters], "wd")
    layer.quantize(layer.op("Conv", [x, "wd"], "layer"), Y)
    data = rng.integers(0, 255, (1, 4, 5, 5)).astype(np.uint8)
    found, plan, _ = emulate(layer.model(), data)
    assert isinstance(plan["layer"], Accumulation)
    integers = quantize(real, W).astype(np.int64)[:, :, 0, 0]
    sums = np.einsum("oi,nihw->nohw", integers, data.astype(np.int64))
    np.testing.assert_array_equal(found, requantize(sums, factor(X, W, Y), Y), strict=True)
