"""Channel factors: a class of scales for inputs that have none, which costs a Mul."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxq.api import calibrate, quantize
from onnxq.calibration.stream import observe
from onnxq.data.open import open_data
from onnxq.equalization.channel_factors import plan_factors, with_ones, with_products, without_ones
from onnxq.equalization.choose import EqualizationOptions, choose
from onnxq.equalization.classes import find_classes
from onnxq.equalization.equalize import equalize
from onnxq.equalization.observed import tensors_to_observe
from onnxq.formats.scheme import REFERENCE
from onnxq.model.graph import Graph

from support.builder import Builder
from support.random_graphs import random_feeds, random_models
from support.running import outputs, same_outputs

WIDTH = 32

ONE_SCALE = frozenset({"Conv", "Gemm", "MatMul"})


def post_norm_encoder(outlier=64.0, blocks=2):
    """Residual, then norm, as in BERT: [N, 8, C]; one channel behind each norm and GELU is large.

    The readers' columns make up for the outlier, as training does.
    """
    b = Builder(7, spread=0)
    x = b.input(8, WIDTH)
    for _ in range(blocks):
        for activation in (False, True):
            gamma = np.ones(WIDTH, np.float32)
            gamma[5] = outlier
            x = b.op("LayerNormalization", x, b.const(gamma), b.const(b.random(WIDTH)), axis=-1)
            weight = b.random(WIDTH, WIDTH, scale=WIDTH**-0.5)
            weight[5] /= outlier
            y = b.op("MatMul", x, b.const(weight), shape=(8, WIDTH))
            if activation:
                y = b.op("Mul", y, b.op("Sigmoid", y))
                y = b.matmul(y, WIDTH)
            x = b.op("Add", x, y)
    return b.model(b.matmul(x, 4))


def observed(model):
    data = open_data(random_feeds(model, batch=16), model.inputs)
    names = tensors_to_observe(Graph(model))
    return observe(model, data, names, fingerprint="x", allow_nonfinite=True)


def muls(model):
    return [node for node in Graph(model).nodes if node.name.endswith(".channel_factors")]


def test_a_norm_behind_its_layers_gets_factors_and_the_outputs_keep_their_bits():
    model = post_norm_encoder()
    feeds = [random_feeds(model, seed, batch=4) for seed in (1, 2)]
    scaled, record = equalize(
        model, observed(model), feeds, EqualizationOptions(per_channel=True, factors_worth=1.0)
    )
    assert record.proof.identical
    assert record.kernels_added == len(muls(scaled)) == len(record.factors) > 2
    for optimize in (False, True):
        assert same_outputs(model, scaled, feeds[0], optimize=optimize)
    values = [Graph(scaled).constant(node.inputs[1]) for node in muls(scaled)]
    assert all(np.all(np.log2(value) % 1 == 0) for value in values)
    assert not any(np.all(value == 1) for value in values)
    behind_norm = next(v for v, n in zip(values, muls(scaled), strict=True) if "layer" in n.name)
    assert behind_norm[5] < np.median(behind_norm) / 8


def test_they_bring_what_the_outlier_took():
    model = post_norm_encoder()
    data = random_feeds(model, 3, batch=128)
    (_, plain), (_, found) = (
        quantize(model, data, target="cpu", rounding="nearest", equalize=equalized)
        for equalized in (False, True)
    )
    assert [trial.name for trial in found.prepared.trials] == [
        "not equalized", "equalized", "with channel factors",
    ]  # fmt: skip
    assert found.quantized_sqnr > plain.quantized_sqnr + 6


def uneven_columns():
    """[N, 8, C]; a weight's columns differ by 2^10, which its reader makes good behind a Tanh."""
    b = Builder(11, spread=0)
    size = np.exp2(np.linspace(-10, 0, WIDTH)).astype(np.float32)
    weight = b.random(WIDTH, WIDTH, scale=WIDTH**-0.5) * size
    y = b.op("Tanh", b.op("MatMul", b.input(8, WIDTH), b.const(weight), shape=(8, WIDTH)))
    return b.model(b.op("MatMul", y, b.const(b.random(WIDTH, 4) / size[:, None]), shape=(8, 4)))


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_a_weight_with_one_scale_for_all_gets_factors_behind_it(scheme):
    """QNN's MatMul takes no scale a column: what the columns differ by goes into a Mul."""
    model = uneven_columns()
    data = random_feeds(model, 3, batch=128)
    (_, plain), (_, found) = (
        quantize(model, data, target="qnn", scheme=scheme, rounding="nearest", equalize=equalized)
        for equalized in (False, True)
    )
    assert found.prepared.equalization.proof.identical
    (first, *_), factors = Graph(model).nodes, found.equalization.factors
    assert first.output in factors
    assert found.quantized_sqnr > plain.quantized_sqnr + 10


def test_a_layer_before_the_caller_has_none_behind_it():
    b = Builder(0)
    model = b.model(b.matmul(b.input(8, WIDTH), 4))
    graph = Graph(model)
    assert [f.tensor for f in plan_factors(graph, find_classes(graph), ONE_SCALE)] == ["x"]


def test_none_where_nothing_is_to_be_gained():
    model = post_norm_encoder(outlier=1.0)
    _, record = equalize(model, observed(model), [random_feeds(model)])
    assert record.factors == ()
    assert not muls(_)


def test_none_without_a_calibration():
    model = post_norm_encoder()
    scaled, record = equalize(model, None, [random_feeds(model)])
    assert (record.factors, muls(scaled)) == ((), [])


def test_one_mul_for_all_who_read_a_tensor():
    b = Builder(0)
    x = b.op("Sigmoid", b.input(8, WIDTH))
    model = b.model(*(b.matmul(x, 4) for _ in range(3)))
    graph = Graph(model)
    (factor,) = plan_factors(graph, find_classes(graph))
    assert len(factor.readers) == 3
    assert factor.shape == (WIDTH,)


def test_images_get_one_for_each_channel():
    b = Builder(0)
    x = b.op("Sigmoid", b.input(6, 8, 8))
    model = b.model(b.conv(x, 4, 3), b.conv(x, 6, 3, group=6))
    graph = Graph(model)
    (factor,) = plan_factors(graph, find_classes(graph))
    assert factor.shape == (6, 1, 1)
    freed = Graph(with_ones(model, [factor]))
    classes = find_classes(freed)
    assert all(np.all(site.input_ids) for site in classes.linears)


@pytest.mark.parametrize("taken", ["x.channel_factors", "other"])
def test_names_that_are_taken_are_left_alone(taken):
    b = Builder(0)
    b.input(WIDTH, name="x")
    y = b.op("Sigmoid", "x", name=taken)
    model = b.model(b.gemm("x", 4), y)
    graph = Graph(model)
    freed = with_ones(model, plan_factors(graph, find_classes(graph)))
    names = [node.name for node in Graph(freed).nodes]
    assert len(set(names)) == len(names) == len(graph.nodes) + 1
    feeds = random_feeds(model)
    assert same_outputs(model, freed, feeds, optimize=False)


@settings(max_examples=60)
@given(random_models(), st.sampled_from([frozenset(), ONE_SCALE]))
def test_random_graphs_with_factors_keep_every_bit(model, one_scale):
    graph = Graph(model)
    factors = plan_factors(graph, find_classes(graph), one_scale)
    freed = with_ones(model, factors)
    feeds = random_feeds(model)
    assert same_outputs(model, freed, feeds, optimize=False)
    back, left = without_ones(freed, factors)
    assert left == ()
    assert sorted(n.op_type for n in Graph(back).nodes) == sorted(n.op_type for n in graph.nodes)
    options = EqualizationOptions(
        per_channel=True, factors_worth=-math.inf, one_weight_scale=one_scale
    )
    scaled, record = equalize(model, observed(model), [feeds], options)
    assert record.proof.identical
    exact = outputs(model, feeds, optimize=False)
    for ours, theirs in zip(exact, outputs(scaled, feeds, optimize=False), strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)


def test_the_calibration_knows_the_products():
    model = post_norm_encoder()
    calibration, graph = observed(model), Graph(model)
    factors = plan_factors(graph, find_classes(graph))
    known = with_products(calibration, factors).tensors
    for factor in factors:
        assert known[factor.name] is calibration.tensors[factor.tensor]
    assert set(calibration.tensors) < set(known)


def test_the_calibrated_file_gives_the_same_factors():
    """`quantize --calibration` has no samples to try them on; it asks for more."""
    model = post_norm_encoder()
    calibration = calibrate(model, random_feeds(model, batch=32))
    _, record = quantize(model, calibration=calibration, target="cpu")
    assert record.prepared.trials == ()
    worth = EqualizationOptions(per_channel=True, scheme=REFERENCE, factors_worth=math.inf)
    plain = choose(model, calibration, worth)
    assert plain.factors == ()
    assert len(record.equalization.factors) > 2
