"""Factors for inputs that are quantized as the model runs: by the range of each run."""

import numpy as np
import onnxq
import pytest
from onnx import TensorProto, helper
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.budget import WHOLE
from onnxq.data.masks import USUAL as MASK
from onnxq.equalization.by_run import LOG2, choose_by_run
from onnxq.equalization.choose import EqualizationOptions, class_gains
from onnxq.equalization.equalize import carry_out
from onnxq.equalization.runs import IN_BATCHES, observe
from onnxq.model.graph import Graph
from onnxq.model.operators import is_weighted
from onnxq.targets import target_named
from test_channel_factors import muls, observed, post_norm_encoder

from support.builder import Builder
from support.random_graphs import random_feeds
from support.running import same_outputs

SCHEME = target_named("cpu").scheme("dynamic")
OPTIONS = EqualizationOptions(per_channel=True, scheme=SCHEME, factors_worth=0.1)


def chosen(model, feeds):
    layers = {node.name for node in Graph(model).nodes if is_weighted(node)}
    return choose_by_run(model, observed(model), feeds, OPTIONS, layers)


def singles(model, count, seed=5):
    return [random_feeds(model, seed + i, batch=1) for i in range(count)]


def test_the_factors_keep_the_outputs_bit_for_bit_and_tame_the_outlier():
    model = post_norm_encoder()
    feeds = singles(model, 12)
    scaled, record = carry_out(chosen(model, feeds), feeds)
    assert record.proof.identical
    assert record.expected_gain > 10
    for optimize in (False, True):
        assert same_outputs(model, scaled, feeds[0], optimize=optimize)
    values = [Graph(scaled).constant(node.inputs[1]) for node in muls(scaled)]
    assert values
    assert all(np.all(np.log2(value) % 1 == 0) for value in values)
    assert all(value[5] < np.median(value) / 4 for value in values[:1])


def test_they_bring_what_the_outlier_took():
    model = post_norm_encoder(blocks=3)
    data = random_feeds(model, 3, batch=128)
    (_, plain), (_, found) = (
        onnxq.quantize(model, data, target="cpu", scheme="dynamic", equalize=equalized)
        for equalized in (False, True)
    )
    unequalized, _, factors = found.prepared.trials
    assert factors.name == "with channel factors"
    assert factors.sqnr > unequalized.sqnr + 8
    assert found.quantized_sqnr > plain.quantized_sqnr + 8


def test_expected_noise_is_that_of_the_model_as_it_is():
    """The term of an input is what rounding in each run really adds, to a few tenths of a dB."""
    b = Builder(2, spread=0)
    model = b.model(b.matmul(b.input(9, 24), 16))
    feeds = singles(model, 40)
    choice = chosen(model, feeds)
    (term,) = choice.noise.activations
    start = choice.solution.start
    expected = term.noise(start * LOG2) / choice.noise.activation_divisor
    weight = Graph(model).constant(Graph(model).nodes[0].inputs[1]).astype(np.float64)
    error = power = 0.0
    for each in feeds:
        x = each["x"].astype(np.float64)
        low, high = min(x.min(), 0), max(x.max(), 0)
        step = (high - low) / 255
        zero = np.rint(-low / step)
        rounded = (np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step
        error += np.square((rounded - x) @ weight).sum()
        power += np.square(x @ weight).sum()
    assert abs(10 * np.log10(expected / (error / power))) < 1


def test_a_channel_that_is_large_in_few_runs_is_left_larger_than_one_that_always_is():
    """A static range would treat both alike."""
    b = Builder(4, spread=0)
    model = b.model(b.matmul(b.input(8, 32), 16))
    feeds = singles(model, 64)
    for number, each in enumerate(feeds):
        each["x"][..., 3] *= 30
        if number == 0:
            each["x"][..., 7] *= 30
    choice = chosen(model, feeds)
    assert choice.factors
    change = choice.solution.change[choice.noise.activations[0].variables]
    assert change[3] < change[7] < 0


def test_without_samples_the_calibration_stands_for_one_run():
    model = post_norm_encoder()
    choice = chosen(model, [])
    assert {len(term.share) for term in choice.noise.activations} == {1}
    assert max(class_gains(choice)) > 1


def masked(width=6):
    """A layer of sequences of any length; what is only filled up is large in one channel."""
    b = Builder(1, spread=0)
    x = b.input("length", width)
    info = helper.make_tensor_value_info(MASK, TensorProto.INT64, ["N", "length"])
    b.inputs.append(info)
    b.op("Cast", MASK, name="real", to=TensorProto.FLOAT, shape=("length",))
    outside = b.op("Sub", b.const(1.0), "real", shape=("length",))
    loud = np.zeros(width, np.float32)
    loud[2] = 50
    b.op("Unsqueeze", outside, b.ints(2), name="column", shape=("length", 1))
    filled = b.op("Mul", "column", b.const(loud), shape=("length", width))
    y = b.op("Add", x, filled, name="sum", shape=("length", width))
    return b.model(b.matmul(y, 4))


def test_what_batches_fill_up_has_a_part_in_the_ranges_but_not_in_the_sizes():
    model = masked()
    rng = np.random.default_rng(0)
    axes = BatchAxes({"x": 0, MASK: 0}, mask=MASK)
    feeds = [
        Feeds({"x": rng.standard_normal((1, n, 6)).astype(np.float32),
               MASK: np.ones((1, n), np.int64)}, axes)
        for n in range(2, 34)
    ]  # fmt: skip
    alike = {"x": np.ones((4, 5, 6), np.float32), MASK: np.ones((4, 5), np.int64)}
    calibration = onnxq.calibrate(model, alike)
    found = observe(model, ["sum"], feeds, calibration, WHOLE)["sum"]
    assert len(found.share) == len(feeds) + 2
    assert found.share.sum() == pytest.approx(1)
    assert found.share[-2:].sum() == pytest.approx(IN_BATCHES)
    assert found.highest[:-2, 2].max() < 10 < 50 <= found.highest[-2:, 2].min()
    assert found.size.max() < 2
