"""What the metrics of tasks share."""

import numpy as np
import pytest
from onnxq.errors import UsageError
from onnxq.validation.tasks.common import (
    checked_labels,
    chosen_output,
    is_float,
    samples_in,
    shapes,
)

OUTPUTS = {"ids": np.zeros((2, 3), np.int64), "map": np.zeros((2, 4, 4), np.float32)}


def chosen(name, fits=is_float):
    return chosen_output(OUTPUTS, name, fits, "miou", "a mask")


def test_the_output_named_or_the_first_that_fits():
    assert chosen("ids") == "ids"
    assert chosen("") == "map"
    assert chosen("", lambda array: array.ndim == 2) == "ids"


def test_an_output_that_is_none_is_refused_with_what_there_is():
    with pytest.raises(UsageError, match="miou: the model has no output 'mpa'") as caught:
        chosen("mpa")
    assert caught.value.hint == "its outputs are: ids, map"
    with pytest.raises(UsageError) as caught:
        chosen("", lambda array: False)
    assert caught.value.message == (
        "miou takes a mask, which no output is: ids int64 2×3, map float32 2×4×4"
    )
    assert "miou:output=NAME" in caught.value.hint


def test_outputs_as_people_are_told_of_them():
    assert shapes({}) == ""
    assert shapes({"y": np.zeros((), np.float16)}) == "y float16 "


@pytest.mark.parametrize("labels", [None, np.array([1, 2]), [None, None], []])
def test_class_indices_of_the_data_are_no_truth(labels):
    assert checked_labels(labels, str, "cer", "texts") is None


def test_labels_of_another_kind_are_refused():
    assert checked_labels(("a", "b"), str, "cer", "texts") == ["a", "b"]
    with pytest.raises(UsageError, match="cer compares with texts, the labels are int"):
        checked_labels(["a", 3], str, "cer", "texts")
    with pytest.raises(UsageError, match="the labels are NoneType"):
        checked_labels(["a", None], str, "cer", "texts")


def test_the_first_input_counts_the_samples():
    assert samples_in({"x": np.zeros((3, 2)), "y": np.zeros((5, 2))}) == 3


@pytest.mark.parametrize(
    ("kind", "wanted"), [("f2", True), ("f8", True), ("i4", False), ("?", False), ("U1", False)]
)
def test_which_arrays_are_float(kind, wanted):
    assert is_float(np.zeros(1, kind)) is wanted
