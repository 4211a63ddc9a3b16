"""The error behind what reads a tensor, against quantizing the very values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.calibration.behind import ALIKE, FLAT, loss_of, part_of, plain
from onnxq.calibration.ranges import noise

from support.histograms import distribution_of

LEVELS = 256


def silu(x):
    return x / (1 + np.exp(-x))


def quantized(x, low, high):
    step = (high - low) / (LEVELS - 1)
    return np.clip(np.rint((x - low) / step) * step + low, low, high)


def part(values, function):
    data = distribution_of(values)
    half = 1e-4
    slope = (function(data.values + half) - function(data.values - half)) / (2 * half)
    return part_of(data.values, data.counts, slope, function(data.values))


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 1), st.floats(0.3, 1))
def test_read_as_it_is_it_is_the_expected_squared_error(seed, low, high):
    data = distribution_of(np.random.default_rng(seed).standard_normal(500))
    candidate = data.low * low, data.high * high
    found = loss_of([plain(data)], LEVELS)(candidate)
    assert np.isclose(found, noise(data.values, data.counts, candidate, LEVELS), rtol=1e-9)


@pytest.mark.parametrize("candidate", [(-6.0, 9.0), (-1.5, 9.0), (-6.0, 3.0), (-0.5, 2.0)])
@pytest.mark.parametrize("power", [2, 3])
def test_behind_a_function_it_is_the_error_of_its_result(candidate, power):
    values = np.random.default_rng(0).standard_normal(200_000) * 2
    found = loss_of([part(values, silu)], LEVELS, power)(candidate)
    errors = np.abs(silu(quantized(values, *candidate)) - silu(values)) ** power
    # Where it is flat all are clipped alike.
    slope = (silu(values + 1e-4) - silu(values - 1e-4)) / 2e-4
    alike = (np.abs(slope) < FLAT) & ((values < candidate[0]) | (values > candidate[1]))
    real = errors[~alike].sum() + ALIKE * errors[alike].sum()
    assert found == pytest.approx(real, rel=0.03 * power)


def test_what_a_function_flattens_costs_nothing():
    """Behind a ReLU the negative half may be clipped: all steps go to the other one."""
    values = np.random.default_rng(1).standard_normal(10_000)
    loss = loss_of([part(values, lambda x: np.maximum(x, 0))], LEVELS)
    high = values.max()
    assert loss((0.0, high)) < loss((values.min(), high)) / 3


def test_several_add_up():
    rng = np.random.default_rng(2)
    parts = [part(rng.standard_normal(1000) * scale, silu) for scale in (1, 4)]
    candidate = (-2.0, 6.0)
    each = [loss_of([one], LEVELS)(candidate) for one in parts]
    assert loss_of(parts, LEVELS)(candidate) == pytest.approx(sum(each))
