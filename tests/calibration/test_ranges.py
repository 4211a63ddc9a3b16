"""Range estimators, against the values their histograms were made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxq.calibration import bins, ranges
from onnxq.calibration.accumulate import Accumulator
from onnxq.formats.fit import fit_range
from onnxq.formats.parameters import dequantize, quantize
from onnxq.formats.scheme import activations_in
from onnxq.formats.table import FORMATS

SIZE = 200_000


def draw(kind, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.standard_normal(SIZE),
        "laplace": lambda: rng.laplace(size=SIZE),
        "relu": lambda: np.maximum(rng.standard_normal(SIZE), 0),
        "outliers": lambda: np.where(
            rng.random(SIZE) < 1e-4, 60.0, 1.0
        ) * rng.standard_normal(SIZE),
        "shifted": lambda: rng.standard_normal(SIZE) + 3,
        "uniform": lambda: rng.uniform(-1, 1, SIZE),
        "relu6": lambda: np.clip(3 * rng.standard_normal(SIZE), 0, 6),
    }[kind]()  # fmt: skip
    return values.astype(np.float32)


KINDS = ("normal", "laplace", "relu", "outliers", "shifted", "uniform", "relu6")


def statistics(values):
    accumulator = Accumulator(None)
    accumulator.add(np.asarray(values, np.float32))
    return accumulator.finish()


def estimate(values, method, *, symmetric=True):
    data = ranges.distribution([(statistics(values), None)])
    levels = 255 if symmetric else 256
    return ranges.estimate(data, method, levels=levels, symmetric=symmetric)


def error(values, found, *, symmetric=True):
    """Mean squared error of quantizing these very values."""
    dtype = "int8" if symmetric else "uint8"
    p = fit_range(*found, activations_in(FORMATS[dtype], symmetric=symmetric))
    return float(np.square(dequantize(quantize(values, p), p) - values, dtype=np.float64).mean())


both = pytest.mark.parametrize("symmetric", [True, False])
kinds = pytest.mark.parametrize("kind", KINDS)


@both
@given(hnp.arrays(np.float32, 20, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_minmax_is_exact(symmetric, values):
    low, high = estimate(values, "minmax", symmetric=symmetric)
    least, most = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric:
        assert high == max(-least, most)
        assert low == -high
    else:
        assert (low, high) == (least, most)


@both
@pytest.mark.parametrize("method", ranges.ESTIMATORS)
@given(hnp.arrays(np.float32, 30, elements=st.floats(-1e6, 1e6, width=32)))
def test_ranges_hold_zero_and_stay_within_the_extremes(method, symmetric, values):
    low, high = estimate(values, method, symmetric=symmetric)
    least, most = estimate(values, "minmax", symmetric=symmetric)
    assert least <= low <= 0 <= high <= most
    assert np.isfinite([low, high]).all()
    # Smaller values are told from zero by no bin.
    if np.abs(values).max() >= 2.0**bins.FLOOR:
        assert low < high


@both
@kinds
def test_mse_is_not_worse_than_minmax(kind, symmetric):
    values = draw(kind)
    found = {m: estimate(values, m, symmetric=symmetric) for m in ("mse", "minmax")}
    errors = {m: error(values, r, symmetric=symmetric) for m, r in found.items()}
    # Equal where nothing can be gained; the histogram knows values to a part in 64.
    assert errors["mse"] <= errors["minmax"] * 1.02


def test_mse_clips_where_it_pays():
    values = draw("outliers")
    assert error(values, estimate(values, "mse")) < 0.8 * error(values, estimate(values, "minmax"))


@both
@kinds
def test_percentile_is_monotone(kind, symmetric, monkeypatch):
    values = draw(kind)
    widths = []
    for share in (90.0, 99.0, 99.9, 99.99, 99.999, 100.0):
        monkeypatch.setattr(ranges, "PERCENTILE", share)
        low, high = estimate(values, "percentile", symmetric=symmetric)
        widths.append(high - low)
        kept = np.mean((values >= low) & (values <= high))
        # Two tails where the range is not symmetric.
        assert kept >= 1 - (1 if symmetric else 2) * (1 - share / 100) - 1e-9
    assert widths == sorted(widths)
    low, high = estimate(values, "minmax", symmetric=symmetric)
    assert widths[-1] >= 0.97 * (high - low)


@kinds
def test_percentile_matches_the_sorted_values(kind, monkeypatch):
    values = draw(kind)
    monkeypatch.setattr(ranges, "PERCENTILE", 99.0)
    _, high = estimate(values, "percentile")
    exact = float(np.quantile(np.abs(values), 0.99))
    assert exact * 0.99 <= high <= exact * (1 + 2 / 32)


@both
@kinds
def test_entropy_keeps_nearly_everything(kind, symmetric):
    values = draw(kind)
    low, high = estimate(values, "entropy", symmetric=symmetric)
    assert np.mean((values >= low) & (values <= high)) > 0.99
    # With outliers the whole range has more.
    if kind != "outliers":
        assert error(values, (low, high), symmetric=symmetric) < 0.02 * np.square(values).mean()


@both
@kinds
def test_entropy_costs_no_more_than_the_whole_range(kind, symmetric):
    """Also where a few values hold most of the power, of which shares tell nothing."""
    rng = np.random.default_rng(1)
    far = np.where(rng.random(SIZE) < 3e-3, np.float32(40), np.float32(1))
    for values in (draw(kind), draw(kind) * far):
        found = {m: estimate(values, m, symmetric=symmetric) for m in ("entropy", "minmax")}
        errors = {m: error(values, r, symmetric=symmetric) for m, r in found.items()}
        # The histogram knows values to a part in 64.
        assert errors["entropy"] <= errors["minmax"] * 1.05


def test_entropy_compares_at_least_2048_bins():
    assert ranges.ENTROPY_BINS >= 2048
    values = draw("normal")
    data = ranges.distribution([(statistics(values), None)])
    reference = ranges._linear_histogram(data.values, data.half, data.counts, (data.low, data.high))
    assert len(reference) >= 2048
    assert reference.sum() == pytest.approx(SIZE)
    exact, _ = np.histogram(values, len(reference), (data.low, data.high))
    # Bins are wider than the linear ones at the ends, so compare sixteen together.
    coarse, fine = (h.reshape(-1, 16).sum(axis=1) for h in (reference, exact))
    assert np.abs(coarse - fine).sum() < 0.05 * SIZE


@both
@pytest.mark.parametrize("method", ranges.ESTIMATORS)
def test_a_tensor_of_zeros(method, symmetric):
    assert estimate(np.zeros(10), method, symmetric=symmetric) == (0.0, 0.0)


@both
@pytest.mark.parametrize("method", ranges.ESTIMATORS)
@kinds
def test_a_tensor_that_shares_with_its_copy_keeps_its_range(kind, method, symmetric):
    one = statistics(draw(kind))
    levels = 255 if symmetric else 256
    alone, twice = (
        ranges.estimate(ranges.distribution(parts), method, levels=levels, symmetric=symmetric)
        for parts in ([(one, None)], [(one, None), (one, None)])
    )
    assert twice == pytest.approx(alone, rel=0.01)


def test_a_shared_range_covers_both():
    first, second = statistics(draw("relu")), statistics(draw("normal") * 4)
    data = ranges.distribution([(first, None), (second, None)])
    low, high = ranges.estimate(data, "minmax", levels=256, symmetric=False)
    assert low == second.low
    assert high == second.high
