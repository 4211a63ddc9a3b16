"""Model files: everything is checked on the way in, nothing is half-written."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxq.errors import ModelError, OutputError
from onnxq.model.files import NEWEST_OPSET, load, read, require_distinct, require_writable, save
from onnxq.model.model import Model
from onnxq.model.portable import PortableModel

from support.builder import Builder


def small(opset=17):
    b = Builder(opset=opset)
    return b.proto(b.head(b.conv(b.input(3, 4, 4), 4, name="conv")))


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    return folder / "m.onnx"


def write(path, proto):
    path.write_bytes(proto.SerializeToString())
    return path


def refused(path, message):
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text


# --- what is no model --------------------------------------------------------------------------


def test_a_good_model_loads_with_shapes(path):
    model = load(write(path, small()))
    assert model.source == path
    assert model.name == "m.onnx"
    assert [str(spec) for spec in model.inputs] == ["x float32 N×3×4×4"]


def test_a_missing_file(path):
    refused(path, "no such file")


def test_a_folder(path):
    path.mkdir()
    refused(path, "is a folder")


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x00" * 64, b"PK\x03\x04" + b"x" * 99])
def test_something_else(path, content):
    path.write_bytes(content)
    refused(path, "not an ONNX|is empty")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(path, share):
    content = small().SerializeToString()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "ONNX")


def test_every_truncation_is_refused_or_valid(path):
    content = small().SerializeToString()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError):
            load(path)


def test_an_operator_set_too_new(path):
    proto = small()
    proto.opset_import[0].version = NEWEST_OPSET + 1
    refused(write(path, proto), f"opset {NEWEST_OPSET + 1} is too new")


def test_an_ir_version_too_new(path):
    proto = small()
    proto.ir_version = onnx.IR_VERSION + 1
    refused(write(path, proto), "IR version")


def test_an_invalid_graph(path):
    proto = small()
    proto.graph.node[0].input[0] = "nothing makes this"
    refused(write(path, proto), "not a valid ONNX model")


def test_an_optional_input(path):
    proto = small()
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    proto.graph.input.append(
        helper.make_value_info("maybe", helper.make_optional_type_proto(inner))
    )
    refused(write(path, proto), "optional type")


# --- external data -----------------------------------------------------------------------------


def external(path, **entries):
    """The model with its first weight in another file; `entries` replace what it says of it."""
    proto = small()
    tensor = proto.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    values = {"location": "weights.bin", "offset": "16", "length": str(len(content))} | entries
    for key, value in values.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    (path.parent / "weights.bin").write_bytes(b"\xff" * 16 + content + b"\xff" * 16)
    return write(path, proto)


def same_weight(model):
    expected = onnx.numpy_helper.to_array(small().graph.initializer[0])
    return np.array_equal(onnx.numpy_helper.to_array(model.proto.graph.initializer[0]), expected)


@pytest.mark.parametrize("entries", [{}, {"length": None}, {"location": "./weights.bin"}])
def test_external_data_are_read(path, entries):
    model = load(external(path, **entries))
    assert same_weight(model)
    assert model.proto.graph.initializer[0].data_location == TensorProto.DEFAULT


def constant_in_a_file(path):
    """The model with its first weight as a Constant, whose value is in another file."""
    external(path)
    proto = onnx.load(path, load_external_data=False)
    weight = proto.graph.initializer.pop(0)
    constant = helper.make_node("Constant", [], [weight.name], name="c", value=weight)
    proto.graph.node.insert(0, constant)
    return write(path, proto)


def test_what_lies_in_files_counts_as_part_of_the_model(path):
    """Of a Constant too."""
    model = load(constant_in_a_file(path))
    assert model.size == model.message.ByteSize()
    assert model.size > path.stat().st_size


def test_a_constant_in_a_file_needs_the_path_of_the_model(path, monkeypatch):
    """What lies in the current folder has nothing to do with a model in memory."""
    proto = onnx.load(constant_in_a_file(path), load_external_data=False)
    monkeypatch.chdir(path.parent)
    for model in (proto, proto.SerializeToString()):
        with pytest.raises(ModelError, match="its weights lie in other files"):
            read(model)


def test_external_data_in_a_folder_below(path):
    external(path, location="sub/weights.bin")
    (path.parent / "sub").mkdir()
    (path.parent / "weights.bin").rename(path.parent / "sub" / "weights.bin")
    assert same_weight(load(path))


def test_external_data_of_a_model_named_relative_to_the_folder(path, monkeypatch):
    external(path)
    monkeypatch.chdir(path.parent)
    assert same_weight(load("m.onnx"))


def test_missing_external_data(path):
    external(path)
    (path.parent / "weights.bin").unlink()
    refused(path, "are missing: no file 'weights.bin'")


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin", "..", "."])
def test_external_data_outside_the_folder(path, location):
    external(path, location=location)
    (path.parent.parent / "weights.bin").write_bytes(b"secret" * 100)
    refused(path, "outside the model's folder")


def test_an_absolute_location(path):
    refused(external(path, location=str(path.parent / "weights.bin")), "outside the model's folder")


def test_a_symbolic_link_out_of_the_folder(path):
    external(path, location="link.bin")
    secret = path.parent.parent / "secret.bin"
    secret.write_bytes(b"x" * 1000)
    (path.parent / "link.bin").symlink_to(secret)
    refused(path, "outside the model's folder")


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-16"}, {"offset": "100000"}, {"length": "3"}, {"length": "100000"},
        {"length": "0"}, {"offset": "17", "length": None, "location": "short.bin"},
    ],
)  # fmt: skip
def test_external_data_that_do_not_fit(path, entries):
    (path.parent / "short.bin").write_bytes(b"x" * 20)
    refused(external(path, **entries), "do not fit")


@pytest.mark.parametrize("entries", [{"offset": "many"}, {"length": "1e3"}])
def test_external_data_with_odd_numbers(path, entries):
    refused(external(path, **entries), "is no number")


@pytest.mark.parametrize("location", [None, ""])
def test_external_data_without_a_file(path, location):
    refused(external(path, location=location), "name no file")


def test_a_location_with_a_null_byte(path):
    refused(external(path, location="weights\0.bin"), "external data")


def test_external_data_of_no_type(path):
    proto = onnx.load_model_from_string(external(path).read_bytes())
    proto.graph.initializer[0].data_type = 0
    refused(write(path, proto), "external data")


def test_external_data_of_strings(path):
    proto = onnx.load_model_from_string(external(path).read_bytes())
    proto.graph.initializer[0].data_type = TensorProto.STRING
    refused(write(path, proto), "external data")


def test_external_data_of_a_negative_size(path):
    proto = onnx.load_model_from_string(external(path, length=None).read_bytes())
    proto.graph.initializer[0].dims[0] = -4
    refused(write(path, proto), "external data")


# --- saving ------------------------------------------------------------------------------------


def test_saving_and_loading(path):
    model = load(write(path, small()))
    target = path.parent / "copy.onnx"
    save(model, target)
    assert load(target).proto == model.proto
    assert sorted(p.name for p in path.parent.iterdir()) == ["copy.onnx", "m.onnx"]


def test_the_same_model_gives_the_same_bytes(path):
    model = load(write(path, small()))
    save(model, path.parent / "a.onnx")
    save(model, path.parent / "b.onnx")
    assert (path.parent / "a.onnx").read_bytes() == (path.parent / "b.onnx").read_bytes()


def broken():
    """Valid for onnx's checker; ONNX Runtime has no such kernel."""
    proto = small()
    proto.opset_import.add(domain="no.such.domain", version=1)
    proto.graph.node[0].domain = "no.such.domain"
    return Model(proto)


def test_a_failure_leaves_nothing(path):
    with pytest.raises(ModelError, match="refuses the model"):
        save(broken(), path)
    assert list(path.parent.iterdir()) == []


def test_a_failure_leaves_the_old_file(path):
    before = write(path, small()).read_bytes()
    with pytest.raises(ModelError):
        save(broken(), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["m.onnx"]


def test_a_missing_folder(path):
    with pytest.raises(OutputError, match="does not exist"):
        save(Model(small()), path.parent / "no" / "m.onnx")
    with pytest.raises(OutputError, match="does not exist"):
        require_writable(path.parent / "no" / "m.onnx")


def test_a_folder_in_the_way(path):
    path.mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        save(Model(small()), path)
    with pytest.raises(OutputError, match="it is a folder"):
        require_writable(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(path):
    path.parent.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="ermission denied"):
            save(Model(small()), path)
        with pytest.raises(OutputError, match="permission denied"):
            require_writable(path)
    finally:
        path.parent.chmod(0o700)


def test_permissions_follow_the_umask(path):
    mask = os.umask(0o027)
    try:
        save(Model(small()), path)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_output_may_not_be_an_input(path):
    write(path, small())
    (path.parent / "link.onnx").symlink_to(path)
    with pytest.raises(OutputError, match="it is an input"):
        require_distinct(path.parent / "link.onnx", None, path)
    require_distinct(path.parent / "other.onnx", path)


# --- fingerprint -------------------------------------------------------------------------------


def test_the_fingerprint_covers_weights_and_structure(path):
    model = load(write(path, small()))
    assert load(path).fingerprint == model.fingerprint
    other = onnx.ModelProto()
    other.CopyFrom(model.proto)
    raw = bytearray(other.graph.initializer[0].raw_data)
    raw[0] ^= 1
    other.graph.initializer[0].raw_data = bytes(raw)
    assert Model(other).fingerprint != model.fingerprint
    other.CopyFrom(model.proto)
    other.graph.node[0].name = "renamed"
    assert Model(other).fingerprint != model.fingerprint


def test_the_fingerprint_does_not_depend_on_where_the_weights_lie(path):
    inline = load(write(path, small())).fingerprint
    assert load(external(path)).fingerprint == inline


# --- caches ------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path):
    """A model with external data as a Hugging Face cache keeps it: links side by side into blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    onnx.save(
        small(), tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx_data",
        size_threshold=0,
    )  # fmt: skip
    for name in ("model.onnx", "model.onnx_data"):
        (tmp_path / name).replace(blobs / f"hash-of-{name}")
        (snapshot / name).symlink_to(f"../../../blobs/hash-of-{name}")
    return snapshot / "model.onnx"


def test_a_model_in_a_cache_finds_its_data(cached, tmp_path):
    wanted = Model(small())
    assert load(cached).proto.graph.node == wanted.proto.graph.node
    (tmp_path / "mine.onnx").symlink_to(cached)
    (tmp_path / "by_folder").symlink_to(cached.parent)
    for path in (tmp_path / "mine.onnx", tmp_path / "by_folder" / "model.onnx"):
        assert load(path).fingerprint == load(cached).fingerprint
    # Another process finds them too.
    assert PortableModel.of(load(cached)).unpack().fingerprint == load(cached).fingerprint


@pytest.mark.parametrize("how", ["file", "folder", "name"])
def test_a_link_out_of_the_cache_is_not_followed(cached, tmp_path, how):
    secret = tmp_path / "secret"
    (tmp_path / "blobs" / "hash-of-model.onnx_data").replace(secret)
    data = cached.with_name("model.onnx_data")
    if how == "file":
        data.unlink()
        data.symlink_to(secret)
    elif how == "folder":
        (tmp_path / "blobs" / "hash-of-model.onnx_data").symlink_to(secret)
    else:
        proto = onnx.load(cached, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = "../../../secret" if entry.key == "location" else entry.value
        (tmp_path / "blobs" / "hash-of-model.onnx").write_bytes(proto.SerializeToString())
    refused(cached, "outside the model's folder")


def test_links_in_a_circle_end(path):
    path.symlink_to(path.with_name("other.onnx"))
    path.with_name("other.onnx").symlink_to(path)
    refused(path, "cannot be read")
