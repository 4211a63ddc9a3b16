"""Samples of several lengths as the batch that would be made of them."""

import numpy as np
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.masks import USUAL as MASK
from onnxq.data.padding import padded_batches


def sentence(length, *, fixed=None):
    arrays = {
        "input_ids": np.arange(1, length + 1, dtype=np.int64)[None],
        MASK: np.ones((1, length), np.int64),
        "language": np.array([3], np.int64),
    }
    return Feeds(arrays, BatchAxes(dict.fromkeys(arrays, 0), fixed=fixed, mask=MASK))


def test_the_shorter_ones_are_filled_with_zeros_and_the_mask_says_so():
    (first, second) = padded_batches([sentence(n) for n in (2, 5, 3, 1)], 2)
    assert first["input_ids"].tolist() == [[1, 2, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert first[MASK].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert second["input_ids"].tolist() == [[1, 2, 3], [1, 0, 0]]
    assert second["language"].tolist() == [3, 3]
    assert first.samples == second.samples == 2


def test_a_last_sample_alone_makes_no_batch():
    assert len(padded_batches([sentence(n) for n in (2, 5, 3)], 2)) == 1


def test_nothing_is_filled_where_all_are_alike_or_no_input_is_a_mask():
    assert padded_batches([sentence(4), sentence(4)], 2) == []
    without = [{"x": np.zeros((1, n), np.float32)} for n in (1, 2)]
    assert padded_batches(without, 2) == []
    assert padded_batches([], 2) == []


def test_a_model_of_one_batch_size_is_left_alone():
    assert padded_batches([sentence(2, fixed=4), sentence(3, fixed=4)], 2) == []
