"""Folders of whole feeds: where each sample is, and what a file may not be."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnxq.data.axes import find_axes
from onnxq.data.batching import BatchAxes
from onnxq.data.feed_folders import is_model_zoo, npz_files, open_feeds
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec

X = TensorSpec("x", np.dtype(np.float32), ("N", 2))
AXES = BatchAxes({"x": 0})


def feeds(folder, *counts):
    """Files of so many samples, numbered through."""
    first = 0
    for index, count in enumerate(counts):
        rows = np.arange(first, first + count, dtype=np.float32)
        np.savez(folder / f"{index}.npz", x=np.stack([rows, -rows], 1))
        first += count
    return folder


def opened(folder, **options):
    return open_feeds(folder, str(folder), [X], AXES, **options)


def values(source, size=4, **window):
    return [batch.feeds["x"][:, 0].tolist() for batch in source.batches(size, **window)]


def test_samples_go_on_from_file_to_file(tmp_path):
    source = opened(feeds(tmp_path, 3, 1, 2))
    assert (source.count, source.starts) == (6, (0, 3, 4))
    assert values(source) == [[0, 1, 2, 3], [4, 5]]
    assert values(source, start=2, stop=5) == [[2, 3, 4]]
    assert values(source, 2, first=1, step=2) == [[2, 3]]
    names = [source.sample_name(i).removeprefix(f"{tmp_path}/") for i in (0, 2, 3, 5)]
    assert names == ["0.npz[0]", "0.npz[2]", "1.npz", "2.npz[1]"]


def test_the_first_samples_may_end_within_a_file(tmp_path):
    source = opened(feeds(tmp_path, 3, 1, 2), samples=3)
    assert (source.count, source.starts) == (3, (0,))
    assert values(source) == [[0, 1, 2]]
    assert opened(tmp_path, samples=99).count == 6


def test_the_fingerprint_is_that_of_the_samples_wherever_they_lie(tmp_path):
    for name, counts in (("a", (3, 1)), ("b", (4,)), ("c", (3, 2))):
        (tmp_path / name).mkdir()
        feeds(tmp_path / name, *counts)
    a, b, c = (opened(tmp_path / name).fingerprint for name in "abc")
    assert a == b != c


def test_hidden_files_are_no_feeds(tmp_path):
    feeds(tmp_path, 1)
    (tmp_path / ".1.npz").write_bytes(b"")
    assert [path.name for path in npz_files(tmp_path)] == ["0.npz"]
    assert not is_model_zoo(tmp_path)


def tensors(folder, *arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for index, array in enumerate(arrays):
        content = numpy_helper.from_array(array).SerializeToString()
        (folder / f"input_{index}.pb").write_bytes(content)


def test_sets_are_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 0):
        tensors(tmp_path / f"test_data_set_{number}", np.full((1, 2), number, np.float32))
    assert is_model_zoo(tmp_path)
    assert is_model_zoo(tmp_path / "test_data_set_0")
    assert values(opened(tmp_path)) == [[0, 9, 10]]


def test_inputs_that_are_missing_are_listed(tmp_path):
    tensors(tmp_path, *[np.zeros((1, 2), np.float32)] * 2)
    with pytest.raises(DataError, match=r"holds 2 inputs \(input_0.pb, input_1.pb\)") as caught:
        opened(tmp_path)
    assert caught.value.hint == "expected input_0.pb"


def test_values_in_another_file_are_not_followed(tmp_path):
    tensor = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[1, 2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(DataError, match="keeps its values in another file"):
        opened(tmp_path)


def test_a_file_that_does_not_fit_is_named(tmp_path):
    feeds(tmp_path, 2)
    np.savez(tmp_path / "1.npz", x=np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match=r"1.npz: input 'x' has shape 2×3, the model expects N×2"):
        opened(tmp_path)


def test_one_file_may_show_that_no_axis_counts_samples(tmp_path):
    """Of the first, whose sizes happen to agree, each row might be a sample."""
    inputs = [TensorSpec(name, X.dtype, (size, 2)) for name, size in (("q", "Q"), ("d", "D"))]
    for index, (queries, documents) in enumerate([(3, 3), (2, 5), (4, 4)]):
        arrays = {"q": np.ones((queries, 2)), "d": np.ones((documents, 2))}
        np.savez(tmp_path / f"{index}.npz", **{k: v.astype(np.float32) for k, v in arrays.items()})
    source = open_feeds(tmp_path, str(tmp_path), inputs, find_axes(inputs))
    assert (source.count, source.axes.fixed) == (3, 1)
    shapes = [(b.feeds["q"].shape[0], b.feeds["d"].shape[0]) for b in source.batches(4)]
    assert shapes == [(3, 3), (2, 5), (4, 4)]
