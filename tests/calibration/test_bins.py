"""Fixed bins: every float32 has one, histograms add and shift without error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxq.calibration import bins
from onnxq.calibration.accumulate import Accumulator

LARGEST = float(np.finfo(np.float32).max)
SPECIAL = [0.0, -0.0, LARGEST, -LARGEST, 1e-45, -1e-45, 1.1754944e-38, 2.0**-32, -(2.0**-32), 1.0]

finite = st.one_of(
    st.sampled_from(SPECIAL),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-10, 10, width=32),
)
arrays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=finite
)


def statistics(values, axis=None):
    accumulator = Accumulator(axis)
    accumulator.add(np.asarray(values, np.float32))
    return accumulator.finish()


def column_edges(column, top):
    """Interval of magnitudes and the sign of a histogram column."""
    edges, width = bins.edges(top), bins.magnitude_bins(top)
    if column == 0:
        return 0.0, 2.0**bins.FLOOR, 0
    index = (column - 1) % width
    return edges[index], edges[index + 1], -1 if column > width else 1


@given(finite)
def test_a_value_lies_between_the_edges_of_its_bin(value):
    value = np.float32(value)
    top = bins.top_of(abs(float(value)))
    column = bins.lookup_table(top)[bins.high_half(value.reshape(1))[0]]
    low, high, sign = column_edges(column, top)
    assert low <= abs(float(value)) < high
    if sign:
        assert np.sign(value) == sign


@pytest.mark.parametrize("top", [bins.FLOOR + 1, 0, 3, bins.CEILING])
def test_edges_ascend_and_meet_the_window(top):
    edges = bins.edges(top)
    assert len(edges) == bins.magnitude_bins(top) + 1
    assert edges[0] == 2.0**bins.FLOOR
    assert edges[-1] == 2.0**top
    assert np.all(np.diff(edges) > 0)
    assert np.all(edges[1:] / edges[:-1] <= 1 + 1 / bins.BINS_PER_OCTAVE)


def test_at_least_32_bins_an_octave():
    assert bins.BINS_PER_OCTAVE >= 32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.nan])
def test_what_is_not_finite_has_a_column_of_its_own(value):
    table = bins.lookup_table(4)
    column = table[bins.high_half(np.array([value], np.float32))[0]]
    assert column == 1 + 2 * bins.magnitude_bins(4)
    found = statistics([value, 1.0])
    assert found.not_finite == 1
    assert found.count == 1
    assert (found.low, found.high) == (1.0, 1.0)


@given(arrays, st.sampled_from([None, 0, 1, 2]))
def test_every_value_is_counted_once(values, axis):
    found = statistics(values, axis)
    assert found.count == values.size
    assert found.not_finite == 0
    moved = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0)
    rows = moved.reshape(len(moved), -1)
    assert np.array_equal(found.minimum, rows.min(axis=1))
    assert np.array_equal(found.maximum, rows.max(axis=1))
    assert np.array_equal(found.counts.sum(axis=1), np.full(len(rows), rows.shape[1]))
    for row, counts in zip(rows, found.counts, strict=True):
        for column in np.flatnonzero(counts):
            low, high, sign = column_edges(column, found.top)
            inside = (np.abs(row.astype(np.float64)) >= low) & (
                np.abs(row.astype(np.float64)) < high
            )
            if sign:
                inside &= np.sign(row) == sign
            assert counts[column] == inside.sum()


@given(st.lists(arrays, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_neither_order_nor_batches_matter(parts, shuffler):
    """One pass, the batches in any order, and merged parts: the same bits."""
    flat = [part.ravel() for part in parts]
    whole = statistics(np.concatenate(flat))
    shuffler.shuffle(flat)
    accumulator = Accumulator(None)
    for part in flat:
        accumulator.add(part)
    merged = statistics(flat[0])
    for part in flat[1:]:
        merged = statistics(part).merge(merged)
    for other in (accumulator.finish(), merged):
        assert other.top == whole.top
        for name in ("minimum", "maximum", "counts"):
            assert np.array_equal(getattr(other, name), getattr(whole, name))


@given(
    hnp.arrays(np.float32, (4, 6), elements=st.floats(-100, 100, width=32)),
    st.lists(st.integers(-6, 6), min_size=6, max_size=6),
)
def test_scaling_by_powers_of_two_shifts_the_histogram(values, exponents):
    values[np.abs(values) < 2.0**-20] = 0
    exponents = np.array(exponents)
    shifted = statistics(values, 1).scaled(exponents)
    fresh = statistics(values * np.exp2(exponents).astype(np.float32), 1)
    assert np.array_equal(shifted.minimum, fresh.minimum)
    assert np.array_equal(shifted.maximum, fresh.maximum)
    top = max(shifted.top, fresh.top)
    assert np.array_equal(
        bins.regrow(shifted.counts, shifted.top, top), bins.regrow(fresh.counts, fresh.top, top)
    )


@given(hnp.arrays(np.float32, 50, elements=st.floats(-1e3, 1e3, width=32)))
def test_moments_are_close(values):
    values[np.abs(values) < 1e-6] = 0
    found = statistics(values)
    exact = values.astype(np.float64)
    assert (
        abs(found.mean_square[0] - np.square(exact).mean())
        <= 0.04 * np.square(exact).mean() + 1e-12
    )
    assert abs(found.mean[0] - exact.mean()) <= 0.02 * np.abs(exact).mean() + 1e-12


def test_memory_does_not_grow_with_the_samples():
    accumulator = Accumulator(None)
    rng = np.random.default_rng(0)
    for _ in range(400):
        accumulator.add(rng.standard_normal(100_000).astype(np.float32))
        assert accumulator._codes.nbytes < 1 << 20
    assert accumulator.finish().count == 40_000_000


def test_a_channel_of_few_values_takes_little_memory():
    """A recurrent network that was unrolled has hundreds of thousands of them: gigabytes."""
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((3, 8, 100)).astype(np.float32)
    little, usual = Accumulator(1), Accumulator(1)
    for part in parts:
        little.add(part, batches=3)
        usual.add(part)
    assert little._codes.nbytes == 100 * 2 * 24
    assert little._counts.dtype == np.uint16
    found, expected = little.finish(), usual.finish()
    assert np.array_equal(found.counts, expected.counts)
    assert found.counts.nbytes == 2 * found.counts.size
    assert found.count == parts.size


def test_more_batches_than_were_foreseen_are_counted():
    parts = np.random.default_rng(0).standard_normal((5, 8, 3)).astype(np.float32)
    accumulator = Accumulator(1)
    for part in parts:
        accumulator.add(part, batches=2)
    assert np.array_equal(accumulator.finish().counts, statistics(parts.reshape(-1, 3), 1).counts)


def test_counts_widen_with_the_values():
    ones, accumulator = np.ones((40_000, 2), np.float32), Accumulator(1)
    widths = []
    for _ in range(3):
        accumulator.add(ones)
        found = accumulator.finish()
        widths.append(found.counts.dtype)
        assert found.counts.max() == found.counts.sum(axis=1).max() == len(ones) * len(widths)
    assert widths == [np.uint16, np.int32, np.int32]
    merged = statistics(ones, 1).merge(statistics(ones, 1))
    assert merged.counts.max() == 2 * len(ones)
    assert merged.counts.dtype == np.int32
    assert merged.scaled(np.array([1, -2])).counts.max() == 2 * len(ones)


def test_nothing_seen_is_nothing_known():
    assert Accumulator(1).finish() is None
    accumulator = Accumulator(1)
    assert accumulator.add(np.zeros((0, 3), np.float32))
    assert accumulator.finish() is None


@pytest.mark.parametrize("top", [bins.FLOOR + 1, -3, 5, bins.CEILING])
def test_sums_of_codes_are_those_of_columns(top):
    """As the table has it, value by value; what is above the window counts in its last bin."""
    sums = np.random.default_rng(top + 99).integers(1, 9, (2, bins.CODES)).astype(np.float64)
    columns = 2 + 2 * bins.magnitude_bins(top)
    wanted = [np.bincount(bins.code_table(top), row, columns)[:-1] for row in sums]
    assert np.array_equal(bins.by_column(sums, top), wanted)
