"""The float remainder in float16: what the operators and the values allow, and nothing else."""

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, numpy_helper, parser
from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.narrow import narrow
from onnxq.model.session import open_session, run

from support.testdata import TESTDATA, images

HEAD = '<ir_version: 9, opset_import: ["": 19]>\n'


def model_of(text: str, **constants: np.ndarray) -> Model:
    proto = parser.parse_model(HEAD + text)
    proto.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"n{index}"
    onnx.checker.check_model(proto)
    return Model(onnx.shape_inference.infer_shapes(proto), None)


def narrowed(model: Model, largest: dict[str, float] | None = None):
    known = dict.fromkeys(Graph(model).activations, 1.0) | (largest or {})
    result, record = narrow(model, known)
    onnx.checker.check_model(result.proto, full_check=True)
    return result, record


def types(model: Model) -> dict[str, str]:
    proto = onnx.shape_inference.infer_shapes(model.proto, strict_mode=True).graph
    return {
        info.name: TensorProto.DataType.Name(info.type.tensor_type.elem_type)
        for info in (*proto.value_info, *proto.output, *proto.input)
    }


def outputs(model: Model, x: np.ndarray) -> np.ndarray:
    return run(open_session(model), None, {"x": x})[0]


X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)


def test_inputs_and_outputs_keep_their_types_and_float_becomes_float16():
    model = model_of("g (float[2,3,4,4] x) => (float[2,3,4,4] y) { a = Add(x, c) y = Sin(a) }",
                     c=np.full((3, 1, 1), 0.3, np.float32))  # fmt: skip
    result, record = narrowed(model)
    found = types(result)
    assert (found["x"], found["a"], found["y"]) == ("FLOAT", "FLOAT16", "FLOAT")
    assert (record.nodes, record.kept) == (2, ())
    exact = outputs(model, X)
    assert not np.array_equal(outputs(result, X), exact)
    assert np.abs(outputs(result, X) - exact).max() < 4e-3


def test_what_reaches_too_far_stays_in_float32():
    model = model_of("g (float[2,3,4,4] x) => (float[2,3,4,4] y) { a = Mul(x, c) y = Div(a, c) }",
                     c=np.array(30_000.0, np.float32))  # fmt: skip
    result, record = narrowed(model, {"a": 90_000.0})
    assert types(result)["a"] == "FLOAT"
    assert [each.node for each in record.kept] == ["n0", "n1"]
    assert all("a reaches 9e+04" in each.reason for each in record.kept)
    assert np.array_equal(outputs(result, X), outputs(model, X))


def test_inputs_that_take_float32_only_keep_it():
    text = "g (float[2,3,4,4] x) => (float[2,3,8,8] y) { a = Sin(x) y = Resize(a, , scales) }"
    model = model_of(text, scales=np.array([1, 1, 2, 2], np.float32))
    result, record = narrowed(model)
    assert record.kept == ()
    assert types(result)["a"] == "FLOAT16"
    assert Graph(result).elem_type("scales") == TensorProto.FLOAT
    assert np.abs(outputs(result, X) - outputs(model, X)).max() < 1e-3


def test_bodies_keep_what_they_read():
    text = """g (float[2,3,4,4] x) => (float[2,3,4,4] y) {
        a = Sin(x)
        yes = Cast<to: int = 9>(one)
        y = If(yes) <
            then_branch = t () => (float[2,3,4,4] p) { p = Neg(a) },
            else_branch = e () => (float[2,3,4,4] q) { q = Abs(a) }>
    }"""
    model = model_of(text, one=np.array(1, np.int64))
    result, record = narrowed(model)
    assert [each.node for each in record.kept] == ["n2"]
    assert types(result)["a"] == "FLOAT"
    assert np.abs(outputs(result, X) - outputs(model, X)).max() < 1e-3


def test_scales_keep_their_value_or_their_type():
    text = """g (float[2,3,4,4] x) => (float[2,3,4,4] y) {
        a = Sin(x)  q = QuantizeLinear(a, s, z)  d = DequantizeLinear(q, s, z)  y = Neg(d)
    }"""
    z = np.array(0, np.int8)
    result, record = narrowed(model_of(text, s=np.array(1 / 128, np.float32), z=z))
    assert record.kept == ()
    assert types(result)["d"] == "FLOAT16"
    result, record = narrowed(model_of(text, s=np.array(0.01, np.float32), z=z))
    assert [each.reason for each in record.kept] == ["s is no float16"] * 2
    assert types(result)["d"] == "FLOAT"


def test_an_integer_layer_of_the_network_input_needs_no_cast():
    text = """g (float[2,3,4,4] x) => (float[2,3,4,4] y) {
        q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Neg(d)
    }"""
    model = model_of(text, s=np.array(1 / 128, np.float32), z=np.array(0, np.int8))
    result, _ = narrowed(model)
    assert [node.op_type for node in Graph(result).nodes] == [
        "QuantizeLinear", "DequantizeLinear", "Neg", "Cast",
    ]  # fmt: skip


@pytest.mark.parametrize("weights", ["per-channel", "per-tensor"])
def test_a_quantized_network(weights):
    text = """g (float[n,3,8,8] x) => (float[n,5] y) {
        a = Conv<pads = [1,1,1,1]>(x, w, b)  r = Relu(a)  p = GlobalAveragePool(r)
        f = Flatten(p)  g = Gemm(f, v)  y = Softmax(g)
    }"""
    rng = np.random.default_rng(1)
    model = model_of(text, w=rng.standard_normal((6, 3, 3, 3), np.float32),
                     b=rng.standard_normal(6, np.float32),
                     v=rng.standard_normal((6, 5), np.float32))  # fmt: skip
    data = {"x": rng.standard_normal((64, 3, 8, 8), np.float32)}
    int8, result = onnxq.quantize(model, data, weights=weights, rest="fp16")
    assert result.narrowing is not None
    assert result.narrowing.kept == ()
    assert types(int8)["p"] == "FLOAT16"
    found = onnxq.validate(model, int8, data, executions=["cpu", "emulate"])
    assert all(row.values["sqnr"] > 25 for row in found.rows if row.model != found.rows[0].model)


def test_float16_needs_samples_to_look_at():
    model = model_of("g (float[n,4] x) => (float[n,4] y) { y = MatMul(x, w) }",
                     w=np.eye(4, dtype=np.float32))  # fmt: skip
    calibration = onnxq.calibrate(model, {"x": np.ones((8, 4), np.float32)})
    with pytest.raises(UsageError, match="--rest fp16 needs samples"):
        onnxq.quantize(model, calibration=calibration, rest="fp16")


def test_float16_is_no_use_beside_int32_biases():
    model = model_of("g (float[n,4] x) => (float[n,4] y) { y = MatMul(x, w) }",
                     w=np.eye(4, dtype=np.float32))  # fmt: skip
    with pytest.raises(UsageError, match="biases are int32"):
        onnxq.quantize(model, {"x": np.ones((8, 4), np.float32)}, target="cpu", rest="fp16")


def test_a_quantized_concat_stays_in_float32():
    """ONNX Runtime makes it a QLinearConcat of whatever scales it finds, and then refuses them."""
    model = model_of("""g (float[2,3,4,4] x) => (float[2,6,4,4] y) {
        h = Sin(x) q = QuantizeLinear(h, s, z) a = DequantizeLinear(q, s, z)
        b = DequantizeLinear(q, s, z) c = Concat<axis=1>(a, b)
        r = QuantizeLinear(c, s, z) d = DequantizeLinear(r, s, z) y = Cos(d) }""",
        s=np.float32(0.03125), z=np.int8(0))  # fmt: skip
    result, record = narrowed(model)
    found = types(result)
    assert (found["h"], found["d"], found["c"]) == ("FLOAT16", "FLOAT16", "FLOAT")
    assert [kept.reason for kept in record.kept if "QLinearConcat" in kept.reason]
    # Rounded to float16, some values fall into the next step.
    assert np.abs(outputs(result, X) - outputs(model, X)).max() < 0.03125


def test_a_concat_that_is_not_quantized_becomes_float16():
    model = model_of(
        "g (float[2,3,4,4] x) => (float[2,6,4,4] y) { c = Concat<axis=1>(x, x) y = Sin(c) }"
    )
    result, record = narrowed(model)
    assert types(result)["c"] == "FLOAT16"
    assert record.kept == ()


@pytest.mark.parametrize("name", ["mobilenetv2.onnx", "squeezenet.onnx"])
def test_shipped_networks_run_in_float16_on_the_cpu_provider(name):
    """Squeezenet has quantized Concats; biases quantized in float16 cost MobileNetV2 34 dB."""
    path = TESTDATA / name
    data = images("calibration", 16)
    int8, wide = (
        onnxq.quantize(path, data, rounding="nearest", rest=rest)[0] for rest in ("fp16", "fp32")
    )
    open_session(int8)  # loads with all optimizations
    rows = onnxq.validate(path, [int8, wide], images("test", 16, labelled=True),
                          executions=["emulate", "cpu"]).rows  # fmt: skip
    sqnr = [row.values["sqnr"] for row in rows[1:]]
    assert min(sqnr) > 25
    assert np.ptp(sqnr) < 3


def test_who_stays_in_float32_reads_what_was_never_rounded():
    """Not a copy cast to float16 and back, whoever reads first."""
    model = model_of("""g (float[2,3,4,4] x) => (float[2,3,4,4] y, float[2,3,4,4] z) {
        y = Add(x, c) m = Mul(x, c) z = Mul(m, big) }""",
        c=np.float32(0.3), big=np.float32(1e6))  # fmt: skip
    result, _ = narrowed(model, {"m": 1e6, "z": 1e12})
    z, exact = (run(open_session(m, optimize=False), ["z"], {"x": X})[0] for m in (result, model))
    assert np.array_equal(z, exact)
