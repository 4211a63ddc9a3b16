"""Scheme dynamic: inputs quantized as the model runs, multiplied as integers."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnxq.errors import ModelError, UsageError
from onnxq.model.dynamic import dynamic_products, quantizes_as_it_runs, with_dequantized
from onnxq.model.files import load
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, with_graph
from onnxq.model.status import Float
from onnxruntime.quantization import quantize_dynamic

from support.builder import Builder
from support.exact import CPU_SATURATES
from support.random_graphs import random_feeds
from support.running import outputs
from support.testdata import TESTDATA

KERNELS = {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
"""What ONNX Runtime makes of an integer product, its scales and its bias."""


def dynamic(model, data=None, **options):
    return onnxq.quantize(model, data, target="cpu", scheme="dynamic", **options)


def operators(model):
    return [node.op_type for node in model.proto.graph.node]


@st.composite
def layers(draw):
    """One layer of any shape: a MatMul in two to four axes, or a Gemm with all it may have."""
    b = Builder(draw(st.integers(0, 999)), spread=2)
    inputs, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    if draw(st.booleans()):
        lead = draw(st.lists(st.integers(1, 5), min_size=0, max_size=2))
        y = b.matmul(b.input(*lead, inputs), width)
        if draw(st.booleans()):
            y = b.op("Add", y, b.const(b.random(width)))
        return b.model(y)
    x = b.input(inputs)
    if draw(st.booleans()):
        y = b.gemm(
            x, width, trans_b=draw(st.integers(0, 1)), alpha=draw(st.sampled_from([1.0, 0.5])),
            beta=draw(st.sampled_from([0.0, 1.0, 2.0])),
            bias=draw(st.sampled_from([None, "vector", "row", "scalar"])),
        )  # fmt: skip
        return b.model(y)
    # Read by its rows, with a bias that is known at run time only.
    b = Builder(draw(st.integers(0, 999)), spread=2, batch=inputs)
    weight = b.const(b.random(width, inputs, scale=inputs**-0.5))
    x, c = b.input(7, name="x"), b.input(width, name="c")
    b.inputs[1].type.tensor_type.shape.dim[0].dim_value = 7
    return b.model(b.op("Gemm", x, weight, c, transA=1, transB=1, beta=2.0, shape=(width,)))


@settings(max_examples=20, deadline=None)
@given(layers(), st.integers(0, 99))
def test_a_layer_of_any_shape_is_the_integer_product_that_onnx_specifies(model, seed):
    quantized, _result = dynamic(model)
    feeds = random_feeds(
        model, seed, batch=model.inputs[0].shape[0] if len(model.inputs) > 1 else 3
    )
    if len(model.inputs) > 1:
        feeds["c"] = (
            np.random.default_rng(seed)
            .standard_normal((7, *model.inputs[1].shape[1:]))
            .astype(np.float32)
        )
    assert operators(quantized).count("MatMulInteger") == 1
    assert operators(quantized).count("DynamicQuantizeLinear") == 1
    (found,) = outputs(quantized, feeds, optimize=CPU_SATURATES)
    (specified,) = ReferenceEvaluator(quantized.proto).run(None, feeds)
    np.testing.assert_allclose(found, specified, rtol=1e-6, atol=1e-6)
    (exact,) = outputs(model, feeds, optimize=False)
    assert np.linalg.norm(found - exact) <= 0.05 * np.linalg.norm(exact) + 1e-6


def three_readers(width=16):
    b = Builder(5)
    x = b.op("LayerNormalization", b.input(6, width), b.const(np.ones(width)), axis=-1)
    return b.model(*(b.op("Add", b.matmul(x, width), b.const(b.random(width))) for _ in range(3)))


def test_what_several_layers_read_is_quantized_once():
    quantized, result = dynamic(three_readers())
    assert operators(quantized).count("DynamicQuantizeLinear") == 1
    assert operators(quantized).count("MatMulInteger") == 3
    assert len(result.plan.activations) == 1


def test_onnx_runtime_makes_one_kernel_of_each_with_its_bias():
    b = Builder(3)
    alone = b.model(b.op("Relu", b.gemm(b.op("Relu", b.gemm(b.input(32), 48)), 8)))
    for model, layers_of_it in ((three_readers(), 3), (alone, 2)):
        quantized, _ = dynamic(model)
        _, optimized = with_graph(partial(open_session, quantized.proto))
        ran = [node.op_type for node in optimized.graph.node]
        assert sum(name in KERNELS for name in ran) == layers_of_it
        assert not {"MatMulInteger", "Cast", "Add", "Mul"} & set(ran)


def test_weights_are_symmetric_with_a_scale_for_each_output():
    model = three_readers()
    quantized, _ = dynamic(model)
    products = dynamic_products(Graph(quantized))
    assert len(products) == 3
    for product in products:
        weight = Graph(quantized).constant(product.node.input(1))
        assert weight.dtype == np.int8
        assert abs(weight.astype(int)).max() == 127
        assert not product.node.input(3)
        assert product.scale.shape == (16,)


def test_one_scale_for_the_whole_weight_on_request():
    quantized, _ = dynamic(three_readers(), weights="per-tensor")
    assert {each.scale.shape for each in dynamic_products(Graph(quantized))} == {()}


def test_stacked_weights_and_convolutions_stay_float_and_say_why():
    b = Builder(1)
    x = b.conv(b.input(3, 8, 8), 3, 3, name="conv")
    stack = b.op("MatMul", x, b.const(b.random(3, 8, 8)), shape=(3, 8, 8), name="stack")
    model = b.model(b.head(stack))
    quantized, result = dynamic(model)
    reasons = {name: s.reason for name, s in result.plan.nodes.items() if isinstance(s, Float)}
    assert reasons["stack"] == "its weight is a stack of matrices"
    assert reasons["conv"] == "target cpu leaves Conv in float in dynamic"
    assert operators(quantized).count("MatMulInteger") == 1


def test_a_model_without_such_layers_is_refused():
    b = Builder(1)
    with pytest.raises(ModelError, match="no node becomes quantized"):
        dynamic(b.model(b.conv(b.input(3, 8, 8), 3, 3)))


def test_a_target_that_does_not_take_it_lists_what_it_takes():
    with pytest.raises(UsageError, match="target gpu does not take scheme dynamic") as caught:
        onnxq.quantize(three_readers(), target="gpu", scheme="dynamic")
    assert "w8a8" in caught.value.hint


def test_a_float16_remainder_is_refused():
    model = three_readers()
    with pytest.raises(UsageError, match="no use with scheme dynamic"):
        dynamic(model, random_feeds(model, batch=16), rest="fp16")


def test_it_cannot_be_quantized_again_and_is_known_as_quantized():
    quantized, _ = dynamic(three_readers())
    assert quantizes_as_it_runs(quantized)
    assert not quantizes_as_it_runs(three_readers())
    with pytest.raises(ModelError, match="quantized already"):
        dynamic(quantized)
    found = onnxq.inspect(quantized).details
    assert found.is_quantized
    assert len(found.layers) == 3
    assert [each.granularity for each in found.activations] == ["per tensor, by run"]
    weights = [each for each in found.learnables if each.parameter == "Weights"]
    assert [each.format for each in weights] == ["int8"] * 3


def test_read_with_its_factors_dequantized_it_computes_the_same():
    model = three_readers()
    quantized, _ = dynamic(model)
    feeds = random_feeds(model, 4, batch=2)
    read = with_dequantized(normalize(quantized)[0])
    assert operators(read).count("DequantizeLinear") == 4
    assert "MatMulInteger" not in operators(read)
    integers = outputs(quantized, feeds, optimize=CPU_SATURATES)
    pairs = zip(integers, outputs(read, feeds, optimize=False), strict=True)
    for integer, real in pairs:
        np.testing.assert_allclose(integer, real, rtol=1e-4, atol=1e-4)


def by_onnx_runtime(model):
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "dynamic.onnx"
        onnx.save(model.proto, source)
        quantize_dynamic(source, target, per_channel=True)
        return Model(onnx.load(target))


def test_another_tools_model_is_read_too():
    made = by_onnx_runtime(three_readers())
    assert len(dynamic_products(Graph(normalize(made)[0]))) == 3
    assert len(onnxq.inspect(made).details.layers) == 3


def test_samples_are_settled_and_measured_one_by_one():
    """The verdict is that of single samples: run together they share the range of the loudest."""
    model = three_readers()
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((160, 6, 16)).astype(np.float32)}
    quantized, result = dynamic(model, data)
    assert result.measured_on.held_out
    one = onnxq.validate(model, [quantized], data, executions=["cpu"]).rows[1]
    told = onnxq.validate(model, [quantized], data, executions=["cpu"], batch_size=1).rows[1]
    many = onnxq.validate(model, [quantized], data, executions=["cpu"], batch_size=16).rows[1]
    assert one.values == told.values != many.values


def test_layers_are_ranked_and_emulation_agrees_with_execution():
    model = three_readers()
    data = random_feeds(model, 2, batch=12)
    quantized, _ = dynamic(model, data)
    found = onnxq.validate(model, [quantized], data, executions=["emulate", "cpu"], layers=True)
    assert len(found.layers[0].layers) == 3
    assert not found.layers[0].unmatched
    emulated, ran = (row.values["sqnr"] for row in found.rows[1:])
    assert abs(emulated - ran) < 0.01


def test_explain_says_that_the_range_is_that_of_each_run():
    quantized, _ = dynamic(three_readers())
    facts = onnxq.explain(quantized, dynamic_products(Graph(quantized))[0].node.name)
    assert "that of each run" in str(facts)


def test_the_shipped_encoder_keeps_its_outputs_without_any_data():
    model = load(TESTDATA / "encoder.onnx")
    quantized, _ = dynamic(model)
    assert operators(quantized).count("MatMulInteger") >= 8
    feeds = random_feeds(model, batch=1)
    for exact, found in zip(
        outputs(model, feeds, optimize=True), outputs(quantized, feeds, optimize=True), strict=True
    ):
        assert np.linalg.norm(found - exact) < 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize("step", ["equalize", "quantize"])
def test_a_model_without_such_layers_may_have_data_all_the_same(step):
    b = Builder(0)
    model = b.model(b.conv(b.input(3, 6, 6), 4))
    options = {"allow_none": True} if step == "quantize" else {}
    made, _ = getattr(onnxq, step)(
        model, data=random_feeds(model, 1, batch=4), target="cpu", scheme="dynamic", **options
    )
    assert "DynamicQuantizeLinear" not in operators(made)


def test_an_output_that_a_layer_reads_too_stays_float():
    b = Builder(0)
    hidden = b.op("Relu", b.matmul(b.input(24), 40))
    model = b.model(hidden, b.matmul(hidden, 5))
    quantized, _ = dynamic(model)
    assert "DequantizeLinear" not in operators(quantized)
    feeds = random_feeds(model, 1, batch=1)
    found, _last = outputs(quantized, feeds, optimize=False)
    assert len(np.unique(np.diff(np.unique(found)).round(6))) > 2, "no multiples of one step"
