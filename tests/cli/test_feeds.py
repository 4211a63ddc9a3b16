"""States, shapes of random samples, and values that are not finite, from the command line."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.cli_case import run


def info(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def write(path, nodes, inputs, outputs, **weights):
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture
def streaming(tmp_path):
    """h' = tanh(W·(x + h)), y = h', with the batch of h on axis 1; and sequences of ten steps."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    model = write(
        tmp_path / "model.onnx",
        [
            node("Squeeze", ["h", "zero"], ["before"], name="squeeze"),
            node("Add", ["x", "before"], ["sum"], name="add"),
            node("MatMul", ["sum", "w"], ["mixed"], name="matmul"),
            node("Tanh", ["mixed"], ["y"], name="tanh"),
            node("Unsqueeze", ["y", "zero"], ["h2"], name="unsqueeze"),
        ],
        [info("x", "N", 8), info("h", 1, "N", 8)], [info("y", "N", 8), info("h2", 1, "N", 8)],
        zero=np.array([0]), w=rng.standard_normal((8, 8)).astype(np.float32) / 3,
    )  # fmt: skip
    folder = tmp_path / "sequences"
    folder.mkdir()
    for number in range(8):
        steps = rng.standard_normal((10, 1, 8)).astype(np.float32)
        np.savez(folder / f"{number}.npz", x=steps)
    return model, folder


def test_streaming_models_go_through_all_commands(streaming, tmp_path):
    model, folder = streaming
    data = ("--data", folder, "--state", "h2=h")
    for command, output in (
        ("calibrate", "a.calib"), ("equalize", "even.onnx"), ("quantize", "int8.onnx"),
        ("report", "page.html"),
    ):  # fmt: skip
        result = run(command, model, *data, "-o", tmp_path / output)
        assert result.code == 0, result.err
        assert (tmp_path / output).exists()
    result = run("calibrate", model, *data, "--json").json
    assert result["samples"] == 80
    assert run("validate", model, tmp_path / "int8.onnx", *data).code == 0
    assert run("emulate", tmp_path / "int8.onnx", *data).code == 0
    assert 'state = ["h2=h"]' in run("inspect", tmp_path / "int8.onnx", "--recipe").out


def test_a_state_that_is_none_of_the_models(streaming, tmp_path):
    model, folder = streaming
    result = run("calibrate", model, "--data", folder, "--state", "h2=hh", "-o", tmp_path / "x")
    assert (result.code, "its inputs are: " in result.err) == (2, True)
    assert not (tmp_path / "x").exists()


def test_open_sizes_are_found_or_said(tmp_path):
    model = write(
        tmp_path / "model.onnx", [helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool")],
        [info("x", "N", 3, "height", "width")], [info("y", "N", 3, 1, 1)],
    )  # fmt: skip
    assert run("equalize", model, "-o", tmp_path / "even.onnx").code == 0
    shaped = ("--input-shape", "x:1x3x40x48", "-o", tmp_path / "even.onnx")
    assert run("equalize", model, *shaped).code == 0
    result = run("equalize", model, "--input-shape", "x:1x4x40x48", "-o", tmp_path / "no.onnx")
    assert (result.code, "does not fit the input 'x', N×3×height×width" in result.err) == (2, True)
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3, 8, 8), np.float32))
    result = run("calibrate", model, "--data", tmp_path / "d.npz", *shaped[:2])
    assert (result.code, "--input-shape is for random samples" in result.err) == (2, True)


def test_every_command_that_draws_samples_takes_their_shape(tmp_path):
    """Only one length runs, which no search finds."""
    model = write(
        tmp_path / "model.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["rows"], name="fold"),
         helper.make_node("MatMul", ["rows", "w"], ["y"], name="matmul")],
        [info("x", "N", "length")], [info("y", None, 31, 2)],
        shape=np.array([-1, 31, 7919]), w=np.ones((7919, 2), np.float32) / 7919,
    )  # fmt: skip
    shape = ("--input-shape", f"1x{31 * 7919}")
    drawn = ("--data", "random:4")
    result = run("explain", model, "matmul")
    assert (result.code, "--input-shape x:" in result.err) == (4, True)
    assert run("explain", model, "matmul", *shape).out.startswith("matmul (MatMul): quantized")
    calibration, output = tmp_path / "a.calib", ("-o", tmp_path / "int8.onnx")
    assert run("calibrate", model, *drawn, *shape, "-o", calibration).code == 0
    known = ("--calibration", calibration)
    result = run("quantize", model, *known, *shape, *output)
    assert result.code == 0, result.err
    assert run("validate", model, output[1], *drawn, *shape).code == 0
    assert run("emulate", output[1], *drawn, *shape).code == 0
    result = run("explain", model, "matmul", *known, *shape)
    assert (result.code, "takes their place" in result.err) == (2, True)


@pytest.mark.parametrize("command", ["calibrate", "equalize", "quantize"])
def test_the_option_that_a_message_names_exists(tmp_path, command):
    """log(0) = −inf reaches a layer with weights."""
    model = write(
        tmp_path / "model.onnx",
        [helper.make_node("Log", ["x"], ["l"], name="log"),
         helper.make_node("Mul", ["l", "two"], ["l2"], name="double"),
         helper.make_node("MatMul", ["l2", "w"], ["y"], name="matmul")],
        [info("x", "N", 4)], [info("y", "N", 4)], w=np.eye(4, dtype=np.float32),
        two=np.float32(2),
    )  # fmt: skip
    x = np.ones((16, 4), np.float32)
    x[3, 1] = 0
    np.savez(tmp_path / "d.npz", x=x)
    arguments = (command, model, "--data", tmp_path / "d.npz", "-o", tmp_path / "out.onnx")
    result = run(*arguments)
    assert result.code == 4
    assert "Inf in activation 'l2'" in result.err or "Inf in activation 'l'" in result.err
    assert "d.npz[3]" in result.err
    assert "the layer 'matmul' reads it" in result.err
    assert "--allow-nonfinite" in result.err
    assert not (tmp_path / "out.onnx").exists()
    # The layer stays in float then, and there is no other.
    more = ("--allow-none",) if command == "quantize" else ()
    assert run(*arguments, "--allow-nonfinite", *more).code == 0
