"""Sums of squares, against float64 over all values."""

import numpy as np
import pytest
from onnxq.validation.powers import ROW, difference, power


@pytest.mark.parametrize("count", [0, 1, ROW - 1, ROW, ROW + 1, 5 * ROW + 7])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_power_is_the_sum_of_squares(count, dtype):
    values = (np.random.default_rng(0).standard_normal(count) * 10).astype(dtype)
    wanted = np.square(values.astype(np.float64)).sum()
    assert power(values) == pytest.approx(wanted, rel=1e-6)


def test_any_shape_and_order_will_do():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert power(values.T) == power(values[::-1]) == 23 * 24 * 47 / 6
    assert power(np.float32(3)) == 9


def test_squares_beyond_float32_are_added_all_the_same():
    values = np.full(3 * ROW, 1e30, np.float32)
    assert power(values) == pytest.approx(3 * ROW * 1e60, rel=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_so(value):
    values = np.ones(2 * ROW, np.float32)
    values[3] = value
    assert not np.isfinite(power(values))
    assert np.isnan(power(values)) == np.isnan(value)


def test_of_another_shape_nothing_came():
    wanted = np.float32([[1, 2]])
    assert difference(np.float32([[3, 5]]), wanted).tolist() == [[2, 3]]
    assert difference(np.zeros((1, 3), np.float32), wanted).tolist() == [[-1, -2]]
    assert power(difference(np.zeros(7), wanted)) == power(wanted)
