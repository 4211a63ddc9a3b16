"""Whether data fit an input, rule by rule."""

import ml_dtypes
import numpy as np
import pytest
from onnxq.data.checks import check_dtype, check_shape, convert, is_finite, sizes
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec


def spec(dtype="float32", shape=("N", 2)):
    return TensorSpec("x", np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("shape", "text"),
    [((1, "N", None), "1×N×?"), ((), "of a scalar"), ((7,), "7")],
)
def test_a_shape_as_people_write_it(shape, text):
    assert sizes(shape) == text


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 3), ("N", 3)),
        ((5, 3), (1, 3)),
        ((0, 3), ("N", None)),
        ((2, 9, 9), None),
        ((4,), ("N",)),
    ],
)
def test_the_first_axis_may_have_any_size(shape, expected):
    check_shape(shape, spec(shape=expected), "d")


@pytest.mark.parametrize(
    ("shape", "expected", "hint"),
    [
        ((3,), ("N", 3), "x[None]"),
        ((5, 8, 9, 3), ("N", 3, 8, 9), "NHWC, the model takes NCHW: 5×3×8×9"),
        ((5, 3, 8, 9), ("N", 8, 9, 3), "NCHW, the model takes NHWC: 5×8×9×3"),
        ((5, 4), ("N", 3), "the others must agree"),
        ((), None, "x[None]"),
    ],
)
def test_what_does_not_fit_has_a_hint(shape, expected, hint):
    with pytest.raises(DataError, match=r"^d: input 'x' has shape") as caught:
        check_shape(shape, spec(shape=expected), "d")
    assert hint in caught.value.hint
    with pytest.raises(DataError) as caught:
        check_shape(shape, spec(shape=expected), "d", hint="do this")
    assert caught.value.hint == "do this"


@pytest.mark.parametrize(
    ("given", "expected", "fits"),
    [
        ("int64", "float32", True),
        ("bool", "float16", True),
        ("float64", "float32", True),
        ("uint8", "bool", True),
        ("int8", "uint64", True),
        ("float32", "int64", False),
        ("float32", "bool", False),
        ("complex64", "float32", False),
        ("complex64", "complex64", False),
        ("U3", "U1", True),
        ("S3", "U1", True),
        ("O", "U1", True),
        ("int64", "U1", False),
        ("U3", "float32", False),
        ("O", "float32", False),
        ("datetime64[s]", "int64", False),
    ],
)
def test_which_types_become_which(given, expected, fits):
    if fits:
        check_dtype(np.dtype(given), spec(expected), "d")
        return
    with pytest.raises(DataError, match=r"^d: input 'x' is"):
        check_dtype(np.dtype(given), spec(expected), "d")


def test_sequences_and_maps_cannot_be_fed():
    with pytest.raises(DataError, match="takes a sequence or a map"):
        check_dtype(np.dtype("f4"), spec(object), "d")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([0, 1, 255]), "uint8"),
        (np.array([0, 1]), "bool"),
        (np.array([2**24]), "float32"),
        (np.array([0.1, np.inf, np.nan, -np.inf]), "float32"),
        (np.array([65504.0, 1e-9]), "float16"),
        (np.array([448.0]), "float8_e4m3fn"),
        (np.array([], np.int64), "uint8"),
        (np.array([True]), "int8"),
    ],
)
def test_values_that_fit_are_those_of_a_cast(values, dtype):
    found = convert(values, spec(dtype), "d")
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found, values.astype(dtype), equal_nan=values.dtype.kind == "f")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([256]), "uint8"),
        (np.array([-1]), "uint64"),
        (np.array([2]), "bool"),
        (np.array([2**24 + 1]), "float32"),
        (np.array([1e39]), "float32"),
        (np.array([65520.0]), "float16"),
        (np.array([500.0]), "float8_e4m3fn"),
        (np.array([1e39]), ml_dtypes.bfloat16),
    ],
)
def test_values_that_would_change_are_refused(values, dtype):
    with pytest.raises(DataError, match="values that do not fit the model's") as caught:
        convert(values, spec(dtype), "d")
    assert "rescale" in caught.value.hint


def test_what_has_the_type_is_not_copied():
    values = np.ones(2, np.float32)
    assert convert(values, spec(), "d") is values


def test_texts_may_be_bytes_in_utf_8():
    text = spec("U1")
    values = np.array([["é".encode(), b"bc"]])
    assert convert(values, text, "d").tolist() == [["é", "bc"]]
    assert convert(np.array(["é", b"x"], object), text, "d").tolist() == ["é", "x"]
    with pytest.raises(DataError, match="other values than text"):
        convert(np.array(["a", 3], object), text, "d")


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        (np.float32([1, 2]), True),
        (np.float32([1, np.nan]), False),
        (np.float16([np.inf]), False),
        (np.array([1.0, np.nan]).astype(ml_dtypes.bfloat16), False),
        (np.array([2**62]), True),
        (np.array(["nan"]), True),
        (np.zeros(0), True),
    ],
)
def test_only_floats_may_be_other_than_finite(values, finite):
    assert is_finite(values) is finite
