"""Bad input: one line that names it, the exit code, no output file, no traceback."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxq.errors import ProviderError
from onnxq.model.cuda import require_cuda
from PIL import Image

from support.cli_case import Case, Run, network, run

USAGE, MODEL, DATA = 2, 3, 4


def refused(result: Run, code: int, *words: str) -> None:
    """Check what a refusal promises."""
    lines = result.err.splitlines()
    assert result.code == code, result.err
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.err
    assert result.out == ""
    for word in words:
        assert word in lines[0]


def quantize(case: Case, *extra: object, model: Path | None = None, data: object = None) -> Run:
    """Quantize, and check that a refusal leaves nothing behind."""
    before = case.files()
    result = run(
        "quantize", model or case.model, "--data", data or case.data, "-o", case.out, *extra
    )
    assert case.files() == before
    return result


# --- models ----------------------------------------------------------------------------------


def test_no_such_model(case: Case):
    refused(quantize(case, model=case.folder / "none.onnx"), MODEL, "none.onnx", "no such file")


def test_not_an_onnx_file(case: Case):
    case.model.write_text("this is no model\n" * 9)
    refused(quantize(case), MODEL, "tiny.onnx", "not an ONNX")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_truncated_model(case: Case, share: float):
    content = case.model.read_bytes()
    case.model.write_bytes(content[: int(len(content) * share)])
    refused(quantize(case), MODEL, "tiny.onnx")


def test_opset_too_new(case: Case):
    model = network()
    model.opset_import[0].version = 99
    case.model.write_bytes(model.SerializeToString())
    refused(quantize(case), MODEL, "opset 99 is too new")


def external(case: Case, location: str) -> None:
    """Make the first weight's data lie in another file."""
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    case.model.write_bytes(model.SerializeToString())


def test_missing_external_data(case: Case):
    external(case, "weights.bin")
    refused(quantize(case), MODEL, "'w1'", "weights.bin", "missing")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd"])
def test_external_data_outside_the_folder(case: Case, location: str):
    external(case, location)
    refused(quantize(case), MODEL, "'w1'", "outside the model's folder")


@pytest.mark.parametrize("command", ["inspect", "emulate", "validate", "calibrate", "equalize"])
def test_every_command_refuses_a_bad_model(case: Case, command: str):
    case.model.write_bytes(b"nonsense")
    extra = {
        "validate": ("--data", case.data),
        "emulate": ("--data", case.data, "-o", case.folder / "outputs.npz"),
        "calibrate": ("--data", case.data, "-o", case.calib),
        "equalize": ("-o", case.out),
    }.get(command, ())
    before = case.files()
    refused(run(command, case.model, *extra), MODEL, "tiny.onnx")
    assert case.files() == before


def test_quantized_model_of_another_interface(case: Case):
    other = network()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    onnx.save(other, case.folder / "other.onnx")
    result = run("validate", case.model, case.folder / "other.onnx", "--data", case.data)
    refused(result, MODEL, "other.onnx", "tiny.onnx")


# --- models that are quantized already ---------------------------------------------------------


@pytest.mark.parametrize("command", ["quantize", "equalize", "calibrate"])
def test_a_quantized_model_is_not_quantized_again(quantized: Case, command: str):
    before = quantized.files()
    result = run(command, quantized.out, "--data", quantized.data, "-o", quantized.folder / "again")
    graph = onnx.load(quantized.out).graph
    for name in ("QuantizeLinear", "DequantizeLinear"):
        number = sum(node.op_type == name for node in graph.node)
        refused(result, MODEL, "out.onnx", "quantized already", f"{number} {name}")
    assert quantized.files() == before


def test_so_is_one_with_integer_operators(case: Case):
    node = onnx.helper.make_node
    model = network()
    model.graph.node.append(node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"))
    onnx.save(model, case.model)
    refused(quantize(case), MODEL, "tiny.onnx", "quantized already, it has 1 DynamicQuantizeLinear")


def test_float_and_quantized_swapped(quantized: Case):
    swapped = run("validate", quantized.out, quantized.model, "--data", quantized.data)
    refused(swapped, MODEL, "out.onnx", "is quantized", "tiny.onnx", "is float", "swapped")
    both = run("validate", quantized.out, quantized.out, "--data", quantized.data)
    refused(both, MODEL, "out.onnx", "is quantized", "name the float model first")
    assert run("validate", quantized.model, quantized.model, "--data", quantized.data).code == 0


def forest() -> onnx.ModelProto:
    """One tree of one node, which reads what a Relu computes."""
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    tree = node(
        "TreeEnsembleRegressor", ["r"], ["y"], name="trees", domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0], nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0], target_treeids=[0, 0],
        target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0],
    )  # fmt: skip
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node("Relu", ["x"], ["r"], "relu"), tree], "forest",
        [info("x", kind, [None, 8])], [info("y", kind, [None, 1])],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("ai.onnx.ml", 1), onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_a_model_with_nothing_to_quantize(case: Case, target: str):
    onnx.save(forest(), case.model)
    np.savez(case.data, x=np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32))
    words = ("tiny.onnx", "no node becomes quantized", "TreeEnsembleRegressor", "--allow-none")
    refused(quantize(case, "--target", target), MODEL, *words)
    dry = quantize(case, "--target", target, "--dry-run")
    assert (dry.code, "trees" in dry.out) == (0, True)
    options = ("--data", case.data, "-o", case.out, "--target", target, "--allow-none")
    assert run("quantize", case.model, *options).code == 0
    assert case.out.exists()


# --- data ------------------------------------------------------------------------------------


def test_no_such_data(case: Case):
    refused(quantize(case, data=case.folder / "none.npz"), DATA, "none.npz")


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), "4×8×8×3"),
        (np.zeros((3, 8, 8), np.float32), "3×8×8"),
        (np.zeros((4, 3, 8, 8), np.complex64), "complex64"),
        (np.full((4, 3, 8, 8), np.nan, np.float32), "NaN"),
        (np.zeros((0, 3, 8, 8), np.float32), "bad.npz"),
    ],
)
def test_array_that_does_not_fit(case: Case, array: np.ndarray, word: str):
    np.savez(case.folder / "bad.npz", x=array)
    refused(quantize(case, data=case.folder / "bad.npz"), DATA, "bad.npz", word)


def test_damaged_archive(case: Case):
    case.data.write_bytes(case.data.read_bytes()[:500])
    refused(quantize(case), DATA, "data.npz")


def test_image_that_is_none(case: Case):
    (case.images / "class0" / "9.png").write_text("no image")
    result = quantize(case, "--preprocess", "resize=8x8,mean=0.5,std=0.5", data=case.images)
    refused(result, DATA, "9.png")


def test_no_size_helps_an_image_of_32_bits(case: Case):
    folder = case.folder / "wide"
    folder.mkdir()
    Image.fromarray(np.ones((8, 8), np.int32)).save(folder / "a.tif")
    result = quantize(case, "--preprocess", "resize=8x8", data=folder)
    refused(result, DATA, "32-bit numbers (mode I)", "save it with 8 or 16 bits")
    assert "sizes" not in result.err


def test_images_without_preprocessing(case: Case):
    refused(quantize(case, data=case.images), DATA, "images", "--preprocess")


def test_empty_folder(case: Case):
    (case.folder / "empty").mkdir()
    result = quantize(case, "--preprocess", "unit", data=case.folder / "empty")
    refused(result, DATA, "empty")


def test_labels_missing_for_top1(case: Case):
    result = run("validate", case.model, "--data", "random:4", "--metric", "top1")
    refused(result, DATA, "random:4", "top1 needs labels")


def test_activation_that_is_not_finite(case: Case):
    with np.load(case.data) as arrays:
        x = arrays["x"].copy()
    x[5] = 3e38
    np.savez(case.data, x=x)
    model = network()
    model.graph.node[2].CopyFrom(onnx.helper.make_node("Relu", ["n1"], ["r1"], "relu1"))
    onnx.save(model, case.model)
    arguments = ("calibrate", case.model, "--data", case.data, "-o", case.calib)
    refused(run(*arguments), DATA, "'r1'", "data.npz[5]")
    assert not case.calib.exists()
    allowed = run(*arguments, "--allow-nonfinite")
    assert allowed.code == 0
    assert "note: r1: " in allowed.err


def test_calibration_of_another_model(calibrated: Case):
    onnx.save(network(seed=5), calibrated.model)
    result = quantize(calibrated, "--calibration", calibrated.calib)
    refused(result, DATA, "out.calib", "another model")


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_damaged_calibration(calibrated: Case, content: bytes | None):
    whole = calibrated.calib.read_bytes()
    calibrated.calib.write_bytes(whole[: len(whole) // 2] if content is None else content)
    result = quantize(calibrated, "--calibration", calibrated.calib)
    refused(result, DATA, "out.calib")


def test_merge_refuses_parts_that_do_not_belong_together(calibrated: Case):
    merged = calibrated.folder / "all.calib"
    result = run("merge", calibrated.calib, calibrated.calib, "-o", merged)
    refused(result, DATA, "out.calib", "shard 1/1 is given twice")
    onnx.save(network(seed=5), calibrated.model)
    other = calibrated.folder / "other.calib"
    run("calibrate", calibrated.model, "--data", calibrated.data, "-o", other)
    refused(run("merge", calibrated.calib, other, "-o", merged), DATA, "different models")
    assert not merged.exists()


# --- outputs ---------------------------------------------------------------------------------


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be read before the output is known to be possible."""

    def load(_path: object) -> None:
        raise AssertionError("long work began")

    monkeypatch.setattr("onnxq.model.files.load", load)


@pytest.mark.usefixtures("unread")
def test_output_folder_does_not_exist(case: Case):
    result = run("quantize", case.model, "--data", case.data, "-o", case.folder / "no" / "q.onnx")
    refused(result, USAGE, "q.onnx", "does not exist")


@pytest.mark.usefixtures("unread")
def test_output_folder_is_read_only(case: Case):
    folder = case.folder / "locked"
    folder.mkdir(mode=0o500)
    # Root may write there all the same; nobody may write to /proc.
    output = (Path("/proc") if os.geteuid() == 0 else folder) / "q.onnx"
    if not output.parent.is_dir():
        pytest.skip("root, and no /proc")
    result = run("quantize", case.model, "--data", case.data, "-o", output)
    refused(result, USAGE, str(output), "cannot write")


@pytest.mark.usefixtures("unread")
def test_output_is_a_folder(case: Case):
    result = run("equalize", case.model, "-o", case.images)
    refused(result, USAGE, "images", "is a folder")


@pytest.mark.usefixtures("unread")
def test_output_is_an_input(case: Case):
    content = case.model.read_bytes()
    result = run("equalize", case.model, "-o", case.folder / "images" / ".." / "tiny.onnx")
    refused(result, USAGE, "tiny.onnx", "is an input")
    refused(run("calibrate", case.model, "--data", case.data, "-o", case.data), USAGE, "data.npz")
    assert case.model.read_bytes() == content


def test_outputs_are_no_npy_file(case: Case):
    """It would be an archive under that name, which nothing reads back."""
    path = case.folder / "e.npy"
    refused(run("emulate", case.model, "--data", case.data, "-o", path), USAGE, ".npz", "e.npz")
    assert not path.exists()


# --- options ---------------------------------------------------------------------------------


def test_a_batch_larger_than_memory_is_not_drawn(case: Case):
    result = run("bench", case.model, "--batch-size", 99_999_999_999)
    refused(result, USAGE, "a batch of 99,999,999,999 samples", "lower --batch-size")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frobnicate",), ("frobnicate",)),
        (("quantize",), ("MODEL",)),
        (("quantize", "m.onnx", "-o", "q.onnx"), ("--data", "--calibration")),
        (("quantize", "m.onnx", "-o", "q.onnx", "--data", "d", "--target", "tpu"), ("tpu", "gpu")),
        (("quantize", "m.onnx", "--rounding", "up"), ("--rounding", "adaptive")),
        (("calibrate", "m.onnx", "--data", "d", "--shard", "5/4"), ("part 5 of 4",)),
        (("calibrate", "m.onnx", "--data", "d", "--shard", "one"), ("'one'",)),
        (("calibrate", "m.onnx", "--data", "d", "--batch-size", "0"), ("batch-size",)),
        (("calibrate", "m.onnx", "--data", "d", "-v", "-q"), ("--verbose", "--quiet")),
        (("equalize", "m", "-o", "o", "--data", "d", "--calibration", "c"), ("exclude",)),
        (("merge", "-o", "all.calib"), ("A.calib",)),
    ],
)
def test_usage(arguments: tuple[str, ...], words: tuple[str, ...]):
    refused(run(*arguments), USAGE, *words)


def test_unknown_metric(case: Case):
    result = run("validate", case.model, "--data", case.data, "--metric", "top3")
    refused(result, USAGE, "'top3'", "top5")


@pytest.mark.parametrize("body", ["raise ValueError('oh')", "return 'no number'"])
def test_metric_of_the_users_that_fails(case: Case, body: str):
    (case.folder / "mine.py").write_text(f"def score(outputs, labels):\n    {body}\n")
    metric = f"{case.folder / 'mine.py'}:score"
    result = run("validate", case.model, "--data", case.data, "--metric", metric)
    refused(result, USAGE, "mine.py:score", "ValueError")


def test_metric_file_that_does_not_load(case: Case):
    (case.folder / "mine.py").write_text("def score(:\n")
    metric = f"{case.folder / 'mine.py'}:score"
    result = run("validate", case.model, "--data", case.data, "--metric", metric)
    refused(result, USAGE, "mine.py", "SyntaxError")


def test_gates_that_check_nothing(case: Case):
    refused(run("validate", case.model, "--data", "random:4", "--max-drop", "1"), USAGE, "gates")
    arguments = ("--metric", "sqnr", "--min-accuracy", "10")
    refused(run("validate", case.model, "--data", case.data, *arguments), USAGE, "gates")


def test_a_drop_needs_data_and_data_a_drop(case: Case):
    refused(quantize(case, "--max-drop", "1"), USAGE, "--validate-data")
    refused(quantize(case, "--validate-data", case.data), USAGE, "--max-drop")


@pytest.mark.parametrize("option", ["--include", "--exclude"])
def test_regular_expressions(case: Case, option: str):
    refused(quantize(case, option, "conv("), USAGE, option, "'conv('")
    refused(quantize(case, option, "nothing"), USAGE, option, "'nothing'", "matches no node")
    near = "did you mean 'classifier'?"
    refused(quantize(case, option, "^clasifier$"), USAGE, "'^clasifier$'", "matches no node", near)


def test_preprocessing_that_makes_no_sense(case: Case):
    refused(quantize(case, "--preprocess", "imagenot", data=case.images), USAGE, "imagenot")
    refused(quantize(case, "--preprocess", "unit"), USAGE, "data.npz", "preprocessing")


def test_relu6_modes_that_need_data(case: Case):
    result = run("equalize", case.model, "-o", case.out, "--relu6", "tie")
    refused(result, USAGE, "--relu6 tie")
    assert not case.out.exists()


@pytest.fixture
def no_device():
    try:
        require_cuda()
    except ProviderError:
        return
    pytest.skip("there is a CUDA device")


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("calibrate", ()), ("equalize", ()), ("quantize", ()), ("validate", ("{in}",)),
        ("tune", ("--validate-data", "{data}")), ("report", ("{in}",)),
    ],
)  # fmt: skip
def test_cuda_without_a_device_is_refused_before_any_work(case: Case, command, more):
    # The model is not looked at, so what is no model does not matter.
    case.model.write_bytes(b"")
    before = case.files()
    given = [word.format(**{"in": case.model, "data": case.data}) for word in more]
    place = () if command == "validate" else ("-o", case.out)
    result = run(command, case.model, *given, "--data", case.data, *place, "--provider", "cuda")
    refused(result, USAGE, "CUDA")
    assert case.files() == before


@pytest.mark.usefixtures("no_device")
def test_cuda_without_a_device_is_no_execution(case: Case):
    execution = ("--execution", "cuda")
    result = run("validate", case.model, case.model, "--data", case.data, *execution)
    refused(result, USAGE, "CUDA")


@pytest.mark.usefixtures("no_device")
def test_without_a_device_auto_is_the_cpu_and_written_so(case: Case):
    given = ("quantize", case.model, "--data", case.data, "--provider", "auto", "-o", case.out)
    result = run(*given)
    assert result.code == 0
    assert "note: runs on the CPU: there is no CUDA device" in result.err
    auto = case.out.read_bytes()
    assert run(*given[:-4], "-o", case.out).code == 0
    assert case.out.read_bytes() == auto


# --- errors as documents ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("quantize", "none.onnx", "--data", "random:4", "-o", "out.onnx"), "model", 3),
        (("quantize", "none.onnx", "-o", "out.onnx"), "usage", 2),
        (("validate", "tiny.onnx", "--data", "none.npz"), "data", 4),
        (("calibrate", "tiny.onnx", "--tagret", "cpu"), "usage", 2),
        (("no-such-command",), "usage", 2),
    ],
)
def test_with_json_an_error_is_a_document(case, monkeypatch, arguments, kind, code):
    monkeypatch.chdir(case.folder)
    found = run(*arguments, "--json")
    assert found.code == code
    assert list(found.json) == ["schema", "version", "kind", "message", "hint", "exit_code"]
    assert (found.json["schema"], found.json["kind"]) == ("onnxq/error", kind)
    assert found.json["exit_code"] == code
    # The same on stderr, for people.
    assert found.json["message"] in found.err
    assert found.json["hint"] in found.err
    assert run(*arguments).out == ""


def test_a_format_that_is_json_asks_for_the_document_too(case):
    found = run("calibrate", case.model, "--data", "none.npz", "--format", "json")
    assert found.json["kind"] == "data"
