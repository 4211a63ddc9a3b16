"""Models that are not one chain of float layers: each is calibrated and quantized, or says why not."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.calibration import files
from onnxq.calibration.merge import merge
from onnxq.cli.group import onnxq as command_line
from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.model.session import Runtime, open_session, run
from onnxq.quantization.plan import Float
from PIL import Image

RNG = np.random.default_rng(0)


def info(name, *shape, elem_type=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def built(nodes, inputs, outputs, weights, domains=(), opset=17):
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    for number, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type}{number}"
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return Model(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def node(*args, **kwargs):
    return helper.make_node(*args, **kwargs)


def branches():
    """A Gemm, an If whose branches hold a Gemm each, and a Gemm."""
    then = helper.make_graph(
        [node("Gemm", ["r", "w2"], ["t"], name="then_gemm")], "then", [], [info("t", "N", 6)]
    )
    other = helper.make_graph([node("Neg", ["r"], ["e"])], "else", [], [info("e", "N", 6)])
    return built(
        [node("Gemm", ["x", "w1"], ["h"]), node("Relu", ["h"], ["r"]),
         node("ReduceMax", ["x"], ["m"], keepdims=0), node("Greater", ["m", "zero"], ["yes"]),
         node("If", ["yes"], ["i"], name="choose", then_branch=then, else_branch=other),
         node("Gemm", ["i", "w3"], ["y"])],
        [info("x", "N", 6)], [info("y", "N", 3)],
        [weight("w1", 6, 6), weight("w2", 6, 6), weight("w3", 6, 3),
         numpy_helper.from_array(np.float32(0), "zero")],
    )  # fmt: skip


def test_bodies_of_if_stay_in_float_with_a_reason():
    model = branches()
    x = RNG.standard_normal((80, 6)).astype(np.float32)
    assert {"r", "i"} <= api.calibrate(model, x).tensors.keys()
    quantized, result = api.quantize(model, x)
    assert isinstance(result.plan.nodes["choose"], Float)
    assert result.plan.nodes["choose"].reason
    kept = next(n for n in quantized.proto.graph.node if n.op_type == "If")
    body = next(a.g for a in kept.attribute if a.name == "then_branch")
    assert [n.op_type for n in body.node] == ["Gemm"]
    assert sum(n.op_type == "QuantizeLinear" for n in quantized.proto.graph.node) >= 2
    (y,), (expected,) = (run(open_session(m), None, {"x": x}) for m in (quantized, model))
    assert np.abs(y - expected).max() < 0.1 * np.abs(expected).max()


def looped():
    """A Gemm, a Loop of three steps whose body holds a Gemm, and a Gemm."""
    body = helper.make_graph(
        [node("Gemm", ["carried", "w2"], ["g"], name="body_gemm"), node("Tanh", ["g"], ["next"]),
         node("Identity", ["going"], ["still"])], "body",
        [info("step", elem_type=TensorProto.INT64), info("going", elem_type=TensorProto.BOOL),
         info("carried", "N", 6)],
        [info("still", elem_type=TensorProto.BOOL), info("next", "N", 6)],
    )  # fmt: skip
    return built(
        [node("Gemm", ["x", "w1"], ["h"]), node("Relu", ["h"], ["r"]),
         node("Loop", ["steps", "yes", "r"], ["l"], name="repeat", body=body),
         node("Gemm", ["l", "w3"], ["y"])],
        [info("x", "N", 6)], [info("y", "N", 3)],
        [weight("w1", 6, 6), weight("w2", 6, 6), weight("w3", 6, 3),
         numpy_helper.from_array(np.int64(3), "steps"), numpy_helper.from_array(np.True_, "yes")],
    )  # fmt: skip


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_the_body_of_a_loop_stays_in_float_with_a_reason(target):
    model = looped()
    x = RNG.standard_normal((80, 6)).astype(np.float32)
    quantized, result = api.quantize(model, x, target=target)
    assert isinstance(result.plan.nodes["repeat"], Float)
    assert result.plan.nodes["repeat"].reason
    kept = next(n for n in quantized.proto.graph.node if n.op_type == "Loop")
    body = next(a.g for a in kept.attribute if a.name == "body")
    assert sorted(n.op_type for n in body.node) == ["Gemm", "Identity", "Tanh"]
    assert sum(n.op_type == "QuantizeLinear" for n in quantized.proto.graph.node) >= 2
    row = api.validate(model, quantized, x).rows[1]
    assert row.values["sqnr"] > 20


def test_several_inputs_one_of_them_integer():
    model = built(
        [node("Gather", ["table", "ids"], ["e"]), node("Add", ["e", "x"], ["s"]), node("MatMul", ["s", "w"], ["y"])],
        [info("ids", "N", elem_type=TensorProto.INT64), info("x", "N", 8)], [info("y", "N", 3)],
        [weight("table", 10, 8), weight("w", 8, 3)],
    )  # fmt: skip
    data = {"ids": RNG.integers(0, 10, 40), "x": RNG.standard_normal((40, 8)).astype(np.float32)}
    found = api.calibrate(model, data)
    assert found.tensors["x"].count == 40 * 8
    assert "ids" not in found.tensors
    quantized, _ = api.quantize(model, data)
    assert run(open_session(quantized), None, data)[0].shape == (40, 3)


def test_samples_of_several_shapes(tmp_path):
    """Dynamic height and width: consecutive images of one size make a batch."""
    sizes = [(8, 8), (8, 8), (6, 9), (8, 8), (5, 5), (5, 5), (5, 5), (7, 6), (8, 8), (8, 8), (4, 9)]
    for number, (height, width) in enumerate(sizes):
        pixels = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    model = built(
        [node("Conv", ["x", "w"], ["c"]), node("GlobalAveragePool", ["c"], ["y"])],
        [info("x", "N", 3, "H", "W")], [info("y", "N", 4, 1, 1)], [weight("w", 4, 3, 3, 3)],
    )  # fmt: skip
    found = api.calibrate(model, tmp_path, preprocess="unit")
    assert found.samples == len(sizes)
    assert found.tensors["x"].count == sum(3 * h * w for h, w in sizes)
    assert found.tensors["c"].count == sum(4 * (h - 2) * (w - 2) for h, w in sizes)
    parts = [
        api.calibrate(model, tmp_path, preprocess="unit", batch_size=3, shard=(i, 2))
        for i in (1, 2)
    ]
    assert files.to_bytes(merge(parts)) == files.to_bytes(found)


# --- custom operators ------------------------------------------------------------------------------


def custom():
    return built(
        [node("Gemm", ["x", "w"], ["h"]), node("Twice", ["h"], ["t"], domain="test.ops", name="twice"),
         node("Gemm", ["t", "v"], ["y"])],
        [info("x", "N", 4)], [info("y", "N", 2)], [weight("w", 4, 4), weight("v", 4, 2)], ["test.ops"],
    )  # fmt: skip


def test_a_custom_operator_without_its_library_is_a_clear_error():
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    with pytest.raises(ModelError, match=r"does not know the operator test.ops:Twice") as error:
        api.calibrate(custom(), x)
    assert "--custom-op-library" in str(error.value)


def test_a_library_that_is_none(tmp_path):
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    with pytest.raises(ModelError, match="no such library"):
        api.calibrate(custom(), x, libraries=[tmp_path / "none.so"])
    source, library = tmp_path / "empty.c", tmp_path / "empty.so"
    source.write_text("int nothing;\n")
    if not Path("/usr/bin/cc").exists():
        pytest.skip("no C compiler")
    subprocess.run(["cc", "-shared", "-o", library, source], check=True)
    with pytest.raises(ModelError, match="no library of custom operators"):
        Runtime(libraries=(library,)).open(custom())


def foreign():
    return built(
        [node("Gemm", ["x", "w"], ["h"]),
         node("NegPos", ["h"], ["neg", "pos"], domain="ai.onnx.contrib", name="split"),
         node("Gemm", ["pos", "v"], ["y"])],
        [info("x", "N", 4)], [info("y", "N", 2)], [weight("w", 4, 4), weight("v", 4, 2)],
        ["ai.onnx.contrib"],
    )  # fmt: skip


def test_a_custom_operator_is_calibrated_with_its_library():
    extensions = pytest.importorskip("onnxruntime_extensions")
    x = RNG.standard_normal((20, 4)).astype(np.float32)
    with pytest.raises(ModelError, match="does not know the operator"):
        api.calibrate(foreign(), x)
    found = api.calibrate(foreign(), x, libraries=[extensions.get_library_path()])
    assert found.tensors["h"].count == 80
    assert found.tensors["y"].count == 40
    libraries = [extensions.get_library_path()]
    model = foreign()
    int8, _ = api.quantize(model, x, libraries=libraries)
    validation = api.validate(model, int8, x, metrics=["sqnr"], libraries=libraries)
    assert validation.rows[1].values["sqnr"] > 25
    with pytest.raises(ModelError, match="does not know the operator"):
        api.emulate(int8, x)


def test_a_custom_operator_is_quantized_and_validated_with_its_library(tmp_path):
    extensions = pytest.importorskip("onnxruntime_extensions")
    library = ("--custom-op-library", extensions.get_library_path())
    path, int8, data = tmp_path / "m.onnx", tmp_path / "q.onnx", tmp_path / "x.npy"
    path.write_bytes(foreign().proto.SerializeToString())
    np.save(data, RNG.standard_normal((80, 4)).astype(np.float32))

    def onnxq(*arguments):
        return CliRunner().invoke(command_line, list(map(str, arguments)))

    quantize = ("quantize", path, "--data", data, "-o", int8)
    without = onnxq(*quantize)
    assert without.exit_code == 3
    assert "does not know the operator" in without.output
    assert "--custom-op-library" in without.output
    assert not int8.exists()
    assert onnxq(*quantize, *library).exit_code == 0
    validate = ("validate", path, int8, "--data", data, "--metric", "sqnr", "--json")
    assert onnxq(*validate).exit_code == 3
    found = onnxq(*validate, *library)
    assert found.exit_code == 0
    assert json.loads(found.stdout)["rows"][1]["metrics"]["sqnr"]["value"] > 20
    for command in (
        ("equalize", path, "-o", tmp_path / "e.onnx"),
        ("emulate", int8, "--data", data, "-o", tmp_path / "y.npz"),
    ):
        assert onnxq(*command).exit_code == 3
        assert not command[-1].exists()
        assert onnxq(*command, *library).exit_code == 0
        assert command[-1].exists()


def test_optional_values_between_layers():
    model = built(
        [node("Gemm", ["x", "w1"], ["h"]), node("Optional", ["h"], ["some"]),
         node("OptionalHasElement", ["some"], ["there"]),
         node("OptionalGetElement", ["some"], ["got"]), node("Gemm", ["got", "w2"], ["z"]),
         node("Where", ["there", "z", "zero"], ["y"])],
        [info("x", "N", 48)], [info("y", "N", 48)],
        [weight("w1", 48, 48), weight("w2", 48, 48),
         numpy_helper.from_array(np.float32(0), "zero")], opset=18,
    )  # fmt: skip
    x = RNG.standard_normal((48, 48)).astype(np.float32)
    for target in ("cpu", "gpu"):
        quantized, result = api.quantize(model, x, target=target)
        assert all(not isinstance(result.plan.nodes[n], Float) for n in ("Gemm0", "Gemm4"))
        (y,), (expected,) = (run(open_session(m), None, {"x": x}) for m in (quantized, model))
        assert np.abs(y - expected).max() < 0.1 * np.abs(expected).max()
