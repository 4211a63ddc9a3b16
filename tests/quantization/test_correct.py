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
