"""Effects of layers by gradients, against running what lies behind each of them."""

from dataclasses import replace

import numpy as np
import onnxq
import pytest
from onnxq import api
from onnxq.validation import effects, layers
from onnxq.validation.effects import Runs, added
from onnxq.validation.first_order import (
    FEWEST,
    LEAST_DRAWS,
    MOST,
    SAMPLES,
    draws_of,
    slopes_of,
)
from onnxq.validation.layers import measure_layers
from onnxq.validation.workbench import open_bench

from support.builder import Builder

ROUNDING = 1e-12
"""Power of an error that is float32's own: that of the layers here is near 1."""


def network(middle):
    """Convolutions, something amid them, and two outputs of different size."""
    b = Builder(1)
    x = b.clip(b.conv(b.input(3, 8, 8), 8, 3))
    for _ in range(2):
        x = b.clip(b.conv(x, 8, 3))
    x = middle(b, x)
    for _ in range(2):
        x = b.clip(b.conv(x, 8, 3))
    return b.model(b.head(x), b.conv(x, 4, 1))


def smooth(b, x):
    return b.op("Sigmoid", x)


def stepped(b, x):
    """A running sum along the channels, of which no gradient is known."""
    return b.op("CumSum", x, b.const(np.array(1, np.int64)))


def infinite(b, x):
    """Where a Clip gave 0, the slope of the root is infinite, and 0 · ∞ is no number."""
    return b.op("Sqrt", x)


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def made(middle):
    model = network(middle)
    return model, onnxq.quantize(model, images(32), equalize=False)[0]


@pytest.fixture
def estimating(monkeypatch):
    """So that few layers and samples are too many to run all of them."""
    monkeypatch.setattr(layers, "FIRST_LOOK", 0)
    monkeypatch.setattr(effects, "WORST", 2)


def test_small_errors_have_the_effects_that_gradients_tell():
    model, int8 = made(smooth)
    batches = [{"x": image[None]} for image in images(24, seed=1)]
    bench = open_bench(model, int8, batches)
    slopes = slopes_of(bench)
    assert len(bench.parts.parts) == 2
    assert set(slopes.layers) == set(bench.layers)
    found = added(bench, lambda: batches, replace(slopes, draws=16)).noise
    truth = added(bench, lambda: batches, Runs(bench.layers)).noise
    for name in bench.layers:
        # Where no error comes to, both models may still run with other kernels.
        truth[name] = np.where(truth[name] < ROUNDING, 0, truth[name])
        assert np.all(found[name] <= 1.5 * truth[name]), name
        assert np.all(found[name] >= truth[name] / 1.5), name


@pytest.mark.parametrize("middle", [smooth, stepped])
def test_the_ranking_is_that_of_running_all(middle, estimating):
    model, int8 = made(middle)
    source = api.as_source(images(32, seed=1), model)
    truth = measure_layers(model, int8, source, first_look=32)
    report = measure_layers(model, int8, source)
    assert not any(layer.estimated for layer in truth.layers)
    assert sum(layer.estimated for layer in report.layers) == len(truth.layers) - effects.WORST
    assert [layer.name for layer in report.layers[:2]] == [layer.name for layer in truth.layers[:2]]
    assert report.layers == measure_layers(model, int8, source).layers
    shares = {layer.name: layer.share for layer in truth.layers}
    for layer in report.layers:
        assert layer.share == pytest.approx(shares[layer.name], rel=0.6, abs=2)


def test_what_has_no_number_for_a_gradient_is_run(estimating):
    model, int8 = made(infinite)
    batches = [{"x": images(1)}]
    bench = open_bench(model, int8, batches)
    noise = added(bench, lambda: batches, slopes_of(bench)).noise
    assert not all(np.isfinite(each).all() for each in noise.values())
    report = measure_layers(model, int8, api.as_source(images(32, seed=1), model))
    assert len(report.layers) == len(bench.layers)
    assert sum(layer.share for layer in report.layers) == pytest.approx(100)
    assert all(np.isfinite(layer.alone) for layer in report.layers)


def test_behind_an_operator_without_a_gradient_there_is_none():
    bench = open_bench(*made(stepped), [{"x": images(4)}])
    assert 0 < len(slopes_of(bench).layers) < len(bench.layers)


def test_many_parts_or_much_memory_have_no_gradients():
    bench = open_bench(*made(smooth), [{"x": images(4)}])
    parts = bench.parts.parts * MOST
    assert slopes_of(replace(bench, parts=replace(bench.parts, parts=parts))) is None
    assert slopes_of(replace(bench, footprint=1 << 40)) is None


@pytest.mark.parametrize("parts", [1, 2, 16])
@pytest.mark.parametrize("samples", [1, 8, 64])
@pytest.mark.parametrize("total", [8, 2000])
def test_passes_back_are_few_and_enough(parts, samples, total):
    looked, draws = draws_of(parts, samples, total)
    assert 1 <= looked <= min(samples, SAMPLES)
    assert looked * draws * parts <= max(MOST, LEAST_DRAWS * parts)
    assert looked * draws >= min(LEAST_DRAWS, samples * LEAST_DRAWS)
    assert looked * draws * parts >= min(FEWEST, LEAST_DRAWS * parts)
