"""HDF5, parquet, Hugging Face datasets, WebDataset tar and functions: the samples they hold."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from onnxq.data.open import open_data
from onnxq.data.preprocess import Preprocessing
from onnxq.errors import DataError, UsageError
from onnxq.model.model import TensorSpec
from PIL import Image

COUNT = 11
ROWS = np.random.default_rng(0).standard_normal((COUNT, 3, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).integers(0, 256, (COUNT, 5, 6, 3)).astype(np.uint8)
X = TensorSpec("x", np.dtype(np.float32), ("N", 3, 4))
IDS = TensorSpec("ids", np.dtype(np.int64), ("N", 2))
PICTURE = TensorSpec("image", np.dtype(np.float32), ("N", 3, 5, 6))
UNIT = Preprocessing.parse("unit")


def png(index):
    stream = io.BytesIO()
    Image.fromarray(IMAGES[index]).save(stream, "PNG")
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def fed(source, name, **window):
    return np.concatenate([batch.feeds[name] for batch in source.batches(3, **window)])


def check_arrays(source):
    """The rows, whatever holds them; picklable, for other processes; every second span."""
    assert source.count == COUNT
    np.testing.assert_array_equal(fed(source, "x"), ROWS)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(fed(again, "x", first=1, step=2), ROWS[[3, 4, 5, 9, 10]])
    np.testing.assert_array_equal(fed(source, "x", start=4, stop=9), ROWS[4:9])
    assert len(source.fingerprint) == 64
    assert again.fingerprint == source.fingerprint


def check_images(source, folder):
    """The pictures, and the fingerprint of a folder that holds the same."""
    expected = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(fed(source, "image"), expected, atol=1e-6)
    assert np.concatenate([b.labels for b in source.batches(4)]).tolist() == [
        i % 3 for i in range(COUNT)
    ]
    folder.mkdir()
    for index in range(COUNT):
        (folder / f"{index}.png").write_bytes(png(index))
    plain = open_data(folder, [PICTURE], preprocessing=UNIT)
    assert source.fingerprint == plain.fingerprint
    assert pickle.loads(pickle.dumps(source)).count == COUNT


# --- tar -----------------------------------------------------------------------------------------


def test_tar_of_images(tmp_path):
    members = [
        m
        for i in range(COUNT)
        for m in ((f"d/{i:03}.png", png(i)), (f"d/{i:03}.cls", b"%d" % (i % 3)))
    ]
    path = write_tar(tmp_path / "x.tar", [("d/README", b"no sample"), *members])
    source = open_data(path, [PICTURE], preprocessing=UNIT)
    check_images(source, tmp_path / "folder")
    assert source.sample_name(4).endswith("x.tar:d/004")


def test_tar_of_arrays(tmp_path):
    one = write_tar(tmp_path / "x.tar", [(f"{i:03}.npy", npy(ROWS[i])) for i in range(COUNT)])
    check_arrays(open_data(one, [X]))
    pairs = [
        m
        for i in range(COUNT)
        for m in ((f"{i}.x.npy", npy(ROWS[i])), (f"{i}.ids.npy", npy(np.array([i, 1]))))
    ]
    two = open_data(write_tar(tmp_path / "y.tar", pairs), [X, IDS])
    np.testing.assert_array_equal(fed(two, "ids")[:, 0], range(COUNT))
    assert open_data(one, [X], samples=4).count == 4


def test_what_a_tar_may_not_be(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("0.png", png(0))])
    with pytest.raises(DataError, match="images need preprocessing"):
        open_data(path, [PICTURE])
    with pytest.raises(DataError, match="no member for input 'ids'"):
        open_data(write_tar(tmp_path / "y.tar", [("0.x.npy", npy(ROWS[0]))]), [X, IDS])
    with pytest.raises(DataError, match="holds no samples"):
        open_data(write_tar(tmp_path / "z.tar", []), [X])
    with pytest.raises(DataError, match="a class index expected"):
        open_data(write_tar(tmp_path / "l.tar", [("0.npy", npy(ROWS[0])), ("0.cls", b"cat")]), [X])
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match="cannot read"):
        open_data(tmp_path / "bad.tar", [X])
    pickled = b"\x93NUMPY\x01\x00"
    source = open_data(write_tar(tmp_path / "p.tar", [("0.npy", pickled)]), [X])
    with pytest.raises(DataError, match=r"p.tar:0"):
        list(source.batches(1))
    with pytest.raises(UsageError, match="takes no preprocessing"):
        open_data(write_tar(tmp_path / "a.tar", [("0.npy", npy(ROWS[0]))]), [X], preprocessing=UNIT)


# --- HDF5 ----------------------------------------------------------------------------------------


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=ROWS, chunks=(2, 3, 4), compression="gzip")
        file["labels"] = np.arange(COUNT)
        file.create_group("other")
    source = open_data(tmp_path / "x.h5", [X])
    check_arrays(source)
    assert source.has_labels
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot read"):
        open_data(tmp_path / "bad.h5", [X])
    with pytest.raises(DataError, match="no array for input 'ids'"):
        open_data(tmp_path / "x.h5", [X, IDS])


# --- parquet and Hugging Face --------------------------------------------------------------------


def table(**columns):
    return pytest.importorskip("pyarrow").table(columns)


def write_parquet(path, content):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(content, path, row_group_size=4)
    return path


def save_to_disk(folder, content, files=2):
    """As datasets.Dataset.save_to_disk lays it out."""
    pyarrow = pytest.importorskip("pyarrow")
    folder.mkdir()
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    size = -(-len(content) // files)
    for number, name in enumerate(names):
        part = content.slice(number * size, size)
        with (
            pyarrow.OSFile(str(folder / name), "wb") as sink,
            pyarrow.ipc.new_stream(sink, content.schema) as writer,
        ):
            writer.write_table(part, max_chunksize=3)
    (folder / "dataset_info.json").write_text("{}")
    state = {"_data_files": [{"filename": name} for name in names], "_indices_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def pictures():
    return table(
        image=[{"bytes": png(i), "path": f"{i}.png"} for i in range(COUNT)],
        label=[i % 3 for i in range(COUNT)],
    )


@pytest.mark.parametrize("write", [write_parquet, save_to_disk])
def test_tables_of_images(tmp_path, write):
    path = write(tmp_path / "x.parquet", pictures())
    check_images(open_data(path, [PICTURE], preprocessing=UNIT), tmp_path / "folder")


@pytest.mark.parametrize("write", [write_parquet, save_to_disk])
def test_tables_of_arrays(tmp_path, write):
    path = write(tmp_path / "x.parquet", table(x=ROWS.tolist(), ids=[[i, 0] for i in range(COUNT)]))
    source = open_data(path, [X, IDS])
    np.testing.assert_array_equal(fed(source, "ids")[:, 0], range(COUNT))
    check_arrays(source)
    assert not source.has_labels


def test_what_a_table_may_not_be(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="no column for input 'ids'"):
        open_data(write_parquet(tmp_path / "x.parquet", table(x=ROWS.tolist())), [X, IDS])
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot read"):
        open_data(tmp_path / "bad.parquet", [X])
    ragged = [[1.0], [1.0, 2.0]]
    source = open_data(write_parquet(tmp_path / "r.parquet", table(x=[ragged, ragged])), [X])
    with pytest.raises(DataError, match=r"r.parquet\[0\] is no array"):
        list(source.batches(1))
    folder = save_to_disk(tmp_path / "selected", pictures())
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_indices_files": [{"filename": "i"}]}))
    with pytest.raises(DataError, match="a selection of a dataset"):
        open_data(folder, [PICTURE], preprocessing=UNIT)


# --- functions -----------------------------------------------------------------------------------

FUNCTIONS = f"""
import numpy as np
rows = np.random.default_rng(0).standard_normal(({COUNT}, 3, 4)).astype(np.float32)

def samples():
    for index, row in enumerate(rows):
        yield {{"x": row, "label": index % 3}}

def wrong():
    yield {{"x": rows[0]}}
    raise KeyError("gone")

def shape():
    return [{{"x": rows[:2, :2]}}]

def nothing():
    return []

def names():
    return [{{"y": rows[0]}}]

number = 3
"""


def test_a_function(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    source = open_data(f"{path}:samples", [X])
    check_arrays(source)
    assert np.concatenate([b.labels for b in source.batches(4)]).tolist() == [
        i % 3 for i in range(COUNT)
    ]
    assert open_data(f"{path}:samples", [X], samples=5).count == 5
    for name, message in (
        ("wrong", "failed at sample 1: KeyError"), ("shape", "leave the batch axis out"),
        ("nothing", "yields no samples"), ("names", "no array for input 'x'"),
        ("absent", "has no function"), ("number", "has no function"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            list(open_data(f"{path}:{name}", [X]).batches(1))
    with pytest.raises(DataError, match="there is no file"):
        list(open_data(f"{tmp_path}/none.py:f", [X]).batches(1))
