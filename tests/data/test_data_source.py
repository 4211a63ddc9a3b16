"""Spans of samples, and batches of samples alike."""

import numpy as np
import pytest
from onnxq.data.batching import BatchAxes
from onnxq.data.source import Batch, collect, span_of, spans
from onnxq.errors import DataError, UsageError

AXES = BatchAxes({"x": 0})
FIXED = BatchAxes({"x": 0}, fixed=4)


@pytest.mark.parametrize(
    ("count", "axes", "size", "window", "wanted"),
    [
        (10, AXES, 4, {}, [(0, 4), (4, 8), (8, 10)]),
        (10, AXES, 4, {"start": 3, "stop": 9}, [(3, 7), (7, 9)]),
        (10, AXES, 4, {"start": -3}, [(7, 10)]),
        (10, AXES, 4, {"stop": 100}, [(0, 4), (4, 8), (8, 10)]),
        (10, AXES, 4, {"start": 10}, []),
        (10, AXES, 3, {"first": 1, "step": 2}, [(3, 6), (9, 10)]),
        (0, AXES, 4, {}, []),
        (8, FIXED, 3, {}, [(0, 4), (4, 8)]),
        (9, FIXED, 3, {"start": 1}, [(1, 5), (5, 9)]),
    ],
)
def test_spans(count, axes, size, window, wanted):
    assert spans(count, axes, size, **window) == wanted


def test_spans_that_cannot_be():
    with pytest.raises(UsageError, match="at least 1, not 0"):
        spans(10, AXES, 0)
    with pytest.raises(DataError, match="9 samples do not fill batches of 4") as caught:
        spans(9, FIXED, 4)
    assert "multiple" in caught.value.hint


def sample(*shape, value=0.0):
    return {"x": np.full(shape, value, np.float32)}


def test_samples_of_another_shape_begin_a_batch_within_their_span():
    stream = [sample(2), sample(3), sample(3), sample(3), sample(2)]
    found = list(collect(stream, [(0, 3), (6, 8)], AXES, np.arange(8)))
    assert [(b.start, b.feeds["x"].shape) for b in found] == [
        (0, (1, 2)), (1, (2, 3)), (6, (1, 3)), (7, (1, 2))
    ]  # fmt: skip
    assert [b.labels.tolist() for b in found] == [[0], [1, 2], [6], [7]]
    assert [span_of(b, 3) for b in found] == [0, 0, 2, 2]


def test_what_samples_share_keeps_them_together_while_it_is_the_same():
    axes = BatchAxes({"x": 0, "rate": None})
    stream = [sample(2) | {"rate": np.float32(rate)} for rate in (8, 8, 16, np.nan, np.nan)]
    found = list(collect(stream, [(0, 5)], axes))
    assert [(b.start, len(b), b.feeds["rate"]) for b in found[:2]] == [(0, 2, 8), (2, 1, 16)]
    assert (found[2].start, len(found[2])) == (3, 2)
    assert all(b.labels is None for b in found)


def test_a_batch_of_plain_arrays_counts_along_the_first_axis():
    batch = Batch(4, {"x": np.zeros((3, 2)), "rate": np.float32(1)})
    assert len(batch) == 3
    assert span_of(batch, 2) == 2
    assert span_of(Batch(4, collected(FIXED)), 2) == 1


def collected(axes):
    (batch,) = collect([sample(2)] * 4, [(0, 4)], axes)
    return batch.feeds
