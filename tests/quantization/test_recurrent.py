"""LSTM and GRU: weights stored as numbers; an LSTM multiplies them where ONNX Runtime can."""

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.formats.granularity import Blocks, PerChannel
from onnxq.model.model import Model
from onnxq.model.qdq import QdqGraph, stored_weight
from onnxq.model.session import open_session, run

GATES = {"LSTM": 4, "GRU": 3}
HIDDEN, INPUTS = 24, 16

operators = pytest.mark.parametrize("op_type", GATES)


def recurrent(op_type, *, directions=2, constant=True, opset=17):
    """One recurrent layer and a product, as voice detectors have them; time comes first."""
    rng, rows = np.random.default_rng(0), GATES[op_type] * HIDDEN
    shapes = {
        "W": (directions, rows, INPUTS), "R": (directions, rows, HIDDEN),
        "B": (directions, 2 * rows), "V": (HIDDEN, 4),
    }  # fmt: skip
    weights = {
        name: (rng.standard_normal(shape) * np.exp2(rng.uniform(-2, 0, (shape[-2], 1)))
               if len(shape) > 1 and name != "B" else rng.standard_normal(shape)) * 0.3
        for name, shape in shapes.items()
    }  # fmt: skip
    nodes = [
        helper.make_node(
            op_type, ["x", "W" if constant else "w", "R", "B"], ["", "last"], name="layer",
            hidden_size=HIDDEN, direction="bidirectional" if directions == 2 else "forward",
        ),
        helper.make_node("MatMul", ["last", "V"], ["y"], name="product"),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [9, "N", INPUTS])]
    if not constant:
        nodes.insert(0, helper.make_node("Exp", ["W"], ["e"], name="exp"))
        nodes.insert(1, helper.make_node("Mul", ["e", "s"], ["w"], name="mul"))
        inputs.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [1]))
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset)]
    return Model(helper.make_model(graph, opset_imports=imports, ir_version=10))


def feeds():
    x = np.random.default_rng(1).standard_normal((9, 8, INPUTS)).astype(np.float32)
    return {"x": x}


def of(model, *, optimize=True):
    return run(open_session(model, optimize=optimize, threads=1), None, feeds())[0]


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())


@operators
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("scheme", ["w8", "w4"])
def test_weights_are_stored_with_a_scale_for_each_row(op_type, directions, scheme):
    model = recurrent(op_type, directions=directions)
    quantized, result = onnxq.quantize(model, target="cpu", scheme=scheme)
    onnx.checker.check_model(quantized.proto, full_check=True)
    graph = QdqGraph(quantized)
    for position in (1, 2):
        found = stored_weight(graph, graph.by_name["layer"].inputs[position])
        assert found.parameters.granularity == PerChannel(1)
        assert found.parameters.scale.shape == (GATES[op_type] * HIDDEN,)
        assert found.format.name == "int8"
    assert result.plan.nodes["layer"].scheme.name == "w8"
    names = {each.name for each in quantized.proto.graph.initializer}
    assert not {"W", "R"} & names
    if scheme == "w8":
        assert sqnr(of(model), of(quantized, optimize=False)) > 37
        # The product behind it runs with 8-bit activations unless told.
        assert sqnr(of(model), of(quantized)) > 35


@operators
def test_every_command_reads_such_a_model(op_type):
    model = recurrent(op_type)
    quantized, _ = onnxq.quantize(model, target="cpu", scheme="w8")
    details = onnxq.inspect(quantized).details
    rows = {(each.layer, each.parameter): each.format for each in details.learnables}
    assert rows["layer", "Input weights"] == rows["layer", "Recurrent weights"] == "int8"
    assert "layer" in details.layers
    assert onnxq.explain(quantized, "layer").becomes == "quantized"
    emulated = onnxq.emulate(quantized, feeds())
    assert sqnr(of(model), next(iter(emulated.values()))) > 35
    page, _ = onnxq.report(model, [quantized])
    assert "Recurrent weights" in page


@operators
def test_it_stays_in_float_elsewhere_and_says_why(op_type):
    _, result = onnxq.quantize(recurrent(op_type), feeds(), target="cpu")
    reason = result.plan.nodes["layer"].reason
    assert reason == f"{op_type} has no quantized form; schemes of weights alone store its weights"
    _, result = onnxq.quantize(recurrent(op_type, constant=False), target="cpu", scheme="w8")
    assert result.plan.nodes["layer"].reason == "its input weights are no float32 constant"
    _, result = onnxq.quantize(recurrent(op_type), target="cpu", scheme="w8", exclude=["layer"])
    assert "exclude" in result.plan.nodes["layer"].reason


def learned(model):
    """What `inspect` says of the layer's weights."""
    found = onnxq.inspect(model).details.learnables
    return {each.parameter: each for each in found if each.layer == "layer"}


@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_multiplies_integers_in_the_scheme_dynamic(directions):
    model = recurrent("LSTM", directions=directions)
    quantized, result = onnxq.quantize(model, target="cpu", scheme="dynamic")
    assert result.plan.nodes["layer"].scheme.name == "dynamic"
    assert next(each.op_type for each in quantized.proto.graph.node) == "DynamicQuantizeLSTM"
    stored = {each.name: each for each in quantized.proto.graph.initializer}
    assert not {"W", "R"} & set(stored)
    by_direction = [tuple(each.dims) for each in stored.values() if "weight2_scale" in each.name]
    assert by_direction == [(directions, 4 * HIDDEN)]
    assert sqnr(of(model), of(quantized)) > 34
    roles = learned(quantized)
    for role, inputs in {"Input weights": INPUTS, "Recurrent weights": HIDDEN}.items():
        assert roles[role].format == "int8"
        assert roles[role].shape == (directions, 4 * HIDDEN, inputs)
        assert roles[role].granularity == str(PerChannel(1))
    assert onnxq.explain(quantized, "layer").becomes == "quantized"


def test_onnxruntimes_kernel_computes_it_when_emulated():
    quantized, _ = onnxq.quantize(recurrent("LSTM"), target="cpu", scheme="dynamic")
    # Of one sample, no thread has rows of its own.
    one = {"x": feeds()["x"][:, :1]}
    emulated = onnxq.emulate(quantized, one)
    exact = run(open_session(quantized), None, one)[0]
    np.testing.assert_array_equal(emulated["y"].reshape(exact.shape), exact)
    assert "ONNX Runtime's own kernel" in emulated.plan["layer"].reason


def test_no_kernel_no_integers():
    _, result = onnxq.quantize(recurrent("GRU"), target="cpu", scheme="dynamic")
    reason = result.plan.nodes["layer"].reason
    assert reason == "ONNX Runtime has no integer GRU; schemes of weights alone store its weights"


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_of_another_tool_is_read(tmp_path, directions, by_row):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Blocks came with operator set 21.
    model = recurrent("LSTM", directions=directions, opset=17 if directions == 1 else 21)
    onnx.save(model.proto, tmp_path / "float.onnx")
    quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "theirs.onnx", per_channel=by_row,
        weight_type=QuantType.QInt8, op_types_to_quantize=["LSTM", "MatMul"],
    )  # fmt: skip
    theirs = onnxq.load(tmp_path / "theirs.onnx")
    assert "DynamicQuantizeLSTM" in {each.op_type for each in theirs.proto.graph.node}
    (found,) = (
        each
        for each in onnxq.inspect(theirs).details.learnables
        if each.parameter == "Recurrent weights"
    )
    # Their directions have scales of their own.
    assert found.granularity == str(PerChannel(1) if directions == 1 else Blocks(2, HIDDEN))
    assert found.shape == (directions, 4 * HIDDEN, HIDDEN)
    emulated = onnxq.emulate(theirs, feeds())
    assert sqnr(of(model), emulated["y"].reshape(of(model).shape)) > 20
