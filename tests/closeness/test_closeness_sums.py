"""The sums that comparisons rest on, against numpy over all values at once."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.closeness import sums as module
from onnxq.closeness.sums import (
    NOISE,
    POWER,
    PRODUCT,
    SIGNAL,
    Sums,
    add_sums,
    as_array,
    cosine_of,
    is_float,
    is_float_type,
    sums_of,
)


def one(x, y, samples=1):
    return sums_of({"y": x}, {"y": y}, samples)["y"]


def numbers(x, y):
    """Rows of `Sums` in float64, by their definition."""
    x, y = np.float64(x), np.float64(y)
    return [(x * x).sum(), ((x - y) ** 2).sum(), (x * y).sum(), (y * y).sum()]


def test_powers_are_of_all_values_and_of_each_slice():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 4, 3, 5)).astype(np.float32)
    found = one(x, y, 4)
    np.testing.assert_allclose(found.powers, numbers(x, y))
    assert (found.samples, found.values, found.other_shape) == (4, 60, 0)
    assert found.largest == pytest.approx(np.abs(np.float64(x) - y).max())
    assert set(found.slices) == {1, 2}
    for axis, each in found.slices.items():
        for index in range(x.shape[axis]):
            part = numbers(x.take(index, axis), y.take(index, axis))
            np.testing.assert_allclose(each[:, index], part)


def test_an_output_that_is_not_one_row_a_sample_is_one_vector():
    x, y = np.float32([[3, 0], [0, 4]]), np.float32([[3, 0], [0, 0]])
    found = one(x, y, samples=1)
    assert set(found.slices) == {0, 1}
    assert found.cosines == pytest.approx([0.6, 1])
    by_row = one(x, y, samples=2)
    assert set(by_row.slices) == {1}
    assert by_row.cosines == pytest.approx([1, 2])


def test_long_axes_and_those_of_one_have_no_slices():
    x = np.ones((2, 1, module.MOST_SLICES + 1), np.float32)
    assert one(x, x, 2).slices == {}


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 7, 6))
    whole = one(x, y, 7)
    monkeypatch.setattr(module, "BLOCK", 13)
    blocks = one(x, y, 7)
    np.testing.assert_allclose(blocks.powers, whole.powers)
    np.testing.assert_allclose(blocks.cosines, whole.cosines)
    np.testing.assert_allclose(blocks.slices[1], whole.slices[1])
    assert blocks.largest == whole.largest


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_sums_of_batches_are_those_of_all(sizes, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, sum(sizes), 3))
    total: dict[str, Sums] = {}
    for start, stop in zip(np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
        add_sums(total, sums_of({"y": x[start:stop]}, {"y": y[start:stop]}, stop - start))
    whole = one(x, y, sum(sizes))
    np.testing.assert_allclose(total["y"].powers, whole.powers)
    np.testing.assert_allclose(total["y"].cosines, whole.cosines)
    assert (total["y"].samples, total["y"].values) == (whole.samples, whole.values)


def test_slices_of_another_number_are_left_out_and_of_nothing_not():
    three, four = (one(np.ones((2, n)), np.ones((2, n)), 2) for n in (3, 4))
    assert (three + four).slices == {}
    other = one(np.ones((2, 3)), np.ones((2, 4)), 2)
    assert (other.samples, other.other_shape, other.values) == (0, 2, 0)
    for total in (three + other, other + three):
        assert set(total.slices) == {1}
        assert (total.samples, total.other_shape) == (2, 2)


def test_a_scalar_and_nothing_at_all():
    found = one(np.float32(2), np.float32(1))
    assert found.powers.tolist() == [4, 1, 2, 1]
    empty = one(np.zeros((1, 0)), np.zeros((1, 0)))
    assert (empty.values, empty.largest, empty.powers.tolist()) == (0, 0, [0, 0, 0, 0])


@pytest.mark.parametrize(
    ("x", "y", "noise"),
    [
        (np.inf, np.inf, 0),
        (np.nan, np.nan, 0),
        (np.inf, -np.inf, np.inf),
        (np.nan, 1, np.inf),
        (1, np.nan, np.inf),
        (1, np.inf, np.inf),
    ],
)
def test_what_is_not_finite_in_one_only_is_infinitely_wrong(x, y, noise):
    found = one(np.float32([[x, 2]]), np.float32([[y, 2]]))
    assert found.powers[NOISE] == noise
    assert found.powers[[SIGNAL, PRODUCT, POWER]].tolist() == [4, 4, 4]
    assert found.largest == noise


def test_integers_and_texts_are_counted_only():
    for x, y in ((np.array([1, 2, 3]), np.array([1, 0, 3])), (np.array(["a", "b", "c"]), np.array(["a", "x", "c"]))):  # fmt: skip
        found = one(x, y, 3)
        assert (found.is_float, found.values, found.equal) == (False, 3, 2)
        assert found.powers.tolist() == [0, 0, 0, 0]


def test_cosine_is_1_where_nothing_differs_and_0_against_nothing():
    powers = np.transpose([numbers([3, 4], [4, 3]), numbers([0, 0], [0, 0]), numbers([1, 1], [0, 0]), numbers([1, 0], [-2, 0])])  # fmt: skip
    assert cosine_of(powers) == pytest.approx([24 / 25, 1, 0, -1])


def test_maps_are_rows_and_sequences_one_vector():
    assert as_array([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]).tolist() == [[1, 2], [3, 4]]
    assert as_array([np.ones((2, 2)), np.zeros(1)]).tolist() == [1, 1, 1, 1, 0]
    assert as_array([]).size == 0
    assert as_array(3.0).shape == ()


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("f2", True), ("f4", True), ("f8", True), (ml_dtypes.bfloat16, True), ("i8", False), ("?", False), ("U3", False)],
)  # fmt: skip
def test_which_types_are_float(kind, wanted):
    assert is_float_type(np.dtype(kind)) is wanted
    assert is_float(np.zeros(1, kind)) is wanted


# --- padding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "shape"), [(1, (3, 4, 5)), (2, (3, 5, 4)), (0, (12, 5))])
def test_padding_is_not_compared(axis, shape):
    """As if each sample had been given alone, without the values that are padding."""
    rng = np.random.default_rng(2)
    lengths = [4, 1, 3]
    real = np.arange(4) < np.array(lengths)[:, None]
    x, y = rng.standard_normal((2, *shape)).astype(np.float32)
    sides = [1] * len(shape)
    sides[0] = shape[0]
    if axis:
        sides[axis] = 4
    kept = real.reshape(sides)
    y = np.where(kept, y, np.float32(1000))
    found = sums_of({"y": x}, {"y": y}, 3, {"y": kept})["y"]
    total: dict[str, Sums] = {}
    for row, length in enumerate(lengths):
        if axis:
            parts = [np.moveaxis(v, axis, 1)[row, :length][None] for v in (x, y)]
            parts = [np.moveaxis(v, 1, axis) for v in parts]
        else:
            parts = [v[4 * row : 4 * row + length][None] for v in (x, y)]
        add_sums(total, {"y": one(*parts)})
    wanted = total["y"]
    np.testing.assert_allclose(found.powers, wanted.powers)
    np.testing.assert_allclose(found.cosines, wanted.cosines)
    np.testing.assert_allclose(found.spread, wanted.spread)
    assert (found.samples, found.values, found.left_out) == (3, 40, 20)
    assert found.largest == wanted.largest < 100


def test_a_sample_of_nothing_but_padding_has_no_say():
    x, y = np.ones((2, 3, 2), np.float32), np.zeros((2, 3, 2), np.float32)
    y[1] = 5
    found = sums_of({"y": x}, {"y": y}, 2, {"y": np.array([[True] * 3, [False] * 3])[..., None]})
    assert (found["y"].samples, found["y"].values, found["y"].largest) == (1, 6, 1)
    np.testing.assert_allclose(found["y"].powers, numbers(x[0], y[0]))


def test_outputs_of_two_shapes_stay_incomparable():
    x, y = np.ones((2, 3, 2), np.float32), np.ones((2, 3, 1), np.float32)
    found = sums_of({"y": x}, {"y": y}, 2, {"y": np.array([[True, True, False]] * 2)[..., None]})
    assert found["y"].other_shape == 2
