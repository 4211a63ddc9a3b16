"""Products of two activations, as in attention: where a target quantizes them, and what they are."""

import dataclasses
import math
from functools import cache

import numpy as np
import onnxq
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnxq.emulation.emulate import emulator
from onnxq.emulation.layers import Accumulation
from onnxq.emulation.plan import plan_emulation
from onnxq.formats.table import FORMATS
from onnxq.model.graph import Graph
from onnxq.model.normalize import normalize
from onnxq.model.operators import is_product, is_quantize
from onnxq.model.qdq import QdqGraph, standing_for
from onnxq.model.session import open_session, run, with_outputs
from onnxq.model.status import Float, Quantized
from onnxq.targets.read import target_named
from onnxq.validation.lint import lint

from support.builder import Builder
from support.cli_case import run as cli
from support.qdq_models import integer_tensors
from support.random_graphs import random_feeds
from support.transformers import (
    HEADS,
    OUTLIER,
    TRANSFORMERS,
    WIDTH,
    dense,
    join_heads,
    norm,
    split_heads,
)

TARGET = 'base = "gpu"\nproducts = ["MatMul"]\n'
LENGTH = 8


def attention(mask=False):
    """Softmax(Q·Kᵀ)·V between layers; the scores go straight into the Softmax, or a mask is added
    to them."""
    b = Builder(7, spread=0)
    x = norm(b, b.input(LENGTH, WIDTH))
    q, k, v = (split_heads(b, dense(b, x, WIDTH, behind=OUTLIER)) for _ in range(3))
    shape = (HEADS, WIDTH // HEADS, LENGTH)
    keys = b.op("Transpose", k, perm=[0, 1, 3, 2], shape=shape, name="keys")
    scores = b.op("MatMul", q, keys, shape=(HEADS, LENGTH, LENGTH), name="scores")
    if mask:
        scores = b.op("Add", scores, b.input(1, LENGTH, LENGTH, name="mask"), name="masked")
    shares = b.op("Softmax", scores, axis=-1, name="shares")
    mixed = b.op("MatMul", shares, v, shape=(HEADS, LENGTH, WIDTH // HEADS), name="mixed")
    return b.model(dense(b, join_heads(b, mixed), WIDTH))


def feeds(model, samples=32):
    found = random_feeds(model, batch=samples)
    if "mask" in found:
        found["mask"] = np.where(found["mask"] > 0.5, np.float32(-1e4), np.float32(0))
    return found


@pytest.fixture
def gpu_with_products(tmp_path):
    path = tmp_path / "attention.toml"
    path.write_text(TARGET, encoding="utf-8")
    return str(path)


def quantized(model, target, **options):
    return onnxq.quantize(model, feeds(model), target=target, **options)


@cache
def on_qnn(name="plain", scheme="w8a8"):
    model = attention() if name == "plain" else TRANSFORMERS[name]()
    effort = "default" if name == "plain" else "fast"
    return model, *quantized(model, "qnn", scheme=scheme, effort=effort)


def products(model):
    graph = Graph(model)
    return [node for node in graph.nodes if is_product(graph, node)]


def operands(model, name):
    """What each operand of a node of a quantized model stands for."""
    graph = QdqGraph(model)
    node = graph.by_name[name]
    return [standing_for(graph, each) for each in node.inputs]


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_qnn_quantizes_operands_and_result_and_the_softmax_between(scheme):
    float_model, model, result = on_qnn(scheme=scheme)
    assert [node.name for node in products(float_model)] == ["scores", "mixed"]
    for name in ("scores", "shares", "mixed"):
        assert isinstance(result.plan.nodes[name], Quantized)
        assert name in result.plan.activations
    graph = Graph(normalize(model)[0])
    for name in ("scores", "shares", "mixed"):
        assert all(is_quantize(use.node) for use in graph.consumers(graph.by_name[name].output))
    first, second = operands(normalize(model)[0], "mixed")
    spec = target_named("qnn").scheme(scheme).static
    assert {first.format, second.format} == {spec.format}
    assert first.parameters.scale == np.float32(1 / spec.steps)
    assert first.parameters.zero_point == 0


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_matmul_of_a_transformer_is_an_integer_kernel_on_qnn(name):
    float_model, _, result = on_qnn(name)
    nodes = [node for node in Graph(float_model).nodes if node.op_type == "MatMul"]
    assert len(products(float_model)) == 4
    assert all(isinstance(result.plan.nodes[node.name], Quantized) for node in nodes)
    assert result.quantized_sqnr > 14


def test_they_cost_little(gpu_with_products, tmp_path):
    """Measured: 33.6 → 30.7 dB on gpu, 29.9 → 28.8 on qnn; docs/targets.md has a trained model."""
    model, path = attention(), tmp_path / "without.toml"
    path.write_text('base = "qnn"\nproducts = []\nown = ["Add", "Mul"]\n', encoding="utf-8")
    for with_, without in ((gpu_with_products, "gpu"), ("qnn", str(path))):
        after, before = (quantized(model, each)[1].quantized_sqnr for each in (with_, without))
        assert before - 4 < after < before


def test_cpu_and_gpu_compute_them_in_float():
    model = attention()
    for target in ("cpu", "gpu"):
        written, result = quantized(model, target)
        for name in ("scores", "shares", "mixed"):
            assert isinstance(result.plan.nodes[name], Float)
        assert not result.plan.activations.keys() & {"scores", "shares", "keys"}
        assert lint(normalize(written)[0], target_named(target)) == ()


def test_a_target_of_ones_own_quantizes_both_operands_for_tensorrt(gpu_with_products):
    model = attention()
    written, result = quantized(model, gpu_with_products)
    written = normalize(written)[0]
    graph = Graph(written)
    for name in ("scores", "mixed"):
        assert isinstance(result.plan.nodes[name], Quantized)
        for each in operands(written, name):
            assert each.format is FORMATS["int8"]
            assert each.parameters.zero_point == 0
    # As NVIDIA's rules have it: the result is a float, and so is the Softmax.
    uses = graph.consumers(graph.by_name["scores"].output)
    assert [use.node.op_type for use in uses] == ["Softmax"]
    shares, _ = operands(written, "mixed")
    assert shares.parameters.scale == np.float32(1 / FORMATS["int8"].grid.highest)
    assert lint(written, target_named(gpu_with_products)) == ()


def test_nothing_hides_the_range_of_an_operand(gpu_with_products):
    """Values of the heads would take scales along two axes, and were counted along one."""
    model = TRANSFORMERS["vision transformer"]()
    _, result = quantized(model, gpu_with_products, effort="fast")
    assert all(isinstance(result.plan.nodes[node.name], Quantized) for node in products(model))
    assert result.equalization.classes


def test_a_mask_stays_in_float():
    """One step for scores near 1 and a mask of −10,000 would round all scores to one number."""
    model = attention(mask=True)
    _, result = quantized(model, "qnn")
    assert result.plan.nodes["masked"].reason == "it adds a mask to a product"
    assert isinstance(result.plan.nodes["shares"], Float)
    assert all(isinstance(result.plan.nodes[name], Quantized) for name in ("scores", "mixed"))
    shares = result.plan.activations["shares"].parameters
    steps = target_named("qnn").scheme("w8a8").static.steps
    assert (shares.scale, shares.zero_point) == (np.float32(1 / steps), 0)
    assert result.quantized_sqnr > 20


@pytest.mark.parametrize("what", ["scores", "mixed"])
def test_one_may_be_kept_in_float(what):
    _, result = quantized(attention(), "qnn", exclude=[f"^{what}$"])
    kept = {name for name in ("scores", "mixed") if isinstance(result.plan.nodes[name], Float)}
    assert kept == {what}


def test_schemes_of_weights_leave_them_in_float():
    _, result = quantized(attention(), "cpu", scheme="w8")
    assert all(isinstance(result.plan.nodes[name], Float) for name in ("scores", "mixed"))


def by_formula(entry, first, second):
    """The product of docs/emulation.md, in int64."""
    whole = [
        stored.astype(np.int64) - int(each.parameters.zero_point)
        for stored, each in zip((first, second), entry.data, strict=True)
    ]
    to = entry.requantization.to.parameters
    real = np.float32(whole[0] @ whole[1]) * np.float32(entry.step / to.scale)
    grid = to.format.grid
    return np.clip(np.rint(real) + int(to.zero_point), grid.lowest, grid.highest)


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_the_emulator_sums_them_exactly(scheme):
    _, model, _ = on_qnn(scheme=scheme)
    machine, graph = emulator(model), Graph(normalize(model)[0])
    found = integer_tensors(machine.machine, feeds(model, 4))
    for name in ("scores", "mixed"):
        entry = machine.plan[name]
        assert isinstance(entry, Accumulation)
        assert entry.reach.fits(entry.accumulator)
        first, second = (found[each.stored][0] for each in entry.data)
        (use,) = graph.consumers(graph.by_name[name].output)
        ours, theirs = found[use.node.output]
        np.testing.assert_array_equal(ours, by_formula(entry, first, second))
        # Of onnx's evaluator too, whose exponential is another.
        first, second = (found[each.stored][1] for each in entry.data)
        np.testing.assert_array_equal(theirs, by_formula(entry, first, second))


def onnx_runtime(model, names, given):
    """As written, node by node."""
    session = open_session(with_outputs(model, names), optimize=False, keep_qdq=True)
    return run(session, names, given)


def onnx_reference(model, names, given):
    graph, proto = Graph(model), with_outputs(model, names)
    for value, name in zip(proto.graph.output, names, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(name, graph.elem_type(name), None))
    for entry in proto.opset_import:
        entry.version = max(entry.version, 19)
    return ReferenceEvaluator(proto).run(names, dict(given))


@pytest.mark.parametrize("run_model", [onnx_runtime, onnx_reference])
@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_the_model_as_written_differs_by_a_step_at_most(scheme, run_model):
    """Dequantized, multiplied in float32 and quantized, against the sums of the same integers."""
    _, model, _ = on_qnn(scheme=scheme)
    model = normalize(model)[0]
    graph, plan = QdqGraph(model), plan_emulation(QdqGraph(model))
    for name in ("scores", "mixed"):
        entry = plan[name]
        (use,) = graph.consumers(graph.by_name[name].output)
        names = [*(each.stored for each in entry.data), use.node.output]
        first, second, theirs = run_model(model, names, feeds(model, 4))
        difference = np.abs(by_formula(entry, first, second) - theirs)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_the_cpu_provider_agrees_layer_by_layer():
    _, model, _ = on_qnn()
    found = onnxq.api.compare_layers(model, feeds(model, 4))
    assert {"scores", "shares", "mixed"} <= {layer.node for layer in found}
    assert all(layer.largest <= 1 for layer in found)


def test_explain_and_lint_state_them(tmp_path):
    _, model, _ = on_qnn()
    path = tmp_path / "qnn.onnx"
    onnxq.save(model, path)
    told = cli("explain", path, "mixed", "--json")
    assert told.code == 0, told.err
    assert told.json["becomes"] == "quantized"
    facts = {fact["about"]: fact["text"] for fact in told.json["quantization"]}
    assert facts["range of shares"].startswith("[0, 1] in ")
    assert len([about for about in facts if about.startswith("range of ")]) == 3
    checked = cli("inspect", path, "--lint", "--json")
    # The model leaves a size open, and is fine otherwise.
    assert {each["rule"] for each in checked.json["findings"]} == {"shapes"}
    # Without a record: what the graph shows.
    bare = model.proto.__class__()
    bare.CopyFrom(model.proto)
    del bare.metadata_props[:]
    onnxq.save(dataclasses.replace(model, message=bare), path)
    assert cli("explain", path, "mixed", "--json").json["becomes"] == "quantized"


def test_the_float_rest_may_be_float16(gpu_with_products):
    model = attention()
    _, plain = quantized(model, gpu_with_products)
    _, half = quantized(model, gpu_with_products, rest="fp16")
    assert math.isclose(plain.quantized_sqnr, half.quantized_sqnr, abs_tol=1)
