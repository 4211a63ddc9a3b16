"""Weights in other files: beside the model and nowhere else, of the size that their tensor has."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from onnxq.errors import ModelError
from onnxq.model.external_files import read_data

VALUES = np.arange(6, dtype=np.float32)


def model(path, **entries):
    """A model of one tensor of six numbers, kept elsewhere."""
    proto = ModelProto()
    tensor = proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2, 3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return proto


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "w.bin").write_bytes(bytes(8) + VALUES.tobytes() + bytes(4))
    (tmp_path / "outside.bin").write_bytes(VALUES.tobytes())
    return inner


@pytest.mark.parametrize("entries", [{"offset": "8"}, {"offset": "8", "length": "24"}])
def test_values_are_read_and_the_tensor_is_as_any_other(folder, entries):
    path = folder / "m.onnx"
    proto = model(path, location="w.bin", **entries)
    read_data(proto, path)
    (tensor,) = proto.graph.initializer
    assert np.frombuffer(tensor.raw_data, np.float32).tolist() == VALUES.tolist()
    assert tensor.data_location == TensorProto.DEFAULT
    assert not tensor.external_data


def test_tensors_that_are_in_the_model_stay(folder):
    proto = ModelProto()
    proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4))
    read_data(proto, folder / "m.onnx")
    assert proto.graph.initializer[0].raw_data == bytes(4)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "name no file"),
        ({"location": "w\0.bin"}, "name no file"),
        ({"location": "none.bin"}, "are missing: no file 'none.bin' beside the model"),
        ({"location": "x" * 300}, "are missing"),
        ({"location": "../outside.bin"}, "lie outside the model's folder"),
        ({"location": "sub/../../outside.bin"}, "lie outside the model's folder"),
        ({"location": "."}, "lie outside the model's folder"),
        ({"location": "/etc/passwd"}, "lie outside the model's folder"),
        ({"location": "w.bin", "offset": "eight"}, "have an offset or length that is no number"),
        ({"location": "w.bin", "offset": "-1"}, "24 bytes at offset -1, 24 expected"),
        ({"location": "w.bin", "offset": "13"}, "24 bytes at offset 13, 24 expected, 23 there"),
        ({"location": "w.bin", "offset": "99"}, "24 expected, 0 there"),
        ({"location": "w.bin", "length": "20"}, "20 bytes at offset 0, 24 expected"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_tensors_name(folder, entries, message):
    path = folder / "m.onnx"
    with pytest.raises(ModelError) as caught:
        read_data(model(path, **entries), path)
    assert str(caught.value).startswith(f"{path}: external data of tensor 'w' ")
    assert message in str(caught.value)


def test_a_link_must_not_lead_out_of_the_folder(folder):
    (folder / "link.bin").symlink_to(folder.parent / "outside.bin")
    path = folder / "m.onnx"
    with pytest.raises(ModelError, match="lie outside the model's folder"):
        read_data(model(path, location="link.bin"), path)


def test_a_cache_of_links_into_one_folder_of_blobs_is_followed(tmp_path):
    """As Hugging Face keeps files: the model and its weights are links, side by side."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / "b").write_bytes(VALUES.tobytes())
    proto = model(blobs / "a", location="w.bin")
    (snapshot / "m.onnx").symlink_to("../blobs/a")
    (snapshot / "w.bin").symlink_to("../blobs/b")
    read_data(proto, snapshot / "m.onnx")
    assert proto.graph.initializer[0].raw_data == VALUES.tobytes()


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    proto = ModelProto()
    tensor = proto.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="a")
    with pytest.raises(ModelError, match="are missing"):
        read_data(proto, tmp_path / "a")
