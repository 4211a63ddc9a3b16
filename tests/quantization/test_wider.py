"""16-bit activations everywhere or for some layers, 7-bit weights, floating numbers."""

import json
import math

import numpy as np
import onnx
import onnxq
import pytest
from onnx import numpy_helper
from onnxq.emulation.agreement import agreement
from onnxq.emulation.emulate import machine_of
from onnxq.errors import UsageError
from onnxq.formats.table import FORMATS
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.qdq import QdqGraph, quantization_of, quantized_activations
from onnxq.model.status import Float, Quantized
from onnxq.quantization.details import METADATA_KEY, details
from onnxq.targets import target_named
from onnxq.validation.lint import lint

from support.builder import Builder

RNG = np.random.default_rng(3)
DATA = {"x": RNG.standard_normal((24, 3, 8, 8)).astype(np.float32)}


def network():
    """Convolutions with a branch, a Concat and functions of fixed bounds; names as they stand."""
    b = Builder(7, spread=0)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 8, 3, name="stem"), name="stem_relu")
    left = b.op("Sigmoid", b.conv(x, 8, name="left"), name="gate")
    right = b.op("Tanh", b.conv(x, 8, 3, name="right"), name="bend")
    x = b.op("Mul", left, right, name="gated")
    x = b.op("Concat", x, right, shape=(16, 8, 8), axis=1, name="joined")
    x = b.op("Relu", b.conv(x, 8, name="mixing"), name="mixing_relu")
    return b.model(b.conv(x, 4, name="last"))


def formats(model):
    """Tensor of the float model → the format that it is written in."""
    known = {name for node in network().proto.graph.node for name in (*node.input, *node.output)}
    found = quantized_activations(graph_of(model))
    return {name: each.format.name for name, each in found.items() if name in known}


def graph_of(model):
    return QdqGraph(normalize(model)[0])


def mixed(names, **options):
    """Quantized for `qnn` with these layers raised."""
    from onnxq.quantization.insert import insert
    from onnxq.quantization.plan import QuantizationOptions
    from onnxq.quantization.planning import plan_quantization

    model, _ = normalize(network(), opset=21)
    calibration = onnxq.calibrate(network(), DATA)
    plan = plan_quantization(
        Graph(model), calibration, target_named("qnn"), QuantizationOptions(**options), wider=names
    )
    return plan, insert(model, plan)


# --- everywhere ----------------------------------------------------------------------------------


def test_sixteen_bits_go_everywhere_and_clip_nothing():
    model, result = onnxq.quantize(network(), DATA, target="qnn", scheme="w8a16", equalize=False)
    assert model.opset == 21
    assert set(formats(model).values()) == {"uint16"}
    assert not any(isinstance(each, Float) for each in result.plan.nodes.values())
    calibration = onnxq.calibrate(network(), DATA)
    for name, entry in result.plan.static.items():
        low, high = entry.parameters.range
        if name in calibration.tensors and name not in {"gate", "bend"}:
            seen = calibration.tensors[name]
            assert low <= seen.low + float(entry.parameters.scale)
            assert high >= seen.high - float(entry.parameters.scale)
    assert result.clipped == ()
    assert result.quantized_sqnr > 35


def test_functions_with_bounds_have_the_steps_of_the_kernels():
    _, result = onnxq.quantize(network(), DATA, target="qnn", scheme="w8a16")
    gate = result.plan.static["gate"].parameters
    assert (float(gate.scale), int(gate.zero_point)) == (1 / 65536, 0)
    b = Builder(1)
    model = b.model(b.conv(b.op("Tanh", b.conv(b.input(3, 8, 8), 8), name="bend"), 2))
    _, result = onnxq.quantize(model, DATA, target="qnn", scheme="w8a16")
    alone = result.plan.static["bend"].parameters
    assert (float(alone.scale), int(alone.zero_point)) == (1 / 32768, 32768)


def test_other_tools_sixteen_bits_below_opset_21_are_emulated():
    """ONNX Runtime's own operators hold them there."""
    ours, _ = onnxq.quantize(network(), DATA, target="qnn", scheme="w8a16")
    proto = onnx.ModelProto()
    proto.CopyFrom(ours.proto)
    for node in proto.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            node.domain = "com.microsoft"
    for entry in proto.opset_import:
        if entry.domain == "":
            entry.version = 17
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    del proto.metadata_props[:]
    theirs = onnxq.emulate(Model(proto), DATA)
    mine = onnxq.emulate(ours, DATA)
    (name,) = mine
    assert np.array_equal(mine[name], theirs[name])


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_others_say_what_they_take(target):
    with pytest.raises(UsageError, match=f"target {target} does not take scheme w8a16") as error:
        onnxq.quantize(network(), DATA, target=target, scheme="w8a16")
    assert error.value.hint == f"it takes {', '.join(target_named(target).schemes)}"


# --- for some layers -----------------------------------------------------------------------------


def test_what_a_wider_layer_reads_is_written_wide():
    plan, model = mixed({"mixing"})
    written = formats(model)
    # The Concat in front has one format; those who write into it compute in it.
    assert {n for n, name in written.items() if name == "uint16"} == {
        "gated", "bend", "joined", "mixing_relu",
    }  # fmt: skip
    wide = {n for n, each in plan.nodes.items()
            if isinstance(each, Quantized) and each.scheme.name == "w8a16"}  # fmt: skip
    assert wide == {"gated", "bend", "joined", "mixing", "mixing_relu"}
    # A kernel has one format: narrow operands are converted up in front of it, wide results down.
    assert {n: c.format.name for n, c in plan.converted.items()} == {
        "gate": "uint16", "right": "uint16", "mixing_relu": "uint8",
    }  # fmt: skip
    graph = graph_of(model)
    for node in graph.nodes:
        inside = {
            found.format.name
            for name in node.inputs if (producer := graph.producers.get(name)) is not None
            and producer.op_type == "DequantizeLinear"
            and graph.constant(producer.input(0)) is None
            and (found := quantization_of(graph, producer))
        }  # fmt: skip
        if node.op_type != "QuantizeLinear":
            assert len(inside) <= 1, node.name


def test_up_loses_nothing_and_down_rounds_once():
    plan, _ = mixed({"mixing"})
    narrow, wide = plan.static["gate"].parameters, plan.converted["gate"].parameters
    assert float(narrow.scale) / float(wide.scale) == pytest.approx(257, rel=1e-6)
    assert int(wide.zero_point) == 257 * int(narrow.zero_point)
    assert plan.converted["mixing_relu"].readers == {p for p in plan.readers if p.node == "last"}


def test_a_mixed_model_is_what_the_machine_computes():
    """Layer by layer, on the same inputs, in ONNX Runtime and in the emulator."""
    _, model = mixed({"mixing", "left"})
    layers = agreement(machine_of(model), [DATA])
    assert {each.node for each in layers} >= {"left", "mixing_relu", "last"}
    assert all(each.largest <= 1 for each in layers)
    # Its batch is open, which is another matter.
    assert {each.rule for each in lint(model, target_named("qnn"))} <= {"shapes"}


def test_biases_count_in_steps_of_what_the_layer_reads():
    plan, _ = mixed({"mixing"})
    place = next(place for place in plan.biases if place.node == "last")
    step = plan.converted["mixing_relu"].parameters.scale
    weight = next(p for place, p in plan.weights.items() if place.node == "last").scale
    assert np.allclose(plan.biases[place].parameters.scale, step * weight)


def test_the_share_becomes_wider_where_the_target_can():
    plain, before = onnxq.quantize(network(), DATA, target="qnn")
    model, result = onnxq.quantize(network(), DATA, target="qnn", mixed="30%")
    assert set(formats(plain).values()) == {"uint8"}
    assert set(formats(model).values()) == {"uint8", "uint16"}
    found = result.mixed
    assert found.share == 0.3
    assert {each.becomes for each in found.layers} == {"w8a16"}
    assert [each.share for each in found.layers] == sorted(
        (each.share for each in found.layers), reverse=True
    )
    assert found.sqnr_before == before.quantized_sqnr
    assert found.sqnr_after == result.quantized_sqnr > found.sqnr_before
    record = json.loads(model.metadata[METADATA_KEY])["mixed"]
    assert [each["node"] for each in record["layers"]] == [each.node for each in found.layers]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_else_the_share_goes_to_float(target):
    model, result = onnxq.quantize(network(), DATA, target=target, mixed="40%")
    kept = {each.node for each in result.mixed.layers}
    assert kept
    assert {each.becomes for each in result.mixed.layers} == {"float"}
    told = details(model).float_nodes
    assert all(told[node].startswith("--mixed keeps it in float: ") for node in kept)
    # One layer stays quantized whatever the share.
    _, result = onnxq.quantize(network(), DATA, target=target, mixed=1.0)
    assert result.plan.weighted


def test_a_gate_raises_layers_before_it_leaves_them_in_float():
    def search(drop):
        _, result = onnxq.quantize(network(), DATA, target="qnn", max_drop=drop, validate_data=DATA)
        return result.search

    never = search(1e-9)
    steps = [name for step in never.steps for name in step.becomes]
    assert steps == sorted(steps, reverse=True)
    assert set(steps) == {"w8a16", "float"}
    assert not never.passed
    assert "leaves one quantized" in never.ended
    wider = [step for step in never.steps if set(step.becomes) == {"w8a16"}]
    held = search(wider[-1].drop * 1.001)
    assert held.passed
    assert {each.becomes for each in held.kept} == {"w8a16"}


# --- seven bits, floating numbers ----------------------------------------------------------------


def test_seven_bits_of_a_byte():
    model, result = onnxq.quantize(network(), DATA, target="cpu", scheme="w7a8")
    weights = [numpy_helper.to_array(t) for t in model.proto.graph.initializer
               if t.name.endswith(".weight_quantized")]  # fmt: skip
    assert {w.dtype.name for w in weights} == {"int8"}
    assert max(int(np.abs(w).max()) for w in weights) == 63
    assert any(each.adaptive for each in result.roundings)
    with pytest.raises(UsageError, match="target gpu does not take scheme w7a8"):
        onnxq.quantize(network(), DATA, scheme="w7a8")


def test_floating_numbers_cover_the_largest_value():
    model, result = onnxq.quantize(network(), DATA, scheme="fp8")
    assert model.opset >= 19
    assert set(formats(model).values()) == {"float8e4m3fn"}
    assert result.equalization is None
    calibration = onnxq.calibrate(network(), DATA)
    for name, entry in result.plan.static.items():
        assert int(entry.parameters.zero_point) == 0
        if name == "x":
            seen = calibration.tensors[name]
            assert float(entry.parameters.scale) == pytest.approx(max(-seen.low, seen.high) / 448)
    for place, parameters in result.plan.weights.items():
        weight = np.abs(numpy_helper.to_array(next(
            t for t in network().proto.graph.initializer
            if t.name == Graph(network()).by_name[place.node].inputs[1])))  # fmt: skip
        assert np.allclose(parameters.scale, weight.reshape(len(weight), -1).max(axis=1) / 448)
    assert lint(model) == ()


def test_floating_numbers_are_rounded_as_onnx_says(tmp_path):
    """Against the formats' own rounding, and written to a file and back."""
    model, _ = onnxq.quantize(network(), DATA, scheme="fp8")
    onnxq.save(model, tmp_path / "fp8.onnx")
    found = onnxq.emulate(tmp_path / "fp8.onnx", DATA)
    rows = onnxq.validate(
        network(), tmp_path / "fp8.onnx", DATA, executions=["emulate", "cpu"]
    ).rows
    assert rows[1].values["sqnr"] == rows[2].values["sqnr"]
    assert 15 < rows[1].values["sqnr"] < 40
    assert all(math.isfinite(float(np.abs(values).max())) for values in found.values())
    assert FORMATS["float8e4m3fn"].grid.highest == 448


def test_floating_numbers_need_no_equalization():
    with pytest.raises(UsageError, match="scheme fp8 needs no equalization"):
        onnxq.equalize(network(), scheme="fp8")
