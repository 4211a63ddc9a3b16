"""What the weights prove: no partial sum leaves its reach, and parts are exact and few."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxq.emulation.bounds import EXACT_FLOAT32, exact_parts, product_reach, reach
from onnxq.formats.accumulators import Accumulator

INT32 = Accumulator(32)

intervals = st.sampled_from([(0, 255), (-128, 127), (-255, 0), (-3, 252)])


@settings(max_examples=100)
@given(st.integers(0, 2**16), intervals, st.booleans())
def test_reach_is_the_tightest_bound_of_partial_sums(seed, interval, with_bias):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-255, 256, (3, 6)).astype(np.int16)
    bias = rng.integers(-1000, 1000, 3) if with_bias else np.zeros(3, int)
    found = reach(weight, interval, bias if with_bias else None)
    # Every term, and the bias, at one of its ends or not yet added.
    sums = [
        b * taken + sum(w * x for w, x in zip(row, ends, strict=True))
        for row, b in zip(weight.astype(int), bias, strict=True)
        for ends in itertools.product((0, *interval), repeat=6)
        for taken in (0, 1)
    ]
    assert (found.low, found.high) == (min(0, *sums), max(0, *sums))


@settings(max_examples=50)
@given(st.integers(0, 2**16), intervals, st.integers(1, 4000), st.integers(1, 255))
def test_parts_are_exact_and_cannot_be_fewer(seed, interval, terms, magnitude):
    weight = np.random.default_rng(seed).integers(-20, magnitude + 1, (2, terms)).astype(np.int16)
    parts = list(exact_parts(weight, interval))
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == terms
    for start, stop in parts:
        assert reach(weight[:, start:stop], interval).largest <= EXACT_FLOAT32
        if stop < terms:
            assert reach(weight[:, start : stop + 1], interval).largest > EXACT_FLOAT32


def test_an_unknown_number_of_terms_has_no_bound():
    assert not product_reach(float("inf"), (0, 255), (-128, 127)).fits(INT32)
    assert product_reach(float("inf"), (0, 255), (0, 255)).low == 0
    assert product_reach(4, (0, 255), (-128, 127)).largest == 4 * 255 * 128
