"""Bias correction's measurements alone."""

import warnings

import numpy as np
import pytest
from onnxq.model.functions import function_of
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.quantization.correct import measure_shift
from onnxq.quantization.readers import Clipping, tabulated

from support.builder import Builder

INF = float("inf")


def batches(values, size=8):
    return [values[start : start + size] for start in range(0, len(values), size)]


@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 3, 5, 7), 1), ((40, 6, 3), -1), ((400, 3), 1), ((24, 3, 90, 70), 1)]
)
def test_the_mean_error_of_each_channel(shape, axis):
    """The last map has more positions than are looked at."""
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal(shape).astype(np.float32)
    error = np.array([0.5, 0.0, -2.0], np.float32)
    noise = np.float32(0.01) * rng.standard_normal(shape).astype(np.float32)
    got = np.moveaxis(np.moveaxis(wanted + noise, axis, -1) - error, -1, axis)
    shift, record = measure_shift("n", batches(wanted), batches(got), axis, None)
    assert record.accepted
    assert np.allclose(shift, error, atol=3e-3)
    assert record.error_before == pytest.approx(np.square(error).mean(), rel=0.01)
    assert record.error_after == pytest.approx(1e-4, rel=0.1)


def test_what_is_clipped_on_both_sides_has_no_say():
    rng = np.random.default_rng(0)
    wanted = rng.uniform(-3, 1, (64, 2, 6, 6)).astype(np.float32)
    got = np.where(wanted > 0, wanted - np.float32(0.1), wanted + np.float32(0.3))
    got = np.minimum(got, np.where(wanted > 0, np.float32(INF), np.float32(0)))
    shift, _ = measure_shift("n", batches(wanted), batches(got), 1, Clipping(0.0, INF))
    assert np.allclose(shift, 0.1, atol=0.03)


def test_values_whose_squares_no_float32_holds_are_left_alone():
    wanted = np.full((16, 2, 3, 3), 1e30, np.float32)
    wanted[:, 1] = 1
    rng = np.random.default_rng(0)
    got = wanted * rng.uniform(0.4, 0.6, wanted.shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shift, record = measure_shift("n", batches(wanted), batches(got), 1, None)
    assert shift[0] == 0
    assert shift[1] == pytest.approx(0.5, abs=0.05)
    assert record.accepted


def test_one_sample_cannot_decide():
    one = [np.ones((1, 2, 3, 3), np.float32)]
    shift, record = measure_shift("n", one, one, 1, None)
    assert not shift.any()
    assert not record.accepted


@pytest.mark.parametrize(
    ("shape", "axis", "sides"),
    [((40, 9, 3), -1, (40, 9, 1)), ((40, 3, 9), 1, (40, 1, 9)), ((360, 3), 1, (360, 1))],
)
def test_padding_has_no_say(shape, axis, sides):
    """Of each sample some positions hold another error, which the mask leaves out."""
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal(shape).astype(np.float32)
    real = rng.random(sides) < 0.6
    error = np.array([0.5, 0.0, -2.0], np.float32)
    got = np.moveaxis(np.moveaxis(wanted, axis, -1) - error, -1, axis)
    got = np.where(real, got, np.float32(100))
    shift, record = measure_shift("n", batches(wanted), batches(got), axis, None, batches(real))
    assert np.allclose(shift, error, atol=1e-5)
    assert record.error_before == pytest.approx(np.square(error).mean(), rel=1e-4)
    assert record.error_after == pytest.approx(0, abs=1e-9)


def test_padding_has_no_say_where_an_activation_clips():
    rng = np.random.default_rng(0)
    wanted = rng.uniform(0.5, 1, (32, 6, 2)).astype(np.float32)
    real = np.arange(6)[None, :, None] < rng.integers(1, 6, 32)[:, None, None]
    got = np.where(real, wanted - np.float32(0.25), np.float32(7))
    shift, _ = measure_shift(
        "n", batches(wanted), batches(got), -1, Clipping(0.0, INF), batches(real)
    )
    assert np.allclose(shift, 0.25, atol=1e-5)


def silu_behind():
    """What makes a SiLU of tensor `y`."""
    b = Builder()
    y = b.op("Neg", b.input(2, 8, 8), name="y")
    out = b.op("Relu", b.op("Mul", y, b.op("Sigmoid", y), name="silu"), name="out")
    graph = Graph(Model(b.proto(out)))
    return function_of(graph, "y")


def test_positions_that_a_function_leaves_flat_have_no_say():
    """Nine of ten are far below zero, where a SiLU is flat, with an error of their own."""
    rng = np.random.default_rng(0)
    wanted = rng.uniform(-30, -20, (64, 2, 8, 8)).astype(np.float32)
    live = rng.random(wanted.shape) < 0.1
    wanted[live] = rng.uniform(1, 5, live.sum())
    got = wanted + np.where(live, np.float32(0.2), np.float32(-0.3))
    plain, _ = measure_shift("n", batches(wanted), batches(got), 1, None)
    assert np.allclose(plain, 0.25, atol=0.03)
    shift, record = measure_shift("n", batches(wanted), batches(got), 1, silu_behind())
    assert np.allclose(shift, -0.2, atol=1e-3)
    assert record.error_after < 1e-3 * record.error_before


def test_a_function_is_known_by_its_values():
    function = silu_behind()
    values = np.linspace(-9, 4, 1001, dtype=np.float32).reshape(7, 11, 13)
    table = tabulated(function, iter([(values, values)]))
    exact = np.maximum(values / (1 + np.exp(-values)), 0)
    assert np.allclose(table.result(values), exact, atol=1e-3)
    assert np.allclose(table.weights(values[values > 1], values[values > 1]), 1, atol=0.25)
    assert not table.weights(np.float32([-9, -0.1]), np.float32([-9, -0.1])).any()
    # What is no number, or beyond what was seen, is at an end.
    assert np.array_equal(table.result(np.float32([np.nan, -99, 99])), table.results[[0, 0, -1]])
    assert tabulated(function, iter([(np.ones(3, np.float32), np.ones(3, np.float32))])) is None
    endless = np.float32([0, np.inf])
    assert tabulated(function, iter([(endless, endless)])) is None
