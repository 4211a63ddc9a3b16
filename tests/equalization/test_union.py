"""Disjoint sets: against a naive partition, with the pinned set 0 always its own root."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnxq.equalization.union import DisjointSets

SIZE = 12


@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))))
def test_sets_equal_those_of_a_naive_partition(pairs):
    sets = DisjointSets()
    assert sets.fresh(SIZE).tolist() == list(range(1, SIZE + 1))
    parts = [{i} for i in range(SIZE + 1)]
    for a, b in pairs:
        sets.union(a, b)
        first, second = (next(p for p in parts if i in p) for i in (a, b))
        if first is not second:
            parts.remove(second)
            first |= second
    for part in parts:
        assert {sets.find(i) for i in part} == {min(part)}


@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), min_size=1))
def test_whole_arrays_merge_like_their_elements(pairs):
    one, many = DisjointSets(), DisjointSets()
    one.fresh(SIZE)
    many.fresh(SIZE)
    for a, b in pairs:
        one.union(a, b)
    many.union_arrays(*np.array(pairs).T)
    ids = np.arange(SIZE + 1).reshape(1, -1)
    assert np.array_equal(one.roots(ids), many.roots(ids))
    assert many.roots(ids).shape == ids.shape


def test_arrays_are_broadcast():
    sets = DisjointSets()
    ids = sets.fresh(6).reshape(2, 3)
    sets.union_arrays(ids, ids[:, :1])
    assert sets.roots(ids).tolist() == [[1, 1, 1], [4, 4, 4]]


def test_pinning_reaches_what_was_tied_before():
    sets = DisjointSets()
    a, b = sets.fresh(2).tolist()
    sets.union(a, b)
    sets.union(b, 0)
    assert sets.roots(np.array([a, b])).tolist() == [0, 0]
