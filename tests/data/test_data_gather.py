"""Samples taken into memory are spread over the whole source, also where the batch is fixed."""

import numpy as np
import pytest
from onnxq.api import as_source
from onnxq.data.gather import gather, gather_any, gather_both, is_held_out

from support.builder import Builder


def source(batch, count=96):
    b = Builder(batch=batch)
    model = b.model(b.op("Relu", b.input(1)))
    return as_source({"x": np.arange(count, dtype=np.float32)[:, None]}, model)


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_samples_are_spread_evenly(batch):
    data = source(batch)
    batches = [each["x"].ravel() for each in gather(data, 16)]
    taken = np.concatenate(batches)
    assert len(taken) == 16
    assert taken[0] == 0
    assert taken[-1] >= 96 - 6 * (batch if isinstance(batch, int) else 1)
    if batch != "N":
        assert {len(each) for each in batches} == {batch}


@pytest.mark.parametrize("batch", ["N", 4])
def test_held_out_samples_and_the_others_are_disjoint(batch):
    data = source(batch)
    others, held = (
        np.concatenate([each["x"].ravel() for each in part])
        for part in gather_both(data, 96, 96, hold_out=3)
    )
    assert set(held) | set(others) == set(range(96))
    assert not set(held) & set(others)
    size = batch if isinstance(batch, int) else 8
    assert all(is_held_out(int(value) // size, 3) for value in held)


def test_of_those_held_out_the_first_are_taken():
    data = source("N")
    others, held = gather_both(data, 8, 10, hold_out=3)
    assert np.concatenate([each["x"].ravel() for each in held]).tolist() == [*range(16, 24), 40, 41]
    assert sum(len(each["x"]) for each in others) <= 8
    assert gather_both(data, 8, 0, hold_out=3)[1] == []


@pytest.mark.parametrize("wanted", [60, 64, 95, 96, 200])
def test_as_many_as_are_wanted_are_taken_where_there_are_so_many(wanted):
    assert sum(len(each["x"]) for each in gather(source("N"), wanted)) == min(wanted, 96)
    others, _ = gather_both(source("N"), wanted, 0, hold_out=3)
    taken = np.sort(np.concatenate([each["x"].ravel() for each in others]))
    assert len(taken) == min(wanted, 64)
    assert taken[-1] >= 86


def taken_of(values, batch, count):
    b = Builder(batch=batch)
    model = b.model(b.op("Relu", b.input(1)))
    return [
        each["x"].ravel().tolist() for each in gather_any(as_source({"x": values}, model), count)
    ]


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("count", [10, 200])
def test_what_samples_hold_chooses_them(batch, count):
    values = np.arange(96, dtype=np.float32)[:, None]
    found = taken_of(values, batch, count)
    assert found == taken_of(np.random.default_rng(0).permutation(values), batch, count)
    assert len({each for (each,) in found}) == min(count, 96)


def test_batches_that_the_model_fixes_stay_whole():
    values = np.arange(96, dtype=np.float32)[:, None]
    found = taken_of(values, 4, 10)
    assert len(found) == 10
    assert all(each == list(range(int(each[0]), int(each[0]) + 4)) for each in found)
    assert found == taken_of(values.reshape(24, 4, 1)[::-1].reshape(96, 1), 4, 10)


def test_a_sample_that_occurs_twice_is_two_samples():
    assert taken_of(np.zeros((3, 1), np.float32), "N", 2) == [[0.0], [0.0]]
