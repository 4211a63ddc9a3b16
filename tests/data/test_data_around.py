"""A source around another, and what a kind of data needs besides."""

import dataclasses

import numpy as np
import pytest
from onnxq.data.around import SourceAround
from onnxq.data.arrays import ArraySource, memory_columns, open_arrays
from onnxq.data.batching import BatchAxes
from onnxq.data.extras import require
from onnxq.errors import DataError, UsageError
from onnxq.model.model import TensorSpec

INPUTS = [TensorSpec("x", np.dtype("f4"), ("N", 2)), TensorSpec("rate", np.dtype("i8"), ())]
AXES = BatchAxes({"x": 0, "rate": None})
DATA = {"x": np.arange(6.0).reshape(3, 2), "rate": np.array(8), "labels": np.array([[2], [0], [1]])}


def opened(data=DATA, **options) -> ArraySource:
    return open_arrays(memory_columns(data, INPUTS), "d", INPUTS, AXES, **options)


def test_it_is_the_source_inside_but_for_its_batches():
    source = dataclasses.replace(opened(), note="random samples")
    around = SourceAround(source)
    for name in ("spec", "count", "axes", "has_labels", "note", "preprocessing", "fingerprint"):
        assert getattr(around, name) == getattr(source, name)
    assert around.sample_name(2) == "d[2]"
    assert not hasattr(around, "batches")


def test_arrays_become_the_type_of_their_input_and_what_is_shared_stays_one():
    first, second = opened().batches(2)
    assert (first.feeds["x"].dtype, first.feeds["x"].tolist()) == (np.float32, [[0, 1], [2, 3]])
    assert (first.feeds["rate"].shape, first.feeds["rate"]) == ((), 8)
    assert (first.labels.tolist(), second.labels.tolist()) == ([2, 0], [1])
    assert opened(samples=2).labels.tolist() == [2, 0]


def test_an_input_that_may_be_missing_may():
    data = {"x": DATA["x"], "labels": DATA["labels"]}
    (batch,) = opened(data, optional=["rate"]).batches(3)
    assert list(batch.feeds) == ["x"]
    with pytest.raises(DataError, match="no array for input 'rate'") as caught:
        opened(data | {"rat": np.array(1)})
    assert caught.value.hint == "did you mean 'rat'?"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(3), "'labels' has shape 3×3, expected one class index a sample"),
        (np.array([0.0, 1, 2]), "'labels' is float64, integers expected"),
        (np.array([0, -1, 2]), r"d\[1\]: the label -1 is no class index"),
        (np.array([0, 1, 2**63], np.uint64), r"d\[2\]: the label 9223372036854775808 is no class"),
    ],
)
def test_labels_are_class_indices(labels, message):
    with pytest.raises(DataError, match=message):
        opened(DATA | {"labels": labels})


def test_a_package_that_is_there_is_given():
    assert require("json", "any").loads("1") == 1


def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it():
    with pytest.raises(UsageError, match="these data need the package no_such_package") as caught:
        require("no_such_package.sub", "parquet")
    hint = "pip install no_such_package; in a checkout of onnxq pip install '.[parquet]'"
    assert caught.value.hint == hint
    with pytest.raises(UsageError, match="cer needs the package no-such") as caught:
        require("no_such_package", "text", package="no-such", user="cer needs")
    assert caught.value.hint.startswith("pip install no-such; ")
