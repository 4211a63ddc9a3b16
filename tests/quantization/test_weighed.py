"""Ranges by what errors cost at the outputs: what is chosen, tried, kept and told."""

import numpy as np
import onnxq
import pytest
from onnxq.calibration.costs import CostSums
from onnxq.calibration.ranges import _CANDIDATES, AUTO, search, search_fast
from onnxq.gradients import find_leaves
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.quantization.beside import CLIPPED, with_layers_beside
from onnxq.quantization.narrower import leaf_outputs, lost_alone, lost_part
from onnxq.quantization.ranges import Ranges
from onnxq.quantization.weighed import (
    Candidate,
    Estimate,
    Weighed,
    choose_range,
    cost_of,
    fixed_by,
)
from onnxq.report.explain import explain
from onnxq.report.quantization import ranges_text
from onnxq.targets.read import target_named

from support.builder import Builder
from support.histograms import statistics_of
from support.running import outputs

LEVELS = 256


def sums_of(values, gradients):
    """Costs of a tensor, of which each row is a sample."""
    found = statistics_of(values)
    sums = CostSums(found.top, found.low, found.high)
    for x, g in zip(values, gradients, strict=True):
        sums.add(sums.of_sample(x.astype(np.float32), g.astype(np.float32)))
    return sums.finish()


def test_the_cost_of_a_range_is_what_its_errors_do_to_the_outputs():
    rng = np.random.default_rng(0)
    values, gradients = rng.standard_normal((64, 500)) * 2, rng.standard_normal((64, 500))
    loss = cost_of([sums_of(values, gradients)], LEVELS)
    for candidate in ((-6.0, 7.0), (-2.0, 7.0), (-1.0, 1.5)):
        low, high = candidate
        step = (high - low) / (LEVELS - 1)
        clipped = np.clip(values, low, high)
        together = np.square((gradients * (values - clipped)).sum(axis=1)).sum()
        apart = (np.square(gradients) * np.square(values - clipped)).sum()
        rounded = np.rint((clipped - low) / step) * step + low - clipped
        exact = max(together, apart) + (np.square(gradients) * np.square(rounded)).sum()
        assert loss(candidate) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("bounds", [(-3.0, 3.0), (-2.0, 5.0), (0.0, 6.0)])
def test_a_fast_search_finds_the_valley(bounds):
    def loss(candidate):
        low, high = candidate
        return (high - 0.55 * bounds[1]) ** 2 + (low - 0.8 * bounds[0]) ** 2

    assert search_fast(bounds, loss) == search(bounds, loss)
    assert len(_CANDIDATES) == 141


@pytest.mark.parametrize("far", [-200.0, -2000.0])
def test_what_a_function_leaves_flat_gets_no_steps(far):
    """However far below zero values reach, a SiLU makes nothing of them."""
    b = Builder()
    y = b.op("Neg", b.input(8), name="y")
    model = Model(b.proto(b.op("Mul", y, b.op("Sigmoid", y), name="out")))
    values = np.random.default_rng(0).uniform(-4, 70, (64, 8))
    values[:, 0] = far
    found = statistics_of(values)
    spec = target_named("cpu").scheme("w8a8").static
    low, high = Ranges(Graph(model), {"y": found}, {}, {}, spec, AUTO).of(["y"])
    assert -12 < low < -4
    assert 65 < high < 71


def weighed(chosen=Estimate.BEHIND, **kept):
    candidates = [Candidate(each, -1.0, 1.0 + place, 0.1) for place, each in enumerate(Estimate)]
    return Weighed("x", tuple(candidates), chosen, **kept)


def test_only_what_gradients_changed_is_fixed():
    assert fixed_by([weighed()]) == {}
    assert fixed_by([weighed(Estimate.HEAVIER)]) == {"x": (-1.0, 2.0)}
    tried = weighed(on_trial=True)
    assert fixed_by([tried.with_narrower()]) == {"x": (-1.0, 4.0)}
    assert not tried.without_narrower("no").is_usual
    assert ranges_text([weighed(), tried.without_narrower("no")]).endswith(
        "1 narrower one taken back"
    )


@pytest.mark.parametrize(
    ("ends", "costs", "chosen", "on_trial"),
    [
        ((1, 2, 3, 3), (1.0, 0.9, 0.8, 0.8), Estimate.WIDER, False),
        ((1, 2, 3, 3), (1.0, 0.7, 0.8, 0.8), Estimate.HEAVIER, False),
        ((1, 2, 3, 3), (0.7, 0.8, 0.9, 0.9), Estimate.BEHIND, False),
        ((3, 4, 3, 2), (1.0, 1.1, 1.0, 0.5), Estimate.BEHIND, True),
        ((3, 4, 3, 2), (1.0, 0.9, 1.0, 0.5), Estimate.HEAVIER, True),
        ((3, 4, 3, 2), (1.0, 1.1, 1.0, 0.999), Estimate.BEHIND, False),
    ],
)
def test_wider_ranges_are_taken_and_narrower_ones_tried(ends, costs, chosen, on_trial):
    found = dict(zip(Estimate, ((-1.0, float(end)) for end in ends), strict=True))
    cost = dict(zip(found.values(), costs, strict=True)).__getitem__
    made = choose_range("x", found, cost, 2.0)
    assert (made.chosen, made.on_trial) == (chosen, on_trial)
    assert [each.share for each in made.candidates] == [each / 2 for each in costs]


@pytest.mark.parametrize(
    ("wider", "narrower", "said"),
    [
        ({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 1.05}, ""),
        ({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 1.3}, "'b' would lose 1.1 dB"),
        ({"a": 1.0, "b": 1e-4}, {"a": 0.5, "b": 3e-4}, ""),
        ({"a": 1.0, "b": 4e-4}, {"a": 0.5, "b": 0.02}, "'b' would lose 13.0 dB"),
        ({"a": 1.0}, {"a": 1.01}, "no better"),
        ({"a": 1.0}, {}, "could not be compared"),
    ],
)
def test_narrower_ranges_must_not_cost_a_part_of_the_outputs(wider, narrower, said):
    found = lost_part(wider, narrower)
    assert (not found) if not said else said in found


def rare():
    """A layer whose largest inputs are rare and reach no output, and one whose smallest do."""
    b = Builder(3, spread=0)
    x = b.input(8)
    stem = b.op("Relu", b.gemm(x, 8, name="stem"), name="seen")
    # Saturates: what is far above 1 changes nothing.
    y = b.op("Tanh", b.gemm(stem, 8, name="head"), name="out")
    return b.model(y)


def rare_data():
    x = np.random.default_rng(1).standard_normal((256, 8)).astype(np.float32)
    x[::16] *= 40
    return x


@pytest.fixture(scope="module")
def made():
    return onnxq.quantize(rare(), rare_data(), target="cpu", equalize=False)


def test_what_reaches_no_output_is_clipped(made):
    _, result = made
    chosen = {each.tensor: each for each in result.ranges}
    assert any(each.chosen is Estimate.GRADIENT for each in chosen.values())
    taken = next(each for each in chosen.values() if each.chosen is Estimate.GRADIENT)
    low, high = result.plan.static[taken.tensor].parameters.range
    assert np.allclose(
        (low, high), taken.range, atol=float(result.plan.static[taken.tensor].parameters.scale)
    )
    usual = onnxq.quantize(rare(), rare_data(), target="cpu", equalize=False, ranges="mse")[1]
    assert result.quantized_sqnr > usual.quantized_sqnr


def test_why_a_range_is_what_it_is_is_told(made):
    model, result = made
    taken = next(each for each in result.ranges if each.chosen is Estimate.GRADIENT)
    facts = explain(model, taken.tensor).quantization
    told = [fact.text for fact in facts if fact.label == f"candidate for {taken.tensor}"]
    assert len(told) == len(Estimate)
    assert [text.endswith(", taken") for text in told] == [False, False, False, True]


def test_without_data_there_are_no_gradients():
    calibration = onnxq.calibrate(rare(), rare_data())
    _, result = onnxq.quantize(rare(), calibration=calibration, target="cpu", equalize=False)
    assert result.ranges == ()


def test_a_clip_is_tried_by_itself():
    model, data = rare(), rare_data()
    _, result = onnxq.quantize(model, data, target="cpu", equalize=False)
    prepared, plan = result.prepared, result.plan
    leaves = find_leaves(Graph(prepared.model), prepared.calibration.tensors)
    exact = leaf_outputs(prepared.model, leaves, [{"x": data}])
    name = next(iter(plan.sharing))
    high = prepared.calibration.tensors[name].high
    for share, gains in ((0.01, False), (1.0, False)):
        candidates = [Candidate(Estimate.BEHIND, 0.0, high, 1.0)]
        candidates += [Candidate(Estimate.GRADIENT, 0.0, share * high, 1.0)]
        found = Weighed(name, tuple(candidates), Estimate.BEHIND)
        lost = lost_alone(prepared.model, plan, found, plan.scheme.static, exact)
        assert (not lost) is gains


def beside_scores(spread):
    """Boxes and class scores of one convolution, as a detector's head has them: two outputs.

    Args:
        spread: of the scores' weights beside the boxes'; untrained ones hardly vary.
    """
    b = Builder(1, spread=0)
    features = b.op("Relu", b.conv(b.input(3, 16, 16), 16, 3, name="stem"))
    features = b.op("Relu", b.conv(features, 16, 3, name="neck"))
    weight = b.rng.standard_normal((6, 16, 3, 3)).astype(np.float32) / 12
    weight[4:] *= spread
    bias = b.const(np.array([0, 0, 0, 0, -4.6, -4.6], np.float32))
    both = b.op("Conv", features, b.const(weight), bias, name="head", pads=[1] * 4,
                kernel_shape=[3, 3], shape=(6, 16, 16))  # fmt: skip
    boxes, logits = b.op("Split", both, b.ints(4, 2), outputs=2, axis=1, name="parts")
    return b.model(boxes, b.op("Sigmoid", logits, name="scores"))


@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_scores_that_hardly_vary_do_not_cost_the_boxes_beside_them(spread):
    data = np.random.default_rng(2).standard_normal((64, 3, 16, 16)).astype(np.float32)
    model = beside_scores(spread)
    wanted = outputs(model, {"x": data}, optimize=False)[0]

    def error(ranges):
        made, _ = onnxq.quantize(model, data, target="cpu", ranges=ranges)
        return np.square(outputs(made, {"x": data}, optimize=False)[0] - wanted).mean()

    assert error("auto") < 1.6 * error("minmax")


def test_layers_beside_read_what_is_clipped():
    model = rare()
    data = rare_data()
    both = with_layers_beside(model, {"seen": (0.0, 0.5)})
    (plain,) = outputs(model, {"x": data}, optimize=False)
    assert np.array_equal(outputs(both, {"x": data}, optimize=False)[0], plain)
    clipped = [n for n in Graph(both).nodes if n.output.endswith(CLIPPED)]
    assert {each.name for each in clipped} == {"seen" + CLIPPED, "head" + CLIPPED}
    assert with_layers_beside(model, {}) is model
