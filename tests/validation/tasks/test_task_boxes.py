"""Overlap and suppression against the definitions, box by box."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.validation.tasks.boxes import MOST, Detections, overlap, suppressed

sides = st.integers(0, 12)
box = st.tuples(sides, sides, st.integers(1, 8), st.integers(1, 8)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
item = st.tuples(box, st.integers(0, 2), st.integers(1, 20))


def iou(a, b):
    """By counting unit squares."""
    left = {(x, y) for x in range(a[0], a[2]) for y in range(a[1], a[3])}
    right = {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}
    return len(left & right) / len(left | right)


def detections(items):
    order = sorted(range(len(items)), key=lambda i: -items[i][2])
    chosen = [items[i] for i in order]
    return Detections(
        np.array([each[0] for each in chosen], np.float64).reshape(-1, 4),
        np.array([each[2] / 20 for each in chosen], np.float64),
        np.array([each[1] for each in chosen], np.int64),
    ), chosen


@given(st.lists(item, max_size=12), st.sampled_from([0.2, 0.45, 0.7]), st.booleans())
def test_suppression_is_the_greedy_one(items, threshold, agnostic):
    found, chosen = detections(items)
    expected = []
    for candidate in chosen:
        if all(
            (not agnostic and kept[1] != candidate[1]) or iou(kept[0], candidate[0]) <= threshold
            for kept in expected
        ):
            expected.append(candidate)
    got = suppressed(found, threshold, class_agnostic=agnostic)
    assert [tuple(map(int, corners)) for corners in got.corners] == [e[0] for e in expected]
    assert got.classes.tolist() == [e[1] for e in expected]
    assert got.scores.tolist() == [e[2] / 20 for e in expected]


@given(st.lists(box, max_size=6), st.lists(box, max_size=6))
def test_overlap_counts_squares(left, right):
    got = overlap(
        np.array(left, np.float64).reshape(-1, 4), np.array(right, np.float64).reshape(-1, 4)
    )
    assert got.shape == (len(left), len(right))
    expected = np.array([[iou(a, b) for b in right] for a in left]).reshape(got.shape)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_overlap_of_empty_boxes_is_zero():
    empty = np.array([[3.0, 3.0, 3.0, 9.0]])
    assert overlap(empty, empty).item() == 0


def test_overlap_with_a_crowd_is_over_the_own_area():
    part, group = np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 10, 10]])
    assert overlap(part, group, np.array([True])).item() == pytest.approx(1)
    assert overlap(part, group).item() == pytest.approx(0.04)


def test_a_picture_keeps_the_best_300():
    corner = np.arange(1000.0)[:, None] * 10
    corners = np.concatenate([corner, corner, corner + 5, corner + 5], axis=1)
    found = Detections(corners, np.linspace(1, 0.1, 1000), np.zeros(1000, np.int64))
    got = suppressed(found, 0.5, class_agnostic=False)
    assert got.scores.tolist() == found.scores[:MOST].tolist()
