"""`random:N`."""

import ml_dtypes
import numpy as np
import pytest
from onnxq.data.open import open_data
from onnxq.data.preprocess import Preprocessing
from onnxq.errors import DataError, UsageError
from onnxq.model.model import TensorSpec


def spec(dtype="float32", shape=("N", 3, 8, 8), name="x"):
    return TensorSpec(name, np.dtype(dtype), shape)


def joined(source, batch_size, **window):
    return np.concatenate([b.feeds["x"] for b in source.batches(batch_size, **window)])


def test_samples_depend_on_seed_and_index_alone():
    source = open_data("random:20", [spec()])
    assert (source.count, source.has_labels, source.note) == (20, False, "random samples")
    assert source.sample_name(3) == "random:20[3]"
    drawn = joined(source, 8)
    assert drawn.shape == (20, 3, 8, 8)
    assert drawn.dtype == np.float32
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 1) < 0.1
    np.testing.assert_array_equal(joined(source, 3, start=5, stop=9), drawn[5:9])
    np.testing.assert_array_equal(joined(open_data("random:99", [spec()], samples=20), 7), drawn)
    other = open_data("random:20", [spec()], seed=1)
    assert not np.array_equal(joined(other, 8), drawn)
    assert other.fingerprint != source.fingerprint
    assert open_data("random:20", [spec()]).fingerprint == source.fingerprint


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8", "bool"])
def test_integers_are_small_and_not_negative(dtype):
    drawn = joined(open_data("random:4", [spec(dtype)]), 4)
    assert drawn.dtype == dtype
    assert drawn.min() == 0
    assert drawn.max() <= (1 if dtype in {"int64", "int32", "bool"} else 127)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats(dtype):
    assert joined(open_data("random:2", [spec(dtype)]), 2).dtype == dtype


def test_fixed_batch():
    source = open_data("random:6", [spec(shape=(2, 3))])
    assert [len(b) for b in source.batches(64)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([spec(), spec(shape=("N", "length"), name="ids")], r"leaves open length .*--input-shape"),
        ([spec(shape=None)], "input 'x': the model does not say its shape"),
        ([spec(object)], "input 'x' takes a sequence"),
    ],
)
def test_inputs_that_leave_open_what_to_draw(inputs, message):
    with pytest.raises(DataError, match=message):
        open_data("random:4", inputs)


@pytest.mark.parametrize("number", ["", "0", "-1", "many", "1.5", "²"])
def test_not_a_number_of_samples(number):
    with pytest.raises(UsageError, match="is no number of samples"):
        open_data(f"random:{number}", [spec()])


def test_preprocessing_is_refused():
    with pytest.raises(UsageError, match="random:4 takes no preprocessing"):
        open_data("random:4", [spec()], preprocessing=Preprocessing())
