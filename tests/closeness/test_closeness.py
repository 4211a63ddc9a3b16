"""The comparison of outputs: every output and every group of slices has its own numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.closeness.groups import cut_groups, spans
from onnxq.closeness.parts import closeness, worst, worst_sqnr
from onnxq.closeness.sums import sums_of

RNG = np.random.default_rng(0)


def compared(reference, outputs, *, batch=4):
    """One output in batches."""
    total = None
    for start in range(0, len(reference), batch):
        part = slice(start, start + batch)
        samples = len(reference[part])
        sums = sums_of({"y": reference[part]}, {"y": outputs[part]}, samples)["y"]
        total = sums if total is None else total + sums
    (found,) = closeness({"y": total})
    return found


def boxes_and_scores(samples=16, *, rare=False):
    """(samples, 4 boxes + 6 scores, 50 places): pixels beside 0…1, as detectors join them."""
    boxes = RNG.uniform(50, 200, (samples, 4, 50))
    peaks = np.array([1, 0.9, 0.3, 0.1, 0.02, 0.0013 if rare else 0.01])
    scores = peaks[:, None] * RNG.uniform(0, 0.2, (samples, 6, 50))
    return np.concatenate([boxes, scores], axis=1).astype(np.float32)


def sqnr(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return 10 * np.log10(np.square(x).sum() / np.square(x - y).sum())


def test_boxes_beside_scores_are_two_groups():
    x = boxes_and_scores()
    y = x + RNG.standard_normal(x.shape).astype(np.float32) * np.where(
        np.arange(10) < 4, 0.5, 0.02
    ).astype(np.float32).reshape(10, 1)
    found = compared(x, y)
    assert [(part.axis, part.slices) for part in found.groups] == [
        (1, (0, 1, 2, 3)), (1, (4, 5, 6, 7, 8, 9))
    ]  # fmt: skip
    assert found.whole.sqnr == pytest.approx(sqnr(x, y))
    assert found.groups[0].sqnr == pytest.approx(sqnr(x[:, :4], y[:, :4]))
    assert found.groups[1].sqnr == pytest.approx(sqnr(x[:, 4:], y[:, 4:]))
    assert found.largest_error == pytest.approx(np.abs(x.astype(np.float64) - y).max())
    part = worst([found], lambda each: each.sqnr)
    assert part.label == "y (axis 1: 4–9)"
    assert part.sqnr < 20 < found.whole.sqnr


def test_zeroed_scores_are_seen():
    x = boxes_and_scores()
    y = x.copy()
    y[:, 4:] = 0
    found = compared(x, y)
    assert found.whole.sqnr > 60
    assert found.whole.cosine > 0.99999
    assert worst_sqnr([found]) == 0
    assert worst([found], lambda each: each.cosine).cosine == 0


def test_a_class_that_never_occurs_is_not_judged_alone():
    """Its scores are 15 times quieter than the next: no thing of another kind among scores."""
    x = boxes_and_scores(rare=True)
    assert [part.slices for part in compared(x, x).groups] == [(0, 1, 2, 3), (4, 5, 6, 7, 8, 9)]
    assert cut_groups(np.square([100, 70, 0.03, 0.004, 6e-4, 5e-5])) == ((0, 1), (2, 3, 4, 5))
    assert cut_groups(np.square([100, 70, 0.03, 0.02, 0.0015])) == ((0, 1), (2, 3), (4,))
    assert cut_groups(np.square([3.0, 0.0, 2.0])) == ((0, 1, 2),)


def jackknife(x, y, groups):
    """NumPy's own: the pooled ratio without each group of samples."""
    signal, noise = (
        np.square(values).sum(axis=tuple(range(1, x.ndim)))
        for values in (x.astype(np.float64), x.astype(np.float64) - y)
    )
    without = [groups != group for group in np.unique(groups)]
    left = np.array([10 * np.log10(signal[kept].sum() / noise[kept].sum()) for kept in without])
    return np.sqrt((len(left) - 1) * left.var())


def uneven(samples, seed=0):
    """Samples whose errors differ in size, as those of pictures do."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, 6, 5)) * rng.uniform(0.5, 2, (samples, 1, 1))
    noise = rng.standard_normal(x.shape) * np.exp(rng.standard_normal((samples, 1, 1))) / 100
    return x.astype(np.float32), (x + noise).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize("samples", [2, 5, 30, 64])
def test_the_error_of_an_sqnr_is_the_jackknifes(samples, batch):
    x, y = uneven(samples)
    found = compared(x, y, batch=batch).whole
    assert found.sqnr_error == pytest.approx(jackknife(x, y, np.arange(samples)), rel=1e-6)


def test_more_samples_than_buckets_are_left_out_in_groups():
    x, y = uneven(200)
    found = compared(x, y, batch=8).whole.sqnr_error
    assert found == pytest.approx(jackknife(x, y, np.arange(200) % 64), rel=1e-6)
    assert found == pytest.approx(jackknife(x, y, np.arange(200)), rel=0.3)


def test_the_error_says_how_much_other_samples_differ_and_shrinks_with_their_number():
    errors = {}
    for samples in (16, 64, 256):
        draws = [compared(*uneven(samples, seed), batch=8).whole for seed in range(200)]
        errors[samples] = np.mean([each.sqnr_error for each in draws])
        true = np.std([each.sqnr for each in draws], ddof=1)
        assert errors[samples] == pytest.approx(true, rel=0.35)
    assert errors[16] > 1.5 * errors[64] > 2 * errors[256]


def test_groups_of_slices_have_an_error_of_their_own():
    x = boxes_and_scores(12)
    sizes = RNG.uniform(0.2, 3, (12, 1, 1)) * np.where(np.arange(10) < 4, 0.5, 0.02).reshape(10, 1)
    y = x + (RNG.standard_normal(x.shape) * sizes).astype(np.float32)
    for part in compared(x, y, batch=5).groups:
        kept = list(part.slices)
        wanted = jackknife(x[:, kept], y[:, kept], np.arange(12))
        assert part.sqnr_error == pytest.approx(wanted, rel=1e-6)


def test_what_samples_do_not_tell_is_no_number():
    x, y = uneven(1)
    assert math.isnan(compared(x, y).whole.sqnr_error)
    assert math.isnan(compared(x, x).whole.sqnr_error)
    x, y = uneven(4)
    y[1:] = x[1:]  # all of the noise is in one
    assert math.isnan(compared(x, y).whole.sqnr_error)


@given(st.permutations(range(16)), st.integers(1, 16))
def test_neither_order_nor_batches_decide(order, batch):
    x = boxes_and_scores()
    y = np.round(x, 2)
    here, there = compared(x, y), compared(x[order], y[order], batch=batch)
    assert [p.slices for p in here.groups] == [p.slices for p in there.groups]
    for a, b in zip(here.parts, there.parts, strict=True):
        assert a.sqnr == pytest.approx(b.sqnr, abs=1e-9)
        assert a.cosine == pytest.approx(b.cosine, abs=1e-12)


def test_cosine_is_the_mean_over_samples():
    x, y = (
        np.array([[1.0, 0], [0, 2], [0, 0], [3, 0]]),
        np.array([[2.0, 0], [1, 0], [0, 0], [0, 0]]),
    )
    assert compared(x, y).whole.cosine == pytest.approx((1 + 0 + 1 + 0) / 4)


def test_integers_are_counted_and_decide_nothing():
    x, y = np.arange(12).reshape(4, 3), np.arange(12).reshape(4, 3).copy()
    y[0, 0] = 7
    found = compared(x, y)
    assert found.equal == pytest.approx(100 * 11 / 12)
    assert math.isnan(found.whole.sqnr)
    assert worst([found], lambda each: each.sqnr) is None
    assert math.isnan(worst_sqnr([found]))


def test_sizes_that_depend_on_the_data_are_compared_where_they_agree():
    pairs = [(3, 3), (2, 3), (0, 0), (4, 4), (5, 1)]
    total = None
    for rows, others in pairs:
        x = RNG.standard_normal((rows, 5)).astype(np.float32)
        y = x + 0.1 if rows == others else np.zeros((others, 5), np.float32)
        sums = sums_of({"y": x}, {"y": y}, 1)["y"]
        total = sums if total is None else total + sums
    (found,) = closeness({"y": total})
    assert found.other_shape == pytest.approx(40)
    assert found.largest_error == pytest.approx(0.1, rel=1e-4)
    assert found.whole.sqnr > 10
    (nothing,) = closeness(sums_of({"y": np.ones((2, 5))}, {"y": np.ones((1, 5))}, 1))
    assert math.isnan(nothing.whole.sqnr)


def test_what_is_not_finite():
    x = np.array([[1.0, np.inf, np.nan, 2.0]])
    assert compared(x, x.copy()).whole.sqnr == math.inf
    assert compared(x, np.array([[1.0, 5, np.nan, 2.0]])).whole.sqnr == -math.inf


def test_maps_and_sequences():
    maps = [{"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 0.0}]
    (found,) = closeness(
        sums_of({"p": maps}, {"p": [{"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0.1}]}, 2)
    )
    assert found.is_float
    assert found.largest_error == pytest.approx(0.1)
    assert spans([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7–8"
