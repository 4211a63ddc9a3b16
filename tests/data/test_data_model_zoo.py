"""Test data sets of the model zoo."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnxq.data.open import open_data
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec

X = TensorSpec("x", np.dtype("float32"), (None, 3))
IDS = TensorSpec("ids", np.dtype("int64"), ("N",))


def write(folder, *arrays):
    folder.mkdir(exist_ok=True)
    for index, array in enumerate(arrays):
        content = numpy_helper.from_array(np.asarray(array)).SerializeToString()
        (folder / f"input_{index}.pb").write_bytes(content)
    return folder


def rows(*values):
    return np.array([[value] * 3 for value in values], np.float32)


@pytest.fixture
def sets(tmp_path):
    write(tmp_path / "test_data_set_10", rows(4))
    write(tmp_path / "test_data_set_0", rows(0))
    write(tmp_path / "test_data_set_2", rows(1, 2, 3))
    (tmp_path / "model.onnx").write_bytes(b"")
    return tmp_path


def values(source, batch_size=2, **window):
    return [int(v) for b in source.batches(batch_size, **window) for v in b.feeds["x"][:, 0]]


def test_sets_in_the_order_of_their_numbers(sets):
    source = open_data(sets, [X])
    assert (source.count, source.has_labels, source.note) == (5, False, "")
    assert [len(b) for b in source.batches(2)] == [2, 2, 1]
    for _ in range(2):
        assert values(source) == [0, 1, 2, 3, 4]
    assert values(source, start=2, stop=4) == [2, 3]
    assert values(source, start=5) == []
    assert source.sample_name(0) == str(sets / "test_data_set_0")
    assert source.sample_name(3) == str(sets / "test_data_set_2") + "[2]"
    assert values(open_data(sets, [X], samples=2)) == [0, 1]


def test_a_single_set(sets):
    assert values(open_data(sets / "test_data_set_2", [X])) == [1, 2, 3]


def test_fingerprint_is_that_of_the_samples(sets):
    expected = open_data(rows(4, 3, 2, 1, 0), [X]).fingerprint
    assert open_data(sets, [X]).fingerprint == expected


def test_inputs_by_order(tmp_path):
    write(tmp_path / "test_data_set_0", np.array([7, 8]), rows(1, 2))
    (batch,) = open_data(tmp_path, [IDS, X]).batches(8)
    assert batch.feeds["ids"].tolist() == [7, 8]


def test_open_sizes_may_differ_between_sets(tmp_path):
    loose = TensorSpec("x", np.dtype("float32"), ("N", "length"))
    write(tmp_path / "test_data_set_0", np.zeros((1, 4), np.float32))
    write(tmp_path / "test_data_set_1", np.zeros((1, 6), np.float32))
    shapes = [b.feeds["x"].shape for b in open_data(tmp_path, [loose]).batches(8)]
    assert shapes == [(1, 4), (1, 6)]


def external(path):
    tensor = TensorProto(dims=[1, 3], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    path.write_bytes(tensor.SerializeToString())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"\xff\xff"), "cannot read"),
        (lambda path: path.write_bytes(b""), "cannot read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "cannot read"),
        (external, "keeps its values in another file"),
        (lambda path: write(path.parent, rows(1).astype(np.float64)[:, :2]), "has shape 1×2"),
        (lambda path: write(path.parent, np.float32(1)), "has shape of a scalar"),
    ],
)
def test_damaged_tensors_are_named(sets, damage, message):
    damage(sets / "test_data_set_2" / "input_0.pb")
    with pytest.raises(DataError, match=message) as caught:
        open_data(sets, [X])
    assert "test_data_set_2" in str(caught.value)
    assert "input_0.pb" in str(caught.value) or "input 'x'" in str(caught.value)


def test_refusals(tmp_path):
    write(tmp_path / "test_data_set_0", rows(1))
    with pytest.raises(DataError, match=r"test_data_set_0 holds 1 inputs .*the model has 2"):
        open_data(tmp_path, [X, IDS])
    with pytest.raises(DataError, match="'x' is float32, the model expects int64"):
        open_data(tmp_path, [TensorSpec("x", np.dtype("int64"), (None, 3))])
    write(tmp_path / "test_data_set_0", rows(1, 2), np.array([7]))
    named = TensorSpec("x", np.dtype("float32"), ("N", 3))
    with pytest.raises(DataError, match="'x' has 2, 'ids' has 1"):
        open_data(tmp_path, [named, IDS])
    write(tmp_path / "test_data_set_0", np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="holds no samples"):
        open_data(tmp_path, [X, IDS])


def test_not_finite(sets):
    write(sets / "test_data_set_10", rows(np.inf))
    with pytest.raises(DataError, match="test_data_set_10: input 'x' holds 3 Inf"):
        values(open_data(sets, [X]))
