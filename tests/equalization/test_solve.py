"""The solver: independent of how the model is scaled, never worse, and right where it is known."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnxq.api import calibrate
from onnxq.data.random import random_feeds
from onnxq.equalization import noise as noise_module
from onnxq.equalization.apply import apply_scales
from onnxq.equalization.choose import EqualizationOptions
from onnxq.equalization.classes import find_classes
from onnxq.equalization.equalize import equalize
from onnxq.equalization.intervals import intervals
from onnxq.equalization.noise import build_noise_model
from onnxq.equalization.objective import SHARPNESS, Objective
from onnxq.equalization.solve import solve
from onnxq.equalization.starting_scales import starting_exponents
from onnxq.model.graph import Graph
from onnxq.model.session import open_session, run, with_outputs

from support.builder import Builder
from support.random_graphs import random_feeds as fixed_feeds
from support.random_graphs import random_models
from support.running import random_exponents


def problem(model, *, per_channel=False, calibration=None):
    graph = Graph(model)
    classes = find_classes(graph)
    starting = starting_exponents(graph, classes, calibration)
    of = {root: number for number, root in enumerate(sorted(starting), start=1)}
    noise = build_noise_model(
        graph, classes, of, calibration, starting, per_channel=lambda _: per_channel
    )
    start = np.zeros(1 + len(of))
    for root, number in of.items():
        start[number] = -starting[root]
    return noise, start


@settings(max_examples=60)
@given(random_models(), st.integers(0, 100))
def test_canonical_form_forgets_the_scales(model, seed):
    """Models that differ by scales of their classes look the same, bit for bit."""
    graph = Graph(model)
    classes = find_classes(graph)
    exponents = random_exponents(classes, seed)
    scaled = Graph(apply_scales(graph, classes, exponents)[0])
    first = starting_exponents(graph, classes, None)
    again = find_classes(scaled)
    second = starting_exponents(scaled, again, None)
    for site, other in zip(classes.linears, again.linears, strict=True):
        assert site.node.name == other.node.name
        for ids, ids_ in ((site.output_ids, other.output_ids), (site.input_ids, other.input_ids)):
            for root, root_ in zip(ids.tolist(), ids_.tolist(), strict=True):
                if root in first:
                    assert second[root_] == first[root] - exponents.get(root, 0)


def test_a_bias_behind_its_layer_is_not_where_the_solver_starts():
    """A key's bias is next to nothing: in units of it no error of the key would be small."""
    b = Builder(2, batch=1, spread=0)
    y = b.matmul(b.input(5, 8), 16, name="layer")
    z = b.op("Add", y, b.const(np.full(16, 1e-6)), name="bias")
    model = b.model(b.matmul(b.op("Relu", z), 4))
    graph = Graph(model)
    classes = find_classes(graph)
    found = starting_exponents(graph, classes, None)
    ids = next(site for site in classes.linears if site.node.name == "layer").output_ids
    assert max(abs(found[root]) for root in ids.tolist()) <= 2


@settings(max_examples=40)
@given(random_models(), st.booleans())
def test_never_worse_than_leaving_all_alone(model, per_channel):
    noise, start = problem(model, per_channel=per_channel)
    solution = solve(noise, start)
    before = noise.evaluate(start * math.log(2))
    assert np.array_equal(solution.before, before)
    assert solution.after.sum() <= before.sum()
    assert np.array_equal(solution.exponents, np.rint(solution.exponents))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("with_calibration", [False, True])
def test_the_gradient_is_that_of_the_smoothed_noise(per_channel, with_calibration):
    b = Builder(4)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 6, 3))
    x = b.op("Relu", b.conv(x, 6, 3, group=6))
    x = b.conv(x, 4)
    model = b.model(b.head(x))
    calibration = calibrate(model, fixed_feeds(model, batch=8)) if with_calibration else None
    noise, _ = problem(model, per_channel=per_channel, calibration=calibration)
    objective = Objective(noise)
    sigma = np.random.default_rng(0).normal(0, 0.2, noise.variables)
    sigma[0] = 0.0
    entries = objective.gather(sigma)
    value, gradient = objective.gradient(sigma, entries)
    for variable in range(1, noise.variables):
        step = np.zeros(noise.variables)
        step[variable] = 1e-5
        ahead, behind = (objective.gradient(sigma + s, entries)[0] for s in (step, -step))
        assert (ahead - behind) / 2e-5 == pytest.approx(gradient[variable], rel=1e-4, abs=1e-9)
    # The soft maximum lies above the hard one, by at most the log of the number of entries.
    hard = noise.evaluate(sigma).sum()
    assert hard * (1 - 1e-5) <= value <= hard * math.exp(2 * math.log(1000) / SHARPNESS)


def test_two_layers_get_the_rule_of_data_free_quantization():
    """Between two layers whose channels matter alike, s = √(r₁/r₂) up to a common factor."""
    rng = np.random.default_rng(0)
    ranges = np.exp2(rng.integers(-3, 4, 8)).astype(np.float32)
    b = Builder(0)
    first = b.const((ranges[:, None] * np.ones((8, 4), np.float32)).reshape(8, 4, 1, 1))
    second = b.const(np.ones((3, 8, 1, 1), np.float32))
    x = b.op("Conv", b.input(4, 4, 4), first, shape=(8, 4, 4), kernel_shape=[1, 1])
    x = b.op("Conv", b.op("Relu", x), second, shape=(3, 4, 4), kernel_shape=[1, 1], name="y")
    model = b.model(x)
    _, record = equalize(model, None, random_feeds(model), EqualizationOptions(real_scales=True))
    exponents = next(values for values in record.exponents.values() if values.size == 8)
    rule = -0.5 * np.log2(ranges)
    assert np.ptp(exponents.ravel() - rule) < 0.35


def test_the_strongest_elements_tell_where_the_scales_go(monkeypatch):
    """Of a large weight those of each row and column take part, and the scales come out as good."""
    b = Builder(3, spread=4)
    x = b.op("Relu", b.gemm(b.op("Relu", b.gemm(b.input(96, name="x"), 512)), 512))
    model = b.model(b.gemm(x, 96))
    whole, start = problem(model)
    monkeypatch.setattr(noise_module, "WHOLE", 512 * 512 - 1)
    strong, _ = problem(model)
    sizes = [term.log_weight.size for term in strong.weights]
    assert sizes[1] < 512 * 512 / 3
    assert [sizes[0], sizes[2]] == [512 * 96, 96 * 512]
    before, best, found = (
        whole.evaluate(exponents * math.log(2)).sum()
        for exponents in (start, solve(whole, start).exponents, solve(strong, start).exponents)
    )
    assert best < before * 0.8
    assert 10 * math.log10(found / best) < 0.2


@settings(max_examples=60)
@given(random_models())
def test_intervals_hold(model):
    graph = Graph(model)
    classes = find_classes(graph)
    found = {name: each for name, each in intervals(graph, classes).items() if graph.rank(name)}
    assume(found)
    feeds = {name: 50 * x for name, x in fixed_feeds(model, batch=8).items()}
    session = open_session(with_outputs(model, found), optimize=False)
    for (name, interval), value in zip(found.items(), run(session, None, feeds), strict=True):
        shape = [1] * value.ndim
        if len(interval.low) > 1:
            shape[classes.channel_axis(name)] = -1
        assert np.all(value >= interval.low.reshape(shape)), name
        assert np.all(value <= interval.high.reshape(shape)), name


def test_proven_ties_hold_for_every_input():
    """Behind a ReLU6 a depthwise channel with small weights provably never saturates."""
    b = Builder(1, spread=0)
    x = b.clip(b.conv(b.input(3, 8, 8), 8, 3))
    weight = b.random(8, 1, 3, 3)
    weight *= (np.exp2(-np.arange(8)) / np.abs(weight).sum(axis=(1, 2, 3)))[:, None, None, None]
    x = b.clip(
        b.conv(x, 8, 3, group=8, bias=False, weight=b.const(weight), name="depthwise"),
        name="second",
    )
    model = b.model(b.head(b.conv(x, 4)))
    result, record = equalize(model, None, random_feeds(model))
    clips = {clip.node: clip for clip in record.clips}
    assert clips["second"].mode == "proven tie"
    assert clips["second"].saturating == 0
    assert record.kernels_added == 0
    assert record.changed
    wild = {"x": 1e4 * fixed_feeds(model, 5, batch=4)["x"]}
    before, after = (run(open_session(m, optimize=False), None, wild) for m in (model, result))
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_that_are_no_numbers_have_finite_noise(per_channel):
    b = Builder(1)
    weight = np.full((8, 4, 1, 1), np.nan, np.float32)
    x = b.op("Conv", b.input(4, 4, 4), b.const(weight), shape=(8, 4, 4), kernel_shape=[1, 1])
    noise, start = problem(b.model(b.conv(b.op("Relu", x), 3)), per_channel=per_channel)
    entries = Objective(noise).gather(start)
    assert Objective(noise).gradient(start, entries)[1].shape == start.shape
