"""The emulator beside ONNX Runtime's own kernels, layer by layer, on whole models."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxq.api import calibrate, compare_layers
from onnxq.api import quantize as onnxq_quantize
from onnxq.emulation.agreement import SATURATES, agreement
from onnxq.emulation.emulate import emulator
from onnxq.emulation.layers import Accumulation, AsWritten, Average, Fused, Product
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.model.status import Float
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.targets import Placement
from onnxq.targets.read import SHIPPED, target_named
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from calibration.test_runs import only_singly
from support.builder import Builder
from support.exact import CPU_SATURATES
from support.qdq_models import Layer, Scale, integer_tensors
from support.random_graphs import GRAPHS, random_feeds, random_models

targets = pytest.mark.parametrize("target", SHIPPED)
# The others differ from these in rows only.
unlike_targets = pytest.mark.parametrize("target", ["gpu", "cpu", "qnn"])


def quantized(model, target, samples=8, **changes):
    """A QDQ model and the samples it was calibrated on, for a target with these changes."""
    feeds = random_feeds(model, batch=samples)
    calibration = calibrate(model, feeds, batch_size=samples)
    options = QuantizationOptions(ranges="minmax")
    machine = replace(target_named(target), **changes)
    plan = plan_quantization(Graph(model), calibration, machine, options)
    fixed = next(iter(feeds.values())).shape[0]
    assert fixed in {samples, 2}
    return infer_shapes(insert(model, plan)), feeds


def assert_agrees(layers):
    """At most one step on each tensor, and a reason wherever a value differs."""
    for layer in layers:
        saturates = SATURATES in layer.reason and CPU_SATURATES
        assert layer.largest <= 1 or saturates, layer
        assert bool(layer.reason) == bool(layer.differing), layer


def network(groups=2):
    """Residuals, squeeze-and-excite, pooling of each kind, concat, transposed convolution."""
    b = Builder(5, spread=1, opset=21)
    x = b.op("Relu", b.conv(b.input(3, 12, 12), 8, 3, name="stem"))
    y = b.clip(b.conv(x, 8, 3, group=8, name="depthwise"))
    y = b.conv(y, 8, bias=False, name="pointwise")
    x = b.op("Relu", b.op("Add", y, x, name="residual"))
    x = b.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, name="average", shape=(8, 12, 12))
    gate = b.op("GlobalAveragePool", x, shape=(8, 1, 1), name="squeeze")
    gate = b.op("Sigmoid", b.conv(gate, 8, name="gate"), name="sigmoid")
    x = b.op("Mul", x, gate, name="excite")
    up = b.conv_transpose(x, 8, group=groups, name="up")
    up = b.op("MaxPool", up, kernel_shape=[2, 2], strides=[2, 2], shape=(8, 12, 12), name="max")
    x = b.op("Concat", x, up, axis=1, shape=(16, 12, 12), name="concat")
    wide = b.op(
        "Resize", x, "", b.const(np.float32([1, 1, 2, 2])), shape=(16, 24, 24), name="resize"
    )
    x = b.op("LeakyRelu", b.conv(wide, 16, 3, stride=2, name="down"), name="leaky")
    x = b.op("Flatten", b.op("GlobalAveragePool", x, shape=(16, 1, 1)), shape=(16,))
    x = b.op("Relu", b.gemm(x, 8, trans_b=0, name="gemm"))
    return b.model(b.gemm(b.matmul(x, 8, name="matmul"), 4, name="head"))


@unlike_targets
@settings(max_examples=GRAPHS // 15)
@given(model=random_models())
def test_random_graphs_agree_layer_by_layer(target, model):
    int8, feeds = quantized(model, target)
    assert_agrees(agreement(emulator(int8), [feeds]))


@unlike_targets
@settings(max_examples=GRAPHS // 15)
@given(model=random_models())
def test_every_node_is_integer_or_has_a_reason(target, model):
    int8, _ = quantized(model, target)
    machine = emulator(int8)
    left = {n.op_type for n in machine.source.proto.graph.node} - {
        "QuantizeLinear",
        "DequantizeLinear",
    }
    names = {n.name for n in Graph(machine.source).nodes if n.op_type in left}
    assert set(machine.plan) == names
    for status in machine.plan.values():
        assert not isinstance(status, Float) or status.reason
        assert not isinstance(status, Fused) or status.into in names


@targets
def test_a_network_of_everything(target):
    int8, feeds = quantized(network(), target, float_ends=False)
    machine = emulator(int8)
    layers = agreement(machine, [feeds])
    assert_agrees(layers)
    kinds = {name: type(status) for name, status in machine.plan.items()}
    known = target_named(target)
    weighted = ["stem", "pointwise", "gate", "down", "gemm", "matmul", "head"]
    assert {kinds[name] for name in weighted} == {Accumulation}
    assert kinds["depthwise"] is (Accumulation if known.sizes.depthwise else Float)
    assert kinds["up"] is (Accumulation if "ConvTranspose" in known.weighted else Float)
    if known.placement is Placement.INPUTS:
        assert {kinds[name] for name in ("excite", "average", "squeeze")} == {Float}
        assert {kinds[name] for name in ("max", "concat", "resize")} == {AsWritten}
        return
    assert kinds["excite"] is Product
    assert {kinds[name] for name in ("average", "squeeze")} == {Average}
    assert {kinds[name] for name in ("residual", "sigmoid", "leaky")} == {AsWritten}
    by_kernel = {kernel: layer for layer in layers for kernel in layer.kernels}
    # On x86 ONNX Runtime has these for unsigned activations.
    unsigned = not known.scheme("w8a8").static.format.signed
    for kernel in ("QLinearConv", "QLinearAdd", "QLinearMul", "QLinearAveragePool", "QGemm"):
        assert kernel in by_kernel or not unsigned
    if not CPU_SATURATES:
        assert not any(layer.differing for layer in layers if "QLinearConv" in layer.kernels)


@targets
def test_onnx_reference_evaluator_runs_the_machine_alike(target):
    """Every integer tensor of the machine, computed by numpy kernels instead of ONNX Runtime's."""
    int8, feeds = quantized(network(groups=1), target, samples=2)  # its grouped one is wrong
    tensors = integer_tensors(emulator(int8).machine, feeds)
    assert [name for name, (ours, theirs) in tensors.items() if (ours != theirs).any()] == []
    assert len(tensors) > 8


def test_the_model_of_another_tool(tmp_path):
    """onnxruntime's own quantizer: a bias in int32, Q/DQ around everything."""
    model = network(groups=1)  # it fails on a grouped ConvTranspose
    feeds = random_feeds(model, batch=4)

    class Reader(CalibrationDataReader):
        batches = iter([feeds])

        def get_next(self):
            return next(self.batches, None)

    onnx.save(model.proto, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(), quant_format=QuantFormat.QDQ,
        per_channel=True,
    )  # fmt: skip
    machine = emulator(Model(onnx.load(tmp_path / "int8.onnx")))
    for name in ("stem", "depthwise", "pointwise", "gemm"):
        entry = machine.plan[name]
        assert isinstance(entry, Accumulation)
        assert entry.requantization is not None
    assert_agrees(agreement(machine, [feeds]))


def test_a_model_that_takes_one_sample():
    """Its layers are compared on each sample alone."""
    x = np.random.default_rng(0).standard_normal((10, 3, 4)).astype(np.float32)
    int8, _ = onnxq_quantize(only_singly(), data=x)
    layers = compare_layers(int8, x)
    assert_agrees(layers)
    assert {layer.values // x.size for layer in layers} == {1}


def one_layer(op_type, operands, to, **attributes):
    """What both make of random operands."""
    rng = np.random.default_rng(0)
    layer = Layer()
    feeds = {f"x{i}": rng.integers(0, 256, (2, 16, 32, 32)).astype(np.uint8)
             for i in range(len(operands))}  # fmt: skip
    reals = [layer.operand(scale, (2, 16, 32, 32)) for scale in operands]
    layer.quantize(layer.op(op_type, reals, "layer", **attributes), to)
    (found,) = agreement(emulator(layer.model()), [feeds])
    return found


def unsigned(scale, zero):
    return Scale("uint8", np.float32(scale), np.array(zero))


@pytest.mark.parametrize("op_type", ["Add", "Mul"])
def test_two_operands_differ_at_ties_alone(op_type):
    """With powers of two every product is exact, so only the side on which a tie falls is left."""
    operands, to = [unsigned(0.5, 3), unsigned(0.25, 5)], 2.0 if op_type == "Add" else 16.0
    same = one_layer(op_type, operands, unsigned(to, 8))
    assert same.kernels == (f"QLinear{op_type}",)
    assert (same.differing, same.reason) == (0, "")
    odd = one_layer(op_type, operands, unsigned(to, 7))
    assert odd.largest == 1
    assert "zero point before it rounds" in odd.reason


def test_averages_differ_by_one_step_now_and_then():
    found = one_layer("AveragePool", [unsigned(0.05, 0)], unsigned(0.02, 0), kernel_shape=[2, 2])
    assert found.kernels == ("QLinearAveragePool",)
    assert found.values == 2 * 16 * 31 * 31
    assert found.largest == 1
    assert 0 < found.share < 0.02
    assert "averages dequantized float32 values" in found.reason


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "LeakyRelu", "Sigmoid"])
def test_the_others_do_not_differ(op_type):
    found = one_layer(op_type, [unsigned(0.05, 3)], unsigned(0.02, 7))
    assert found.kernels == (f"QLinear{op_type}",)
    assert found.largest <= (op_type == "Sigmoid")


@given(st.integers(0, 100))
@settings(max_examples=10)
def test_a_float_model_runs_as_it_is(seed):
    b = Builder(seed)
    model = b.model(b.head(b.op("Relu", b.conv(b.input(3, 4, 4), 4, 3))))
    feeds = random_feeds(model, seed)
    machine = emulator(model)
    outputs, overflows = machine.run(feeds)
    assert overflows == {}
    expected = run(open_session(model), None, feeds)
    np.testing.assert_array_equal(outputs[0], expected[0])
