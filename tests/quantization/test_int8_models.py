"""Plans and QDQ models: on random graphs and on each weighted operator, for both targets."""

import dataclasses
import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from onnxq.api import calibrate
from onnxq.calibration.ranges import ESTIMATORS
from onnxq.errors import UsageError
from onnxq.formats.parameters import dequantize, quantize
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Place
from onnxq.model.heads import MEETING
from onnxq.model.model import Model
from onnxq.model.operators import (
    QuantizedRule,
    fused_bounds,
    kernel_output,
    operator_of,
    weight_layout,
)
from onnxq.model.status import Float, Quantized
from onnxq.quantization.insert import insert
from onnxq.quantization.patterns import check_patterns
from onnxq.quantization.plan import Own, QuantizationOptions, Shared
from onnxq.quantization.planning import plan_quantization
from onnxq.quantization.sequential import settle_layers
from onnxq.refusal import Refusal
from onnxq.targets.read import SHIPPED, target_named

from support.builder import Builder
from support.random_graphs import GRAPHS, random_feeds, random_models
from support.running import outputs

INTEGER_KERNELS = {"QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"}
OPTIONS = QuantizationOptions(ranges="minmax")

ONNX_RUNTIME = {"cpu", "cpu-arm64", "web"}
targets = pytest.mark.parametrize("target", SHIPPED)
# The others differ from these in rows only.
unlike_targets = pytest.mark.parametrize("target", ["gpu", "cpu", "qnn"])


def correct_biases(model, plan, batches):
    """Corrected biases and the records, weights rounded to nearest."""
    settled = settle_layers(model, plan, batches, adaptive=False, correct=True)
    return settled.biases, settled.corrections


def sqnr(exact, other):
    noise = np.square(exact - other, dtype=np.float64).sum()
    if noise == 0:
        return np.inf
    return 10 * np.log10(max(np.square(exact, dtype=np.float64).sum(), 1e-30) / noise)


def prepare(model, target, options=OPTIONS, samples=16):
    feeds = random_feeds(model, batch=samples)
    calibration = calibrate(model, feeds, batch_size=samples)
    return feeds, plan_quantization(Graph(model), calibration, target_named(target), options)


def optimized(model, folder):
    """The graph that ONNX Runtime's CPU provider runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(
        model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(folder / "optimized.onnx").graph


def integer_nodes(model, folder):
    """Names of the nodes that became integer kernels (layout passes append to a name)."""
    nodes = optimized(model, folder).node
    return [
        re.sub(r"_(nhwc|token_\d+|quant.*)$", "", n.name)
        for n in nodes
        if n.op_type in INTEGER_KERNELS
    ]


def network():
    """Every weighted operator, residuals, squeeze-and-excite, pooling, concat, several heads."""
    b = Builder(5, spread=1)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 8, 3, name="stem"))
    y = b.clip(b.conv(x, 8, 3, group=8, name="depthwise"))
    y = b.conv(y, 8, bias=False, name="pointwise")
    x = b.op("Relu", b.op("Add", y, x))
    gate = b.op("GlobalAveragePool", x, shape=(8, 1, 1))
    gate = b.op("Sigmoid", b.conv(gate, 8, name="gate"))
    x = b.op("Mul", x, gate)
    x = b.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, shape=(8, 8, 8))
    up = b.conv_transpose(x, 8, group=2, name="up")
    up = b.op("MaxPool", up, kernel_shape=[2, 2], strides=[2, 2], shape=(8, 8, 8))
    x = b.op("Concat", x, up, axis=1, shape=(16, 8, 8))
    x = b.op("Flatten", b.op("GlobalAveragePool", x, shape=(16, 1, 1)), shape=(16,))
    y = b.op("Relu", b.gemm(x, 8, trans_b=0, bias="scalar", alpha=0.5, beta=2.0, name="gemm"))
    z = b.op("Add", b.matmul(x, 8, name="matmul"), b.const(b.random(8)))
    return b.model(b.gemm(y, 4, name="head"), b.op("Relu", z))


ENDS = "only the caller or float operators read it"


# --- the plan ----------------------------------------------------------------------------------


@targets
def test_every_node_is_int8_or_has_a_reason(target):
    model = network()
    _, plan = prepare(model, target)
    assert set(plan.nodes) == {node.name for node in Graph(model).nodes}
    for status in plan.nodes.values():
        assert isinstance(status, (Quantized, Float))
        assert not isinstance(status, Float) or status.reason
    expected = {"stem", "depthwise", "pointwise", "gate", "gemm", "matmul", "head"}
    if target == "web":
        expected.remove("depthwise")
    on_cpu = target in ONNX_RUNTIME
    assert plan.weighted == expected | ({"up"} if not on_cpu else set())
    if on_cpu:
        assert plan.nodes["up"] == Float(Refusal(f"target {target} has no integer ConvTranspose"))


def test_float_needs_a_reason():
    with pytest.raises(ValueError, match="needs a reason"):
        Float(Refusal(""))


@targets
def test_shared_tensors_share_their_parameters(target):
    model = network()
    _, plan = prepare(model, target)
    graph = Graph(model)
    shared = [entry for entry in plan.activations.values() if isinstance(entry, Shared)]
    assert shared or target in ONNX_RUNTIME  # where they are at the ends, which stay in float
    for entry in shared:
        leader = plan.activations[entry.shares_with]
        assert isinstance(leader, Own)
        assert leader.parameters is entry.parameters
    for node in graph.nodes:
        row = operator_of(node)
        if row.quantized is not QuantizedRule.SHARED or isinstance(plan.nodes[node.name], Float):
            continue
        names = [n for n in (*row.data_of(node), *node.outputs) if n in plan.activations]
        assert len({float(plan.activations[n].parameters.scale) for n in names}) <= 1


@targets
def test_include_and_exclude(target):
    model = network()
    only = QuantizationOptions(ranges="minmax", include=("^stem$", "^gemm"), exclude=("gemm",))
    _, plan = prepare(model, target, only)
    assert plan.weighted == {"stem"}
    assert plan.nodes["gemm"] == Float(Refusal("--exclude matches it"))
    relu = next(node.name for node in Graph(model).nodes if node.op_type == "Relu")
    assert plan.nodes[relu] == Quantized(plan.scheme, "stem")
    assert plan.nodes["head"] == Float(Refusal("no --include matches it"))
    onnx.checker.check_model(insert(model, plan).proto)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ("no such layer",)}, "matches no node"),
        ({"exclude": ("gem",)}, None),
        ({"exclude": (r"^gemn$",)}, "did you mean 'gemm'"),
        ({"exclude": ("(",)}, "is no regular expression"),
    ],
)
def test_expressions_that_make_no_sense(options, message):
    graph = Graph(network())
    if message is None:
        check_patterns(graph, QuantizationOptions(**options))
        return
    with pytest.raises(UsageError, match=message):
        check_patterns(graph, QuantizationOptions(**options))


@targets
def test_zero_points_and_types(target):
    _, plan = prepare(network(), target)
    for entry in plan.activations.values():
        assert entry.parameters.format == plan.scheme.activation.format
        if plan.scheme.activation.symmetric:
            assert int(entry.parameters.zero_point) == 0
    for parameters in plan.weights.values():
        assert parameters.format.name == "int8"
        assert not parameters.zero_point.any()


@targets
def test_power_of_two_scales(target):
    _, plan = prepare(network(), target, QuantizationOptions(ranges="minmax", power_of_two=True))
    scales = [e.parameters.scale.ravel() for e in plan.activations.values()]
    scales += [p.scale.ravel() for p in plan.weights.values()]
    assert np.all(np.frexp(np.concatenate(scales))[0] == 0.5)


# --- weights -----------------------------------------------------------------------------------


def single(op_type):
    b = Builder(2)
    if op_type == "Conv":
        return b.model(b.conv(b.input(6, 4, 4), 4, 3, group=2, name="node"))
    if op_type == "ConvTranspose":
        return b.model(b.conv_transpose(b.input(6, 4, 4), 4, group=2, name="node"))
    if op_type == "MatMul":
        return b.model(b.matmul(b.input(5, 6), 4, name="node"))
    return b.model(b.gemm(b.input(6), 4, trans_b=int(op_type[-1]), name="node"))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("op_type", "axis", "channels"),
    [("Conv", 0, 4), ("ConvTranspose", 1, 2), ("Gemm transB=1", 0, 4), ("Gemm transB=0", 1, 4),
     ("MatMul", 1, 4)],
)  # fmt: skip
def test_weights_are_int8_along_their_channels(op_type, axis, channels, per_channel):
    model = single(op_type)
    options = QuantizationOptions(ranges="minmax", per_channel=per_channel)
    _, plan = prepare(model, "gpu", options)
    parameters = plan.weights[Place("node", 1)]
    assert parameters.axis == (axis if per_channel else None)
    assert parameters.scale.shape == ((channels,) if per_channel else ())
    quantized = Graph(insert(model, plan))
    producer = quantized.producers[quantized.by_name["node"].input(1)]
    integers = quantized.constant(producer.input(0))
    assert producer.op_type == "DequantizeLinear"
    assert producer.attributes.get("axis") == parameters.axis
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    layout = weight_layout(Graph(model), Graph(model).by_name["node"])
    weight = Graph(model).constant(layout.weight)
    assert np.array_equal(integers, quantize(weight, parameters))
    others = tuple(a for a in range(weight.ndim) if a != axis or not per_channel)
    assert np.all(np.abs(integers).max(axis=others) == 127)
    error = np.abs(dequantize(integers, parameters) - weight)
    limit = parameters.scale.reshape(
        [-1 if a == parameters.axis else 1 for a in range(weight.ndim)]
    )
    assert np.all(error <= limit * 0.5001)


@targets
@pytest.mark.parametrize("per_channel", [True, False])
def test_dead_channels_keep_their_bias(target, per_channel):
    """Rows of zeros, and an input that is zero throughout, leave the bias as the only output."""
    b = Builder(2, spread=1)
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 4, name="dead"))
    model = b.model(b.gemm(b.op("Flatten", x, shape=(64,)), 3, name="head"))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor).copy()
        if value.shape == (4, 3, 1, 1):
            value[2] = 0
        elif value.shape == (4,):
            value[:] = (-100, -100, 0.7, -100)
        elif value.shape == (3, 64):
            value[0] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    model = type(model)(proto)
    options = QuantizationOptions(ranges="minmax", per_channel=per_channel)
    feeds, plan = prepare(model, target, options)
    quantized = insert(model, plan)
    for optimize in (True, False):
        (a,), (c,) = (outputs(m, feeds, optimize=optimize) for m in (model, quantized))
        assert sqnr(a, c) > 30


def test_a_layer_whose_input_is_dead_still_runs():
    b = Builder(2)
    x = b.conv(b.input(3, 4, 4), 4)
    x = b.op("Relu", b.op("Sub", x, b.const(np.float32(1000))))
    model = b.model(b.head(b.op("Relu", b.conv(x, 4))))
    for target in SHIPPED:
        feeds, plan = prepare(model, target)
        quantized = insert(model, plan)
        for optimize in (True, False):
            (a,), (c,) = (outputs(m, feeds, optimize=optimize) for m in (model, quantized))
            assert sqnr(a, c) > 25


def test_a_bias_far_larger_than_its_weights_fits_int32():
    """Issue 24815 of ONNX Runtime: steps of input scale × weight scale overflow."""
    b = Builder(2, spread=0)
    weight = b.random(4, 3, 1, 1) * np.float32(1e-9)
    conv = b.op(
        "Conv", b.input(3, 4, 4), b.const(weight), b.const(np.array([5, -3, 2, 1], np.float32)),
        shape=(4, 4, 4), name="conv",
    )  # fmt: skip
    model = b.model(conv)
    feeds, plan = prepare(model, "cpu")
    (a,), (c,) = (outputs(m, feeds, optimize=False) for m in (model, insert(model, plan)))
    assert np.abs(a - c).max() < 0.03


@pytest.mark.parametrize("shape", [(4, 1), (4, 4)])
def test_a_bias_that_differs_from_row_to_row_is_no_bias_of_columns(shape):
    b = Builder(2, batch=4, spread=1)
    x = b.input(6)
    y = b.op("Gemm", x, b.const(b.random(6, 4)), b.const(b.random(*shape)), shape=(4,), name="gemm")
    model = b.model(y)
    feeds = random_feeds(model)
    calibration = calibrate(model, feeds)
    for target in map(target_named, SHIPPED):
        plan = plan_quantization(Graph(model), calibration, target, OPTIONS)
        (a,), (c,) = (outputs(m, feeds, optimize=False) for m in (model, insert(model, plan)))
        assert sqnr(a, c) > 30


# --- models ------------------------------------------------------------------------------------


@targets
@pytest.mark.parametrize("ranges", ESTIMATORS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_network_in_int8(target, ranges, per_channel):
    model = network()
    options = QuantizationOptions(ranges=ranges, per_channel=per_channel)
    feeds, plan = prepare(model, target, options, samples=64)
    quantized = insert(model, plan)
    onnx.checker.check_model(quantized.proto, full_check=True)
    exact = outputs(model, feeds, optimize=False)
    for optimize in (False, True):
        for a, c in zip(exact, outputs(quantized, feeds, optimize=optimize), strict=True):
            assert sqnr(a, c) > 20


def test_on_the_cpu_every_planned_weight_has_an_integer_kernel(tmp_path):
    model = network()
    _, plan = prepare(model, "cpu")
    assert sorted(integer_nodes(insert(model, plan), tmp_path)) == sorted(plan.weighted)


def test_on_the_cpu_a_kernel_writes_float_where_only_float_reads(tmp_path):
    """An encoder's products end in a float bias, its sums read no int8: neither is quantized."""
    b = Builder(spread=1)
    x = b.input(5, 8)
    y = b.op("Add", b.matmul(x, 8, name="first"), b.const(b.random(8)))
    x = b.op("Add", y, x, name="residual")
    y = b.op("Relu", b.matmul(x, 8, name="second"))
    model = b.model(b.op("Add", y, x, name="read by nobody"))
    feeds, plan = prepare(model, "cpu")
    assert {"first", "x", "second", "residual"} & set(plan.activations) == {"x", "residual"}
    assert isinstance(plan.nodes["residual"], Float)
    assert plan.nodes["read by nobody"] == Float(Refusal(ENDS))
    quantized = insert(model, plan)
    assert sorted(integer_nodes(quantized, tmp_path)) == ["first", "second"]
    (a,), (c,) = (outputs(m, feeds, optimize=True) for m in (model, quantized))
    assert sqnr(a, c) > 30


def test_on_the_cpu_scores_beside_boxes_keep_their_levels():
    """One scale for both would leave the scores, which are at most 1, a few levels."""
    b = Builder(spread=1)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 8, 3, name="stem"))
    scores = b.op("Sigmoid", b.conv(x, 4, name="scores"), name="sigmoid")
    scale = b.const(np.full((1, 1, 1, 1), 100.0))
    both = b.op("Concat", scores, b.conv(x, 4, name="boxes"), axis=1, name="both")
    model = b.model(b.op("Mul", both, scale))
    _, plan = prepare(model, "cpu")
    for name in ("sigmoid", "both"):
        assert plan.nodes[name] == Float(MEETING)
    assert {"stem", "scores", "boxes"} == {
        name for name, status in plan.nodes.items()
        if isinstance(status, Quantized) and status.fused_into is None
    }  # fmt: skip
    whole = dataclasses.replace(OPTIONS, float_head=False)
    _, other = prepare(model, "cpu", whole)
    assert other.nodes["both"] == Float(Refusal(ENDS))
    _, other = prepare(model, "qnn", whole)
    assert isinstance(other.nodes["both"], Quantized)


def test_on_the_cpu_float_operators_read_inputs_in_float():
    """A mask from int8 layers times the input itself, which both read."""
    b = Builder(spread=1)
    x = b.input(3, 8, 8)
    mask = b.op("Sigmoid", b.conv(x, 3, name="conv"))
    model = b.model(b.op("Mul", mask, x, name="masked"))
    _, plan = prepare(model, "cpu")
    assert plan.nodes["masked"] == Float(Refusal(ENDS))
    assert {place for place in plan.readers if place.node == "conv"}
    assert ("masked", 1) not in plan.readers


@pytest.mark.parametrize("bias", ["vector", "row", "scalar", None])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_each_gemm_becomes_an_integer_kernel(bias, beta, tmp_path):
    b = Builder(spread=1)
    model = b.model(b.head(b.op("Relu", b.gemm(b.input(6), 5, bias=bias, alpha=0.3, beta=beta))))
    feeds, plan = prepare(model, "cpu")
    quantized = insert(model, plan)
    assert sorted(integer_nodes(quantized, tmp_path)) == sorted(plan.weighted)
    (a,), (c,) = (outputs(m, feeds, optimize=True) for m in (model, quantized))
    assert sqnr(a, c) > 30


def test_gpu_models_keep_float_biases_and_have_no_int32():
    quantized = insert(network(), prepare(network(), "gpu")[1])
    kinds = {tensor.data_type for tensor in quantized.proto.graph.initializer}
    assert onnx.TensorProto.INT32 not in kinds
    assert onnx.TensorProto.UINT8 not in kinds


@unlike_targets
@settings(max_examples=max(GRAPHS // 3, 1))
@given(random_models(spread=1))
def test_random_graphs_stay_close(target, model):
    feeds, plan = prepare(model, target)
    quantized = insert(model, plan)
    onnx.checker.check_model(quantized.proto)
    largest = max(np.abs(e.parameters.range).max() for e in plan.activations.values())
    exact = outputs(model, feeds, optimize=False)
    unfused = outputs(quantized, feeds, optimize=False)
    fused = outputs(quantized, feeds, optimize=True)
    for a, c, d in zip(exact, unfused, fused, strict=True):
        # What is far smaller than the tensor it is computed from may lie below its step.
        assert sqnr(a, c) > 5 or np.abs(a - c).max() < 0.02 * largest
        assert sqnr(c, d) > 25 or np.abs(c - d).max() < 0.02 * largest


@settings(max_examples=max(GRAPHS // 5, 1))
@given(random_models(spread=1))
def test_random_graphs_run_on_integer_kernels(model):
    _, plan = prepare(model, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = integer_nodes(insert(model, plan), Path(folder))
    assert plan.weighted - clipped_within_the_grid(Graph(model), plan) <= set(found)


def clipped_within_the_grid(graph, plan):
    """Layers whose Clip ONNX Runtime keeps: it cuts off a value that the grid has.

    So it is with bounds of −1 and 1, between which no grid of 256 levels has a zero in the middle.
    """
    kept = set()
    for name in plan.weighted:
        node = graph.by_name[name]
        own = plan.activations.get(kernel_output(graph, node))
        if isinstance(own, Own):
            (low, high), (first, last) = fused_bounds(graph, node), own.parameters.range
            if first < low - 1e-6 or last > high + 1e-6:
                kept.add(name)
    return kept


# --- bias correction ---------------------------------------------------------------------------


def errors(model, plan, feeds, biases):
    quantized = insert(model, plan, biases=biases, float_biases=True)
    pairs = zip(*(outputs(m, feeds, optimize=False) for m in (model, quantized)), strict=True)
    return sum(float(np.square(a - c, dtype=np.float64).sum()) for a, c in pairs)


def uneven():
    """Rows of very different size, which per-tensor weights round coarsely."""
    b = Builder(3, spread=3)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 16, 3, name="stem"))
    x = b.op("Relu", b.conv(x, 16, 3, group=16, bias=False, name="depthwise"))
    x = b.op("Relu", b.conv(x, 8, name="pointwise"))
    return b.model(b.head(x))


@targets
def test_bias_correction_lowers_the_error_or_declines(target):
    model = uneven()
    options = QuantizationOptions(ranges="minmax", per_channel=False)
    feeds, plan = prepare(model, target, options, samples=128)
    biases, records = correct_biases(model, plan, [feeds])
    assert {record.node for record in records} == plan.weighted
    accepted = {record.node for record in records if record.accepted}
    assert set(biases) == accepted
    assert accepted
    for record in records:
        assert record.accepted == (record.error_after < record.error_before)
    fresh = {"x": random_feeds(model, seed=9, batch=128)["x"]}
    assert errors(model, plan, fresh, biases) < errors(model, plan, fresh, {})
    onnx.checker.check_model(insert(model, plan, biases=biases).proto)


def sequence_layers():
    """Products over a sequence: one with a constant added behind it, one without."""
    b = Builder(3, spread=3)
    x = b.op("Relu", b.matmul(b.op("Abs", b.input(5, 8)), 16, name="plain"))
    return b.model(b.op("Add", b.matmul(x, 16, name="biased"), b.const(b.random(16)), name="add"))


@targets
def test_the_bias_of_a_matmul_is_corrected_in_the_constant_behind_it(target):
    model = sequence_layers()
    options = QuantizationOptions(ranges="minmax", per_channel=False)
    feeds, plan = prepare(model, target, options, samples=128)
    biases, records = correct_biases(model, plan, [feeds])
    assert plan.weighted == {"biased", "plain"}
    assert [(record.node, record.accepted) for record in records] == [("biased", True)]
    fresh = random_feeds(model, seed=9, batch=128)
    assert errors(model, plan, fresh, biases) < errors(model, plan, fresh, {})
    quantized = Graph(insert(model, plan, biases=biases))
    constant = quantized.constant(quantized.by_name["add"].input(1))
    assert np.array_equal(constant, biases["biased"])
    assert not np.array_equal(constant, Graph(model).constant(Graph(model).by_name["add"].input(1)))


@targets
def test_a_perfect_layer_is_not_corrected(target):
    """Weights, inputs and outputs on the grid leave no error, so there is nothing to accept."""
    b = Builder()
    weight = b.const(np.array([[127, 0], [0, 127]], np.float32).reshape(2, 2, 1, 1))
    model = b.model(b.op("Conv", b.input(2, 2, 2), weight, shape=(2, 2, 2), name="conv"))
    rng = np.random.default_rng(0)
    x = rng.integers(-127, 128, (32, 2, 2, 2)).astype(np.float32)
    x[0, 0] = 127
    x[0, 1] = -127 if target.startswith("gpu") else -128
    calibration = calibrate(model, {"x": x})
    plan = plan_quantization(Graph(model), calibration, target_named(target), OPTIONS)
    biases, (record,) = correct_biases(model, plan, [{"x": x}])
    assert record.error_before == 0
    assert not record.accepted
    assert not biases
    # What is off by half a step is corrected: the check can fail.
    _, (record,) = correct_biases(model, plan, [{"x": x + np.float32(0.4)}])
    assert record.error_before > 0


@unlike_targets
@settings(max_examples=max(GRAPHS // 10, 1))
@given(random_models(spread=1))
def test_corrected_random_graphs_are_valid(target, model):
    feeds, plan = prepare(model, target)
    biases, _ = correct_biases(model, plan, [feeds])
    quantized = insert(model, plan, biases=biases)
    onnx.checker.check_model(quantized.proto)
    outputs(quantized, feeds, optimize=True)


@targets
def test_what_a_subgraph_reads_is_at_hand_while_biases_are_corrected(target):
    b = Builder(3, spread=1)
    x = b.input(3, 4, 4)
    conv = b.conv(x, 4, name="conv")
    condition = b.op(
        "Greater", b.op("ReduceMax", x, keepdims=0, shape=()), b.const(np.float32(0)), shape=()
    )
    shift = b.const(b.random(4, 1, 1), "shift")
    branches = [
        onnx.helper.make_graph(
            [onnx.helper.make_node(op, [conv, shift], [f"{op}_out"], name=op)],
            op,
            [],
            [onnx.helper.make_tensor_value_info(f"{op}_out", onnx.TensorProto.FLOAT, None)],
        )
        for op in ("Add", "Sub")
    ]
    y = b.op("If", condition, shape=(4, 4, 4), then_branch=branches[0], else_branch=branches[1])
    last = b.op("Add", b.conv(y, 4, name="last"), conv)
    model = infer_shapes(Model(b.proto(last)))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.value_info.append(
        onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, ["N", 4, 4, 4])
    )
    model = Model(proto)
    feeds, plan = prepare(model, target)
    assert plan.weighted == {"conv", "last"}
    biases, _ = correct_biases(model, plan, [feeds])
    (a,), (c,) = (
        outputs(m, feeds, optimize=False) for m in (model, insert(model, plan, biases=biases))
    )
    assert sqnr(a, c) > 25


@pytest.mark.parametrize("bias", [True, False])
def test_onnx_runtime_does_not_round_a_layer_that_stays_in_float(bias):
    """Between Q/DQ it would, with one scale for the whole weight: channels here are far apart."""
    b = Builder(4, spread=4)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 8, 3, name="first"))
    x = b.op("Relu", b.conv(x, 8, 3, group=8, bias=bias, name="depthwise"))
    model = b.model(b.conv(x, 4, name="last"))
    options = dataclasses.replace(OPTIONS, exclude=("depthwise",))
    feeds, plan = prepare(model, "cpu", options)
    quantized = insert(model, plan)
    assert isinstance(plan.nodes["depthwise"], Float)
    assert plan.weighted == {"first", "last"}
    (as_written,), (as_run,) = (outputs(quantized, feeds, optimize=o) for o in (False, True))
    assert sqnr(as_written, as_run) > 60
