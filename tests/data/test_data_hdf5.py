"""HDF5 files: the data sets at the top, read a few rows at a time."""

import numpy as np
import pytest
from onnxq.data.hdf5 import hdf5_columns
from onnxq.errors import DataError

h5py = pytest.importorskip("h5py")
ROWS = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = ROWS
        file["ids"] = np.arange(7, dtype=np.int16)
        file["empty"] = h5py.Empty("f4")
        file.create_group("group")["y"] = ROWS
    return tmp_path / "x.h5"


def test_data_sets_at_the_top_are_columns(path):
    columns = hdf5_columns(path)
    assert sorted(columns) == ["ids", "x"]
    assert (columns["ids"].shape, columns["ids"].dtype) == ((7,), np.int16)


def test_rows_are_those_of_the_array(path):
    column = hdf5_columns(path)["x"]
    ranges = [(0, 2), (2, 2), (5, 7)]
    for (begin, end), rows in zip(ranges, column.rows(ranges), strict=True):
        assert np.array_equal(rows, ROWS[begin:end])
    assert np.array_equal(column.whole(), ROWS)


def test_a_file_that_changed_since_is_named(path):
    column = hdf5_columns(path)["x"]
    with h5py.File(path, "a") as file:
        del file["x"]
    with pytest.raises(DataError, match=r"cannot read .*x\.h5"):
        column.whole()
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*x\.h5"):
        list(column.rows([(0, 1)]))


def test_what_is_no_hdf5_file_is_said_so(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(DataError, match=r"cannot read .*x\.h5") as caught:
        hdf5_columns(tmp_path / "x.h5")
    assert caught.value.hint == "expected an HDF5 file"
