"""Weights in a file of their own: both files or none, the same model, no leftovers."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxq import api
from onnxq.errors import ModelError, OutputError, ResourceError
from onnxq.model import external, files, split_files
from onnxq.model.model import Model
from onnxq.model.rewrite import edit
from onnxq.model.session import open_session, run

from support.builder import Builder


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    """So that a small model is written as one of 2 GB is."""
    monkeypatch.setattr(external, "INLINE_LIMIT", 4000)


def model(seed=1):
    b = Builder(seed)
    x = b.clip(b.conv(b.input(3, 6, 6), 32, 3))
    return b.model(b.head(b.conv(x, 32, 3)))


X = np.random.default_rng(0).standard_normal((20, 3, 6, 6)).astype(np.float32)


def outputs(source):
    return run(open_session(source), None, {"x": X})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_saved_and_loaded_it_is_the_same(tmp_path):
    path = tmp_path / "m.onnx"
    files.save(model(), path)
    data, name = names(tmp_path)[1], names(tmp_path)[0]
    assert name == "m.onnx"
    assert data.startswith("m.onnx.")
    assert data.endswith(".data")
    assert path.stat().st_size < 8000 < (tmp_path / data).stat().st_size
    onnx.checker.check_model(str(path))
    loaded = files.load(path)
    for a, b in zip(
        loaded.message.graph.initializer, model().message.graph.initializer, strict=True
    ):
        assert np.array_equal(external.values_of(a), external.values_of(b))
    assert loaded.message.graph.node == model().message.graph.node
    assert np.array_equal(outputs(loaded)[0], outputs(model())[0])
    assert np.array_equal(outputs(path)[0], outputs(model())[0])


def test_weights_stay_in_the_file_that_was_read(tmp_path):
    files.save(model(), tmp_path / "m.onnx")
    loaded = files.load(tmp_path / "m.onnx")
    large = [t for t in loaded.message.graph.initializer if external.byte_size(t) > external.SMALL]
    assert large
    places = {e.value for t in large for e in t.external_data if e.key == "location"}
    assert places == {str(path) for path in tmp_path.glob("*.data")}
    assert loaded.message.ByteSize() < external.SMALL * 8


def test_where_the_weights_are_does_not_change_the_fingerprint(monkeypatch):
    parked = model()
    assert external.has_parked(parked.message)
    monkeypatch.setattr(external, "INLINE_LIMIT", 10**9)
    assert not external.has_parked(model().message)
    assert parked.fingerprint == model().fingerprint


def test_parked_in_memory_and_written_as_one_file(tmp_path, monkeypatch):
    """Weights that one message holds are parked only so that copies of the model share them."""
    monkeypatch.setattr(external, "INLINE_LIMIT", 10**9)
    files.save(model(), tmp_path / "plain.onnx")
    monkeypatch.setattr(external, "PARK_LIMIT", 4000)
    parked = model()
    assert external.has_parked(parked.message)
    files.save(parked, tmp_path / "m.onnx")
    assert names(tmp_path) == ["m.onnx", "plain.onnx"]
    written = (tmp_path / "m.onnx").read_bytes()
    assert written == (tmp_path / "plain.onnx").read_bytes()
    loaded = files.load(tmp_path / "m.onnx")
    assert external.has_parked(loaded.message)
    assert np.array_equal(outputs(loaded)[0], outputs(tmp_path / "m.onnx")[0])
    assert parked.message == loaded.message


def test_others_get_the_whole_model(monkeypatch):
    monkeypatch.setattr(external, "PARK_LIMIT", 10**9)
    with pytest.raises(ModelError, match="more than one message holds"):
        _ = model().proto
    monkeypatch.setattr(external, "INLINE_LIMIT", 10**9)
    plain = model()
    assert plain.proto is plain.message
    monkeypatch.setattr(external, "PARK_LIMIT", 4000)
    parked = model()
    assert external.has_parked(parked.message)
    assert parked.proto == plain.proto
    assert np.array_equal(outputs(parked.proto)[0], outputs(plain)[0])


def test_kernels_of_a_model_with_parked_weights_are_counted(monkeypatch):
    """A weight that no kernel packs stays where it is: ONNX Runtime's graph only points there."""
    b = Builder(4)
    table = b.const(b.random(200, 8), "table")
    b.inputs.append(onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ["N"]))
    made = b.proto(b.gemm(b.op("Gather", table, "i", shape=(8,)), 3, name="layer"))
    monkeypatch.setattr(external, "INLINE_LIMIT", 10**9)
    monkeypatch.setattr(external, "PARK_LIMIT", 4000)
    parked = Model(made)
    assert external.has_parked(parked.message)
    kernels = api.inspect(parked, kernels=True).kernels
    assert [each.node for each in kernels if each.weighted] == ["layer"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_folder_for_temporary_files_is_said(monkeypatch):
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: full)
        with pytest.raises(ResourceError, match=r"temporary files, .*, is full \(set TMPDIR"):
            model(seed=77)


def test_an_edit_reads_what_is_parked():
    """Graphsurgeon looks for such values beside the model's file."""

    def change(graph):
        for node in graph.nodes:
            for tensor in node.inputs[1:2]:
                tensor.values = -tensor.values

    turned = edit(model(), change)
    assert external.has_parked(turned.message)
    for a, b in zip(turned.message.graph.initializer, model().message.graph.initializer,
                    strict=True):  # fmt: skip
        if len(a.dims) > 1:
            assert np.array_equal(external.values_of(a), -external.values_of(b))


def test_sessions_write_no_weights_that_are_parked(tmp_path):
    files.save(model(), tmp_path / "m.onnx")
    loaded = files.load(tmp_path / "m.onnx")
    places = []
    for _ in range(2):
        with split_files.as_file(loaded.message) as path:
            places.append({each.name: each.stat().st_ino for each in path.parent.iterdir()})
            places[-1].pop(path.name)
        assert not path.exists()
    assert places[0] == places[1]
    assert np.array_equal(outputs(loaded)[0], outputs(model())[0])


def test_a_model_leaves_the_message_it_is_made_of_as_it_was(monkeypatch):
    monkeypatch.setattr(external, "INLINE_LIMIT", 10**9)
    given = model().message
    before = given.SerializeToString(deterministic=True)
    assert Model(given).message is given
    monkeypatch.setattr(external, "INLINE_LIMIT", 4000)
    assert external.has_parked(Model(given).message)
    assert given.SerializeToString(deterministic=True) == before
    assert Model.adopt(given).message is given
    assert external.has_parked(given)


def test_a_part_of_a_large_model_has_its_weights_back():
    source = model()
    part = onnx.ModelProto()
    part.CopyFrom(source.message)
    del part.graph.initializer[2:]
    values = [external.values_of(t) for t in part.graph.initializer]
    back = Model(part).message
    assert external.has_parked(part), "what was given stays as it was"
    assert not external.has_parked(back)
    for tensor, value in zip(back.graph.initializer, values, strict=True):
        assert np.array_equal(onnx.numpy_helper.to_array(tensor), value)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.save(model(), tmp_path / folder / "m.onnx")
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_new_model_replaces_both_files(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    files.save(model(1), path)
    (tmp_path / "m.onnx.notes.data").write_bytes(b"mine")
    first = names(tmp_path)
    files.save(model(2), path)
    assert len(names(tmp_path)) == 3
    assert names(tmp_path) != first
    assert np.array_equal(outputs(path)[0], outputs(model(2))[0])
    monkeypatch.setattr(external, "INLINE_LIMIT", 10**9)
    files.save(model(3), path)
    assert names(tmp_path) == ["m.onnx", "m.onnx.notes.data"]


def test_a_refused_model_leaves_the_old_one(tmp_path):
    path = tmp_path / "m.onnx"
    files.save(model(1), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    bad = onnx.ModelProto()
    bad.CopyFrom(model(2).message)
    bad.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="refuses the model"):
        files.save(Model(bad), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(OutputError, match="does not exist"):
        files.save(model(), tmp_path / "none" / "m.onnx")


def test_every_stage_takes_a_large_model(tmp_path):
    """Shapes are inferred, sessions opened as for a model of 2 GB."""
    files.save(model(), tmp_path / "m.onnx")
    loaded = files.load(tmp_path / "m.onnx")
    expected = api.calibrate(loaded, X)
    found = api.calibrate(tmp_path / "m.onnx", X)
    assert found.tensors.keys() == expected.tensors.keys()
    quantized, _ = api.quantize(tmp_path / "m.onnx", X)
    files.save(quantized, tmp_path / "q.onnx")
    (y,) = outputs(tmp_path / "q.onnx")
    (reference,) = outputs(loaded)
    assert np.abs(y - reference).max() < 0.2 * np.abs(reference).max()
