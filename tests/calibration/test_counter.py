"""Counting tensors: what threads count adds up, and where a value that is not finite is."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.counter import Counter
from onnxq.data.open import open_data
from onnxq.errors import DataError
from onnxq.model.blocked import Observed
from onnxq.model.model import TensorSpec
from onnxq.refusal import Refusal

ONE, OTHER = np.zeros(1, np.intp), np.ones(1, np.intp)
SOURCE = open_data(np.zeros((32, 2), np.float32), [TensorSpec("x", np.dtype("f4"), ("N", 2))])


def counter(axes=None, *, spoils=None):
    """A counter of tensors and their axes; `spoils` is what a value that is not finite does."""
    axes = axes or {"a": None}
    return Counter(
        {name: Accumulator(axis) for name, axis in axes.items()}, SOURCE, lambda *_: spoils
    )


def observed(**tensors):
    return {name: Observed(np.asarray(values, np.float32)) for name, values in tensors.items()}


def test_tensors_come_in_the_order_of_their_names_and_those_without_values_not_at_all():
    counts = counter({"b": None, "a": None, "none": None})
    counts.add(observed(b=[[1, -2]], a=[[5, 6]]), [0], ONE)
    counts.add(observed(b=[[7, 0]]), [1], OTHER)
    so_far = counts.so_far()
    assert (list(so_far), len(so_far), "none" in so_far) == (["a", "b"], 2, False)
    assert so_far["b"].maximum.tolist() == [7]
    found = counts.finish()
    assert list(found) == ["a", "b"]
    assert (found["b"].minimum.tolist(), found["b"].maximum.tolist()) == ([-2], [7])
    assert found["b"].count == 4


def test_halves_are_kept_apart():
    counts = counter()
    counts.add(observed(a=[1, -3, 5]), range(3), np.array([0, 1, 0], np.intp))
    counts.add(observed(a=[4]), [3], OTHER)
    assert counts.finish()["a"].halves.tolist() == [[1, 5], [-3, 4]]


def test_what_tells_no_samples_apart_counts_for_both():
    counts = counter()
    counts.add(observed(a=[1, 2, 3]), range(2), np.array([0, 1], np.intp))
    assert counts.finish()["a"].halves.tolist() == [[1, 3], [1, 3]]


def test_threads_count_what_one_thread_counts():
    rng = np.random.default_rng(0)
    batches = [
        observed(**{n: rng.standard_normal((4, 3, 8)) * 10**i for i, n in enumerate("abcd")})
        for _ in range(24)
    ]
    halves = rng.integers(0, 2, (24, 4), np.intp)
    axes = dict.fromkeys("abcd", 1)
    alone, together = counter(axes), counter(axes)
    for number, batch in enumerate(batches):
        alone.add(batch, range(4 * number, 4 * number + 4), halves[number])
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: together.add(batches[n], range(4 * n, 4 * n + 4), halves[n]), range(24)
            )
        )
    wanted, got = alone.finish(), together.finish()
    for name in "abcd":
        for field in ("minimum", "maximum", "counts", "halves"):
            assert np.array_equal(getattr(got[name], field), getattr(wanted[name], field))


def test_a_nan_that_does_harm_is_an_error_that_says_where():
    values = np.zeros((4, 3, 2), np.float32)
    values[2, 1, 0] = np.nan
    values[1, 2, 1] = np.inf  # earlier, but a NaN says more
    counts = counter({"a": 1}, spoils=Refusal("a convolution reads it"))
    with pytest.raises(DataError) as caught:
        counts.add(observed(a=values), range(8, 12), ONE.repeat(4))
    assert caught.value.message == (
        "NaN in activation 'a' for sample <memory>[10], channel 1: a convolution reads it"
    )
    assert "--allow-nonfinite" in caught.value.hint


def test_what_does_no_harm_is_noted_where_it_was_first():
    counts = counter({"a": 1})
    for start, sample in ((8, 1), (0, 3), (4, 0)):
        values = np.zeros((4, 3), np.float32)
        values[sample, 2] = -np.inf
        counts.add(observed(a=values), range(start, start + 4), ONE.repeat(4))
    found = counts.finish()["a"]
    first = found.first_not_finite
    assert (first.sample, first.name, first.channel, first.kind) == (3, "<memory>[3]", 2, "Inf")
    assert found.not_finite == 3
    assert found.count == 3 * 12 - 3


def test_a_tensor_that_samples_share_is_at_the_first_of_its_batch():
    counts = counter()
    counts.add(observed(a=[0, np.inf, 0]), range(16, 20), ONE.repeat(4))
    assert counts.finish()["a"].first_not_finite.sample == 16


def test_a_scalar_that_is_not_finite_has_a_place_too():
    counts = counter()
    counts.add(observed(a=np.nan), [5], ONE)
    first = counts.finish()["a"].first_not_finite
    assert (first.sample, first.channel, first.kind) == (5, 0, "NaN")
