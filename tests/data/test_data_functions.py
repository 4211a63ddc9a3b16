"""Functions of the user's: what they yield, and what is said of what they should not."""

from pathlib import Path

import numpy as np
import pytest
from onnxq.data.functions import parse_function
from onnxq.data.open import open_data
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec

X = TensorSpec("x", np.dtype(np.float32), ("N", 2))
FUNCTIONS = """
import numpy as np

ONE = np.ones(2, np.float32)

def sequences():
    yield [{"x": ONE * 0, "label": 5}, {"x": ONE, "label": 6}]
    yield ({"x": ONE * 2, "label": 7},)

def whole():
    yield {"x": np.arange(6).reshape(3, 2), "label": [1, 2, 3]}

def some_labels():
    yield {"x": ONE, "label": 1}
    yield {"x": ONE}

def ragged():
    yield {"x": [[1.0, 2.0], [3.0]]}

def ragged_labels():
    yield {"x": ONE, "label": [[1], [2, 3]]}

def text():
    yield {"x": ONE, "label": "cat"}

def nan():
    yield {"x": ONE, "label": float("nan")}

def half():
    yield {"x": ONE, "label": 1.5}

def counts():
    yield {"x": np.ones((3, 2)), "label": [1, 2]}

def plain():
    yield ONE

def returns():
    return 3

def mixed():
    yield {"x": ONE}
    yield {"x": np.ones((2, 2)), "label": 1}

def other():
    yield {"z": ONE, "label": 1}

def ends():
    yield {"x": ONE}
    raise SystemExit(3)

def ends_at_once():
    raise SystemExit

def lacks():
    yield {"x": ONE}
    raise ValueError
"""


@pytest.fixture
def opened(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return lambda name, **options: open_data(f"{path}:{name}", [X], **options)


def labels(source):
    return [batch.labels.tolist() for batch in source.batches(2)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a/b.py:f", (Path("a/b.py"), "f")),
        ("C:/x.py:f_2", (Path("C:/x.py"), "f_2")),
        ("b.py", None),
        ("b.py:", None),
        ("b.py:2f", None),
        (".py:f", None),
        ("b.npz:f", None),
    ],
)
def test_only_a_python_file_and_a_name_are_a_function(text, wanted):
    assert parse_function(text) == wanted


def test_a_list_is_a_sequence_and_its_first_sample_begins_it(opened):
    source = opened("sequences")
    assert source.count == 3
    assert source.source.starts == (0, 2)
    assert labels(source) == [[5, 6], [7]]


def test_of_dicts_there_is_one_sequence(opened):
    assert opened("some_labels").source.starts == (0,)


def test_a_whole_feed_is_its_samples(opened):
    source = opened("whole")
    rows = np.concatenate([batch.feeds["x"] for batch in source.batches(2)])
    assert rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert rows.dtype == np.float32
    assert labels(source) == [[1, 2], [3]]
    assert opened("whole", samples=2).count == 2


def test_labels_that_some_samples_lack_are_none(opened):
    source = opened("some_labels")
    assert not source.has_labels
    assert [batch.labels for batch in source.batches(2)] == [None]


def test_a_function_that_yields_less_the_second_time_is_refused(opened):
    source = opened("sequences")
    assert source.count == 3
    source.source.items.path.write_text("def sequences(): yield {'x': [0.0, 0.0]}")
    with pytest.raises(DataError, match="yields fewer samples than when it was first called"):
        list(source.batches(2))


def test_a_function_that_yields_others_the_second_time_is_refused(opened):
    """Their fingerprint would be that of data which nothing was computed from."""
    source = opened("sequences")
    assert source.count == 3
    source.source.items.path.write_text(
        "def sequences():\n    for at in (0.0, 1.0, 3.0): yield {'x': [at, at]}"
    )
    with pytest.raises(DataError, match=r"sequences\[2\] is another sample than when it was"):
        list(source.batches(1))
    assert len(list(source.batches(1, stop=2))) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ragged", r"mine.py:ragged\[0\]: input 'x' is no array"),
        ("ragged_labels", r"\[0\]: its 'label' is no array"),
        ("text", r"\[0\]: the label 'cat' is no class index"),
        ("nan", r"\[0\]: the label nan is no class index"),
        ("half", r"\[0\]: the label 1.5 is no class index"),
        ("counts", r"\[0\] holds 3 samples and 2 labels"),
        ("plain", r"\[0\] is a ndarray, a dict expected"),
        ("returns", "mine.py:returns failed: TypeError: 'int' object is not iterable"),
        ("mixed", r"mixed\[1\] holds 2 samples and 1 labels"),
        ("other", r"other\[0\] has no array for input 'x' \(its keys are: z, label\)"),
        ("ends", "mine.py:ends failed at sample 1: SystemExit: 3"),
        ("ends_at_once", "mine.py:ends_at_once failed: SystemExit$"),
        ("lacks", "mine.py:lacks failed at sample 1: ValueError$"),
    ],
)
def test_what_a_function_must_not_yield(opened, name, message):
    with pytest.raises(DataError, match=message):
        list(opened(name).batches(1))
