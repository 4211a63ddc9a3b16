"""Input made to do harm: refused in one line, within a second or so, and nothing escapes."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxq.calibration import files

from support.cli_case import network, run

USAGE, MODEL, DATA = 2, 3, 4
CONTROL = "conv\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
"""Sets a terminal's title, clears it, turns the text around and colors it."""


def refused(result, code, *words):
    assert result.code == code, result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert result.out == ""
    for word in words:
        assert word in result.err


def quantize(case, *extra, data=None, code, words=()):
    before = case.files()
    refused(
        run("quantize", case.model, "--data", data or case.data, "-o", case.out, *extra),
        code,
        *words,
    )
    assert case.files() == before


def saved(case, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    case.model.write_bytes(model.SerializeToString())


def info(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


# --- external data ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "../secret.bin"}, ["outside"]),
        ({"location": "/etc/passwd"}, ["outside"]),
        ({"location": "link.bin"}, ["outside"]),
        ({"location": "folder/secret.bin"}, ["outside"]),
        ({"location": "pipe"}, ["missing"]),
        ({"location": "w.bin", "length": str(1 << 62)}, ["do not fit"]),
        ({"location": "w.bin", "offset": "-8"}, ["do not fit"]),
        ({"location": "w.bin", "offset": "9" * 5000}, ["offset"]),
        ({"location": "w.bin\x1b[2J"}, ["missing", "\\x1b"]),
        ({"location": "x" * 5000}, ["data"]),
    ],
)
def test_external_data(case, entries, words):
    (case.folder.parent / "secret.bin").write_bytes(bytes(4096))
    (case.folder / "link.bin").symlink_to(case.folder.parent / "secret.bin")
    (case.folder / "folder").symlink_to(case.folder.parent)
    (case.folder / "w.bin").write_bytes(bytes(4096))
    os.mkfifo(case.folder / "pipe")
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    case.model.write_bytes(model.SerializeToString())
    quantize(case, code=MODEL, words=words)


# --- shapes that ask for terabytes -------------------------------------------------------------


def test_an_input_of_terabytes(case):
    saved(
        case,
        [helper.make_node("Relu", ["x"], ["y"])],
        [info("x", 1, 1 << 20, 1 << 22)],
        [info("y", 1, 1 << 20, 1 << 22)],
    )
    quantize(case, data="random:1", code=USAGE, words=["memory"])


@pytest.mark.parametrize(
    ("how", "code"), [("ConstantOfShape", USAGE), ("Expand", USAGE), ("Tile", MODEL)]
)
def test_a_constant_of_terabytes(case, how, code):
    """It is not computed to be found too large; running the model then needs that memory."""
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [1 << 21, 1 << 21])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1, 1], [1.0])
    inputs = ["sizes"] if how == "ConstantOfShape" else ["one", "sizes"]
    saved(
        case,
        [helper.make_node(how, inputs, ["big"]), helper.make_node("ReduceMax", ["big"], ["m"], keepdims=0),
         helper.make_node("Mul", ["x", "m"], ["y"])],
        [info("x", "N", 4)], [info("y", "N", 4)], [sizes, one],
    )  # fmt: skip
    np.save(case.folder / "x.npy", np.ones((4, 4), np.float32))
    quantize(case, data=case.folder / "x.npy", code=code)


@pytest.mark.parametrize("dims", [[1 << 40, 1 << 40], [-1, 4], [1 << 62, 4]])
def test_a_weight_that_claims_more_than_it_holds(case, dims):
    model = network()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    case.model.write_bytes(model.SerializeToString())
    quantize(case, code=MODEL, words=["tiny.onnx"])


# --- archives --------------------------------------------------------------------------------


def test_pickles_are_not_opened(case, tmp_path):
    class Harm:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'owned'}",))

    np.savez(case.data, x=np.array([Harm()], object))
    quantize(case, code=DATA, words=["Python objects"])
    assert not (tmp_path / "owned").exists()


def test_an_npz_that_claims_terabytes(case):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3, 8, 8)}
    )
    with zipfile.ZipFile(case.data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(1000))
    quantize(case, code=DATA, words=["truncated"])


@pytest.mark.parametrize("entry", ["header.json", "0/counts.npy"])
def test_a_calibration_that_is_a_decompression_bomb(case, entry, monkeypatch):
    """Zeros that pack a thousandfold; the entries before them are those of a real file."""
    monkeypatch.setattr(files, "LARGEST_ENTRY", 1 << 22)
    calibration = case.folder / "real.calib"
    assert run("calibrate", case.model, "--data", case.data, "-o", calibration).code == 0
    bomb = case.folder / "bomb.calib"
    with (
        zipfile.ZipFile(calibration) as real,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in real.namelist():
            if name != entry:
                archive.writestr(name, real.read(name))
                continue
            with archive.open(name, "w", force_zip64=True) as stream:
                for _ in range(8):
                    stream.write(bytes(1 << 20))
    result = run("quantize", case.model, "--calibration", bomb, "-o", case.out)
    refused(result, DATA, "bomb.calib")


def test_an_image_that_is_a_decompression_bomb(case):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    side = 100_000
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    case.images.mkdir()
    (case.images / "bomb.png").write_bytes(png)
    quantize(case, "--preprocess", "resize=8x8", data=case.images, code=DATA, words=["bomb.png"])


@pytest.mark.parametrize("name", ["../../escaped.npy", "/tmp/onnxq-escaped.npy", "link.npy"])
def test_a_tar_whose_members_would_escape(case, name):
    """It is read in place and never unpacked; links in it are not followed."""
    content = io.BytesIO()
    np.save(content, np.ones((3, 8, 8), np.float32))
    path = case.folder / "data.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        if name == "link.npy":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
        else:
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
    before = set(case.folder.parent.rglob("*"))
    result = run("calibrate", case.model, "--data", path, "-o", case.calib)
    assert result.code == (DATA if name == "link.npy" else 0), result.err
    assert set(case.folder.parent.rglob("*")) <= before | {case.calib}
    assert not Path("/tmp/onnxq-escaped.npy").exists()


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "quantize", "equalize", "validate", "explain"])
def test_names_that_would_steer_a_terminal(case, command):
    model = network()
    for node in model.graph.node:
        node.name = node.name.replace("conv", CONTROL).replace("project", f"project{CONTROL}")
    onnx.save(model, case.model)
    arguments = {
        "inspect": [case.model, "-v"],
        "quantize": [case.model, "--data", case.data, "-o", case.out, "-v", "--exclude", "project"],
        "equalize": [case.model, "-o", case.out, "--explain", "-v"],
        "validate": [case.model, case.model, "--data", case.data, "--layers"],
        "explain": [case.model, f"project{CONTROL}"],
    }[command]
    result = run(command, *arguments)
    assert result.code in {0, USAGE}, result.err
    text = result.out + result.err
    assert "\\x1b" in text or command == "validate"
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)


def test_an_error_with_such_a_name(case):
    model = network()
    model.graph.node[0].name = CONTROL
    model.graph.node[0].op_type = f"No{CONTROL}"
    case.model.write_bytes(model.SerializeToString())
    result = run("inspect", case.model)
    refused(result, MODEL)
    assert "\x1b" not in result.err


def test_a_recipe_with_unknown_keys(case):
    recipe = case.folder / "r.toml"
    recipe.write_text('[quantize]\ntarget = "gpu"\n__class__ = "x"\n')
    quantize(case, "--recipe", recipe, code=USAGE, words=["r.toml", "__class__"])
