"""Outputs that are no tensors: maps of a classifier's scores, a sequence of features."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.cli_case import run

RNG = np.random.default_rng(0)


def classifier(*outputs: str) -> onnx.ModelProto:
    """Two layers; the scores as maps, as a sequence of their halves, and the best one's place."""
    node, info = helper.make_node, helper.make_tensor_value_info
    weights = [
        numpy_helper.from_array((RNG.standard_normal(shape) / 6).astype(np.float32), name)
        for name, shape in (("w1", (48, 48)), ("w2", (48, 8)))
    ]
    nodes = [
        node("MatMul", ["x", "w1"], ["hidden"], "first"),
        node("Relu", ["hidden"], ["active"], "relu"),
        node("MatMul", ["active", "w2"], ["scores"], "second"),
        node("ArgMax", ["scores"], ["label"], "best", axis=1, keepdims=0),
        node("SplitToSequence", ["scores", "four"], ["halves"], "halves", axis=1),
        node("ZipMap", ["scores"], ["map"], "map", domain="ai.onnx.ml",
             classlabels_int64s=list(range(8))),
    ]  # fmt: skip
    maps = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    known = {
        "label": info("label", TensorProto.INT64, ["N"]),
        "halves": helper.make_tensor_sequence_value_info("halves", TensorProto.FLOAT, None),
        "map": helper.make_value_info("map", helper.make_sequence_type_proto(maps)),
    }
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["N", 48])],
        [known[name] for name in outputs],
        [*weights, numpy_helper.from_array(np.array([4, 4]), "four")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def made(folder: Path, model: onnx.ModelProto) -> tuple[Path, Path, Path]:
    """The model, the quantized one and the data."""
    path, out, data = folder / "float.onnx", folder / "int8.onnx", folder / "data.npz"
    onnx.save(model, path)
    np.savez(data, x=RNG.standard_normal((32, 48)).astype(np.float32))
    done = run("quantize", path, "--data", data, "--target", "cpu", "-o", out, "--effort", "fast")
    assert done.code == 0
    return path, out, data


def test_emulate_writes_the_tensors_and_names_the_others(tmp_path: Path):
    _, out, data = made(tmp_path, classifier("label", "map", "halves"))
    done = run("emulate", out, "--data", data, "-o", tmp_path / "outputs.npz")
    assert done.code == 0
    assert (
        "outputs left out, as no array holds them: map is a sequence of maps, "
        "halves is a sequence of tensors" in done.err
    )
    with np.load(tmp_path / "outputs.npz") as arrays:
        assert {name: values.shape for name, values in arrays.items()} == {"label": (32,)}
    document = run("emulate", out, "--data", data, "--json").json
    assert document["left_out"] == [
        {"name": "map", "is": "a sequence of maps"},
        {"name": "halves", "is": "a sequence of tensors"},
    ]


def test_emulate_without_any_tensor_has_nothing_to_write(tmp_path: Path):
    _, out, data = made(tmp_path, classifier("halves"))
    done = run("emulate", out, "--data", data, "-o", tmp_path / "outputs.npz")
    assert done.code == 3
    assert done.err == (
        "error: int8.onnx gives no arrays to write: 'halves' is a sequence of tensors "
        "(leave out --output)\n"
    )
    assert not (tmp_path / "outputs.npz").exists()
    assert run("emulate", out, "--data", data).code == 0


@pytest.mark.parametrize("name", ["map", "halves"])
def test_a_gate_looks_at_the_floats_that_are_measured(tmp_path: Path, name: str):
    path, out, data = made(tmp_path, classifier("label", name))
    arguments = ("validate", path, out, "--data", data)
    found = {each["name"]: each for each in run(*arguments, "--json").json["rows"][1]["outputs"]}
    assert found[name]["sqnr_db"] > 20
    for limit, code in (("15", 0), ("0.01", 1)):
        done = run(*arguments, "--max-drop", limit, "--json")
        assert done.code == code
        (gate,) = done.json["gates"]
        assert gate["decisive"].startswith(name)
    done = run(*arguments, "--max-drop", "5", "--output-name", "label")
    assert done.code == 2
    assert "sqnr has nothing to look at: no float output among label" in done.err


def test_integers_that_gates_pass_over_are_named_where_few_are_as_they_were(tmp_path: Path):
    path, out, data = made(tmp_path, classifier("label", "halves"))
    arguments = ("--data", data, "--max-drop", "90")
    assert "no gate looks" not in run("validate", path, out, *arguments).err
    broken = onnx.load(out)
    (best,) = (node for node in broken.graph.node if node.op_type == "ArgMax")
    best.op_type = "ArgMin"
    onnx.save(broken, out)
    done = run("validate", path, out, *arguments)
    assert done.code == 0
    assert "'label' holds no floats, so no gate looks at it: 0 % of its values are as" in done.err
    assert "no gate looks" not in run("validate", path, out, "--data", data).err
    # A metric of the user's may look at anything, so nobody knows what it passes over.
    (tmp_path / "own.py").write_text("def same(outputs, labels):\n    return 1.0\n")
    own = run("validate", path, out, *arguments, "--metric", f"{tmp_path / 'own.py'}:same")
    assert (own.code, "no gate looks" in own.err) == (0, False)
