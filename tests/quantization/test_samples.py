"""Which samples are taken into memory, and how numpy multiplies on them."""

import numpy as np
import pytest
from onnxq.api import as_source, calibrate
from onnxq.data.gather import BATCH_SIZE
from onnxq.quantization import samples as module
from onnxq.quantization.blas import MANY, blas_threads_for
from onnxq.quantization.samples import (
    HOLD_OUT,
    MEASURED_SAMPLES,
    Samples,
    hold_out_of,
    take_samples,
)
from threadpoolctl import threadpool_info

from support.builder import Builder


def batches(*counts):
    first, made = 0, []
    for count in counts:
        made.append({"x": np.arange(first, first + count)})
        first += count
    return made


def test_the_first_batches_prove_and_what_is_held_out_measures():
    found = Samples(batches(8, 8, 8), batches(4, 3), unseen=True)
    assert [len(each["x"]) for each in found.proof] == [8, 8]
    assert found.measured == found.held_out
    assert (found.measured_on.samples, found.measured_on.held_out) == (7, True)


def test_without_samples_held_out_the_first_measure():
    found = Samples(batches(*[8] * 12), [], unseen=False)
    assert sum(len(each["x"]) for each in found.measured) == MEASURED_SAMPLES
    assert not found.measured_on.held_out
    few = Samples(batches(5), [], unseen=False)
    assert (few.measured_on.samples, few.proof) == (5, few.correction)


def model(side=2):
    b = Builder()
    return b.model(b.op("Relu", b.conv(b.input(1, side, side), 3)))


def source(count, side=2):
    values = np.arange(count * side**2, dtype="f4").reshape(count, 1, side, side)
    return as_source({"x": values}, model(side))


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(1, 0), (HOLD_OUT * BATCH_SIZE - 1, 0), (HOLD_OUT * BATCH_SIZE, HOLD_OUT), (999, HOLD_OUT)],
)
def test_few_data_hold_nothing_out(count, wanted):
    assert hold_out_of(source(count)) == wanted
    assert hold_out_of(None) == 0


@pytest.mark.parametrize(("side", "wanted"), [(1, 1024), (4, 512), (7, 167), (8, 128), (9, 128)])
def test_samples_of_few_positions_are_taken_until_layers_are_seen_at_many(side, wanted):
    data = source(2 * wanted, side)
    found = take_samples(data, calibrate(model(side), data), hold_out=0, unseen=False)
    assert sum(len(each["x"]) for each in found.correction) == wanted


@pytest.mark.parametrize(("memory", "wanted"), [(1 << 28, 256), (20 * 12 * 4, 20), (1, 8)])
def test_as_many_as_the_largest_activation_leaves_room_for(monkeypatch, memory, wanted):
    """That of three channels of 2×2 takes 48 bytes a sample."""
    monkeypatch.setattr(module, "MEMORY_FOR_SAMPLES", memory)
    data = source(256)
    none = take_samples(data, calibrate(model(), data), hold_out=0, unseen=False)
    assert sum(len(each["x"]) for each in none.correction) == wanted
    assert (none.held_out, none.unseen) == ([], False)
    found = take_samples(data, calibrate(model(), data), hold_out=HOLD_OUT, unseen=True)
    numbers = [int(x[0, 0, 0]) // 4 for each in found.correction for x in each["x"]]
    # They are as far apart, without those held out.
    assert wanted * (HOLD_OUT - 1) // HOLD_OUT <= len(numbers) <= wanted
    held = [int(x[0, 0, 0]) // 4 for each in found.held_out for x in each["x"]]
    assert all(number // BATCH_SIZE % HOLD_OUT == HOLD_OUT - 1 for number in held)
    assert not set(held) & set(numbers)


def threads():
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_small_products_have_one_thread():
    before = threads()
    with blas_threads_for(MANY - 1):
        assert threads() == {1}
    with blas_threads_for(MANY):
        assert threads() == before
    assert threads() == before
