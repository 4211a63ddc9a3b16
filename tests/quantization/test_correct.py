"""Bias correction's measurements alone."""

import warnings

import numpy as np
import pytest
from onnxq.quantization.correct import measure_shift

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
    shift, record = measure_shift("n", batches(wanted), batches(got), axis, (-INF, INF))
    assert record.accepted
    assert np.allclose(shift, error, atol=3e-3)
    assert record.error_before == pytest.approx(np.square(error).mean(), rel=0.01)
    assert record.error_after == pytest.approx(1e-4, rel=0.1)


def test_what_is_clipped_on_both_sides_has_no_say():
    rng = np.random.default_rng(0)
    wanted = rng.uniform(-3, 1, (64, 2, 6, 6)).astype(np.float32)
    got = np.where(wanted > 0, wanted - np.float32(0.1), wanted + np.float32(0.3))
    got = np.minimum(got, np.where(wanted > 0, np.float32(INF), np.float32(0)))
    shift, _ = measure_shift("n", batches(wanted), batches(got), 1, (0.0, INF))
    assert np.allclose(shift, 0.1, atol=0.03)


def test_values_whose_squares_no_float32_holds_are_left_alone():
    wanted = np.full((16, 2, 3, 3), 1e30, np.float32)
    wanted[:, 1] = 1
    rng = np.random.default_rng(0)
    got = wanted * rng.uniform(0.4, 0.6, wanted.shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shift, record = measure_shift("n", batches(wanted), batches(got), 1, (-INF, INF))
    assert shift[0] == 0
    assert shift[1] == pytest.approx(0.5, abs=0.05)
    assert record.accepted


def test_one_sample_cannot_decide():
    one = [np.ones((1, 2, 3, 3), np.float32)]
    shift, record = measure_shift("n", one, one, 1, (-INF, INF))
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
    shift, record = measure_shift(
        "n", batches(wanted), batches(got), axis, (-INF, INF), batches(real)
    )
    assert np.allclose(shift, error, atol=1e-5)
    assert record.error_before == pytest.approx(np.square(error).mean(), rel=1e-4)
    assert record.error_after == pytest.approx(0, abs=1e-9)


def test_padding_has_no_say_where_an_activation_clips():
    rng = np.random.default_rng(0)
    wanted = rng.uniform(0.5, 1, (32, 6, 2)).astype(np.float32)
    real = np.arange(6)[None, :, None] < rng.integers(1, 6, 32)[:, None, None]
    got = np.where(real, wanted - np.float32(0.25), np.float32(7))
    shift, _ = measure_shift("n", batches(wanted), batches(got), -1, (0.0, INF), batches(real))
    assert np.allclose(shift, 0.25, atol=1e-5)
