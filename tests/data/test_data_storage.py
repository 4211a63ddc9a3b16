"""NumPy files a few rows at a time: the same values as numpy reads, or a refusal."""

import io
import zipfile

import numpy as np
import pytest
from onnxq.data.storage import MemoryColumn, npy_column, npz_columns
from onnxq.errors import DataError

VALUES = np.random.default_rng(0).standard_normal((11, 3, 2))


def npy(folder, array):
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "?", "U3"])
def test_rows_are_those_of_the_array(tmp_path, dtype, order):
    array = np.array(VALUES.astype(dtype), order=order)
    np.savez_compressed(tmp_path / "z.npz", first=array, second=array[:4])
    columns = npz_columns(tmp_path / "z.npz")
    assert list(columns) == ["first", "second"]
    for column in (npy_column(npy(tmp_path, array)), columns["first"], MemoryColumn(array)):
        assert (column.shape, column.dtype) == (array.shape, array.dtype)
        ranges = [(0, 2), (2, 2), (5, 11)]
        for (begin, end), rows in zip(ranges, column.rows(ranges), strict=True):
            assert np.array_equal(rows, array[begin:end])
        assert np.array_equal(column.whole(), array)
    assert np.array_equal(columns["second"].whole(), array[:4])


def test_scalars_and_empty_arrays_are_arrays(tmp_path):
    assert npy_column(npy(tmp_path, np.float32(3))).whole() == 3
    column = npy_column(npy(tmp_path, np.zeros((0, 4))))
    assert (column.shape, [rows.shape for rows in column.rows([(0, 0)])]) == ((0, 4), [(0, 4)])


def test_python_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="holds Python objects") as caught:
        npy_column(tmp_path / "o.npy")
    assert "never unpickles" in caught.value.hint


def test_a_file_that_ends_early_is_truncated(tmp_path):
    path = npy(tmp_path, VALUES)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a.npy is truncated"):
        npy_column(path)


def test_a_header_of_negative_sizes_is_refused(tmp_path):
    path = npy(tmp_path, VALUES)
    path.write_bytes(path.read_bytes().replace(b"(11, 3, 2)", b"(-1, 3, 2)"))
    with pytest.raises(DataError, match=r"a.npy is truncated"):
        npy_column(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x09\x00" + 99 * b" "]
)
def test_what_is_no_numpy_file_is_named(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*a\.npy") as caught:
        npy_column(path)
    assert "numpy.save" in caught.value.hint


def test_a_member_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "z.npz"
    with zipfile.ZipFile(path, "w") as archive:
        stream = io.BytesIO()
        np.save(stream, VALUES)
        archive.writestr("good.npy", stream.getvalue())
        archive.writestr("bad.npy", b"no array")
        archive.writestr("folder/", b"")
    with pytest.raises(DataError, match=r"cannot read array 'bad' of .*z\.npz"):
        npz_columns(path)


def test_a_file_that_is_gone_is_named(tmp_path):
    path = npy(tmp_path, VALUES)
    column = npy_column(path)
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.npy"):
        column.whole()
    with pytest.raises(DataError, match=r"cannot read .*a\.npy"):
        npy_column(path)
