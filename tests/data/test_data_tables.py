"""Tables: which column feeds which input, which holds labels, and damaged datasets."""

import json

import numpy as np
import pytest
from onnxq.data.batching import BatchAxes
from onnxq.data.records import as_labels
from onnxq.data.tables import is_dataset, open_table
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
AXES = BatchAxes({"x": 0, "y": 0})


def spec(name="x", shape=("N", 2)):
    return TensorSpec(name, np.dtype(np.float32), shape)


X = spec()


def opened(folder, columns, inputs=(X,), **options):
    path = folder / "t.parquet"
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return open_table(path, "t.parquet", inputs, AXES, **options)


PAIRS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


def values(source, name="x", **window):
    return np.concatenate([b.feeds[name] for b in source.batches(2, **window)]).tolist()


def test_rows_of_all_chunks_in_order(tmp_path):
    source = opened(tmp_path, {"x": PAIRS})
    assert (source.count, source.sample_name(2)) == (3, "t.parquet[2]")
    assert values(source) == PAIRS
    assert values(source, start=1) == PAIRS[1:]
    assert opened(tmp_path, {"x": PAIRS}, samples=2).count == 2


def test_one_column_fits_a_one_input_model_whatever_its_name(tmp_path):
    assert values(opened(tmp_path, {"anything": PAIRS, "label": [0, 1, 2]})) == PAIRS
    with pytest.raises(DataError, match="no column for input 'x'") as caught:
        opened(tmp_path, {"a": PAIRS, "b": PAIRS})
    assert caught.value.hint == "its columns are: a, b"


def test_each_input_has_a_column_of_its_name(tmp_path):
    source = opened(tmp_path, {"y": PAIRS, "x": PAIRS[::-1]}, [spec(), spec("y")])
    assert (values(source), values(source, "y")) == (PAIRS[::-1], PAIRS)
    with pytest.raises(DataError, match="no column for input 'yy'") as caught:
        opened(tmp_path, {"y": PAIRS, "x": PAIRS}, [spec(), spec("yy")])
    assert caught.value.hint == "its columns are: y, x"


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"label": [4, 5, 6]}, [4, 5, 6]),
        ({"labels": [4, 5, 6]}, [4, 5, 6]),
        ({"labels": [4, 5, 6], "label": [7, 8, 9]}, [7, 8, 9]),
        ({"label": [4, None, 6]}, None),
        ({"label": ["a", "b", "c"]}, None),
        ({"label": ["a", "b", "c"], "labels": [4, 5, 6]}, [4, 5, 6]),
    ],
)
def test_integers_in_a_column_of_that_name_are_labels(tmp_path, columns, wanted):
    source = opened(tmp_path, {"x": PAIRS} | columns)
    assert (source.labels if wanted is None else source.labels.tolist()) == wanted


def test_labels_are_there_only_where_every_sample_has_one():
    assert as_labels([], "table.parquet") is None
    assert as_labels([None, None], "table.parquet") is None
    assert as_labels([1, None], "table.parquet") is None
    found = as_labels([0, 2], "table.parquet")
    assert (found.tolist(), found.dtype) == ([0, 2], np.int64)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0], [3.0]], r"t.parquet\[1\]: input 'x' has shape"),
        ([[[1.0], [2.0]], [[3.0], [4.0, 5.0]]], r"t.parquet\[1\] is no array"),
        ([[1.0, 2.0], None], r"t.parquet\[1\] holds object values, numbers or text expected"),
    ],
)
def test_cells_that_are_no_sample_are_named(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        values(opened(tmp_path, {"x": rows}))


def test_a_table_without_rows_holds_no_samples(tmp_path):
    with pytest.raises(DataError, match="holds no samples"):
        opened(tmp_path, {"x": pyarrow.array([], pyarrow.list_(pyarrow.float32()))})


def dataset(folder, state):
    (folder / "state.json").write_text(state)
    (folder / "dataset_info.json").write_text("{}")
    return folder


def files(*names, **more):
    return json.dumps({"_data_files": [{"filename": name} for name in names]} | more)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{", "cannot read .*state.json"),
        ("{}", "cannot read .*state.json: '_data_files'"),
        (files(), "is a selection of a dataset"),
        (files("a.arrow", _indices_files=[{"filename": "b"}]), "is a selection of a dataset"),
        (files("../a.arrow"), "names files outside of it"),
        (files("/etc/passwd"), "names files outside of it"),
        (files("a.arrow"), "cannot read .*a.arrow"),
    ],
)
def test_datasets_that_are_none(tmp_path, state, message):
    assert not is_dataset(tmp_path)
    assert is_dataset(dataset(tmp_path, state))
    with pytest.raises(DataError, match=message):
        open_table(tmp_path, "d", [spec()], AXES)
