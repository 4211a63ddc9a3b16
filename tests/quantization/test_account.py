"""What quantization came to: multiply-adds by hand, shares, what does not pay, reasons in groups."""

import numpy as np
import onnx
import onnxq
import pytest
from onnx import helper, numpy_helper
from onnxq.model.arithmetic import computes_in_float
from onnxq.model.cuda import refusal_of_tensorrt
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.multiply_adds import multiply_adds
from onnxq.quantization.account import costs_on_tensor_cores
from onnxq.report import account as report
from onnxq.report.reasons import by_reason, counted, in_general

from support.cli_case import network


def parsed(signature: str, body: str, **weights: tuple[int, ...]) -> Model:
    """A model from ONNX's own text; its nodes are named as their outputs."""
    generator = np.random.default_rng(0)
    graph = onnx.parser.parse_graph(f"g ({signature}) {{ {body} }}")
    for node in graph.node:
        node.name = node.output[0]
    for name, shape in weights.items():
        values = generator.standard_normal(shape, np.float32)
        graph.initializer.append(numpy_helper.from_array(values, name))
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Model(onnx.shape_inference.infer_shapes(model))


def test_multiply_adds_are_those_of_the_loops():
    model = parsed(
        "float[2,4,8,8] x) => (float[2,3,8,8] y",
        """grouped = Conv<group = 2, pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1)
        up = ConvTranspose<strides = [2, 2]>(grouped, w2)
        rows = MatMul(up, w3)
        turned = Transpose<perm = [0, 1, 3, 2]>(rows)
        attention = MatMul(rows, turned)
        y = Relu(attention)""",
        w1=(6, 2, 3, 3), w2=(6, 3, 2, 2), w3=(8, 5),
    )  # fmt: skip
    assert multiply_adds(model, {"x": np.zeros((2, 4, 8, 8), np.float32)}) == {
        "grouped": 2 * 6 * 4 * 4 * (2 * 9),
        "up": 2 * 6 * 4 * 4 * (3 * 4),
        "rows": 2 * 3 * 8 * 5 * 8,
        "attention": 2 * 3 * 8 * 8 * 5,
    }


def test_multiply_adds_of_a_recurrent_layer():
    model = parsed(
        "float[T,2,3] x) => (float[T,1,2,4] y",
        "y = LSTM<hidden_size = 4>(x, w, r)",
        w=(1, 16, 3), r=(1, 16, 4),
    )  # fmt: skip
    counts = multiply_adds(model, {"x": np.zeros((5, 2, 3), np.float32)})
    assert counts == {"y": 5 * 2 * (16 * 3 + 16 * 4)}


@pytest.fixture(scope="module")
def made():
    data = {"x": np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32)}
    return Model(network()), data


def test_the_account_of_a_cpu_model(made):
    model, data = made
    quantized, result = onnxq.quantize(model, data, target="cpu", exclude=["project"])
    account = result.account
    assert (account.float_size, account.size) == (model.size, quantized.size)
    assert (account.layers, account.quantized_layers) == (4, 3)
    project = 8 * 8 * 8 * 8
    assert account.multiply_adds - account.integer_multiply_adds == project
    speed = account.speed
    assert speed.samples == 1
    assert speed.ratio == pytest.approx(speed.quantized_ms / speed.float_ms, rel=0.5)
    told, timed, *_ = report.lines(result, 3.2)
    assert "3 of 4 layers int8" in told
    assert told.endswith(f"{result.quantized_sqnr:.1f} dB, 3 s")
    assert timed.startswith("on one core of this machine: ")


def test_it_is_not_timed_where_nobody_wants_it_or_it_does_not_run(made):
    model, data = made
    assert onnxq.quantize(model, data, target="cpu", speed=False)[1].account.speed is None
    account = onnxq.quantize(model, data)[1].account
    assert account.speed is None
    told = [text for text in account.cautions if "made for a GPU" in text]
    assert len(told) == (refusal_of_tensorrt() is not None)
    assert all("--target cpu" in text for text in told)


def test_weights_alone_leave_the_arithmetic_in_float(made):
    model, _ = made
    _, result = onnxq.quantize(model, target="cpu", scheme="w8", speed=False)
    assert result.account.integer_share == 0
    assert result.account.quantized_layers == result.account.layers
    (told,) = report.lines(result)
    assert "int8 weights" in told


def test_the_speed_is_no_part_of_the_model(made):
    model, data = made
    first, second = (
        onnxq.quantize(model, data, target="cpu", speed=speed)[0] for speed in (True, False)
    )
    assert first.fingerprint == second.fingerprint


def test_small_products_do_not_pay_on_tensor_cores():
    model = parsed(
        "float[N,64] x) => (float[N,64] wide",
        "narrow = MatMul(x, w1) free = Relu(narrow) wide = MatMul(free, w2)",
        w1=(64, 8), w2=(8, 64),
    )  # fmt: skip
    data = {"x": np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)}
    _, result = onnxq.quantize(model, data, rounding="nearest")
    plan, prepared = result.plan, result.prepared.model
    quantized = sorted({"narrow", "wide"} & plan.weighted)
    (told,) = costs_on_tensor_cores(prepared, plan, dict.fromkeys(quantized, 10))
    assert f"integers: {len(quantized)};" in told
    # Beside much larger ones they do not matter.
    assert costs_on_tensor_cores(prepared, plan, dict.fromkeys(quantized, 1) | {"big": 999}) == ()


# --- reasons ---------------------------------------------------------------------------------


def test_reasons_are_gathered_and_what_computes_nothing_is_counted():
    model = parsed(
        "float[N,4] x) => (float[N,4] move",
        "e1 = Exp(x) e2 = Exp(e1) s = Sqrt(e2) sides = Shape(x) move = Reshape(s, sides)",
    )
    graph = Graph(model)
    assert [n.name for n in graph.nodes if computes_in_float(graph, n)] == ["e1", "e2", "s"]
    reasons = {node.name: f"{node.op_type} has no quantized form" for node in graph.nodes}
    found = by_reason(graph, reasons)
    assert found.rows[0] == ("3", "Exp ×2, Sqrt", "it has no quantized form")
    assert found.rows[1][0] == "2"
    # One reason is told as it is.
    assert by_reason(graph, {"s": "Sqrt of 'x'"}).rows == (("1", "Sqrt s", "Sqrt of 'x'"),)


def test_reasons_in_general():
    assert in_general("target cpu runs Add in float", "Add") == "target cpu runs it in float"
    assert in_general("'a.b' is int64, not 'c'", "Cast") == "… is int64, not …"
    assert counted("ABBCDEFGG") == "B ×2, G ×2, A, C, D, E, 1 more"


def test_nothing_is_said_of_a_machine_that_nobody_knows(made, tmp_path):
    model, data = made
    (tmp_path / "npu.toml").write_text('base = "gpu"\nruns_on = "our NPU"\n')
    _, result = onnxq.quantize(model, data, target=tmp_path / "npu.toml", rounding="nearest")
    assert result.account.cautions == ()
