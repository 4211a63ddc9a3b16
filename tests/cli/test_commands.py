"""Each command on a real network: what it writes, prints and answers."""

import csv
import io
import itertools
import re
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import onnxq as library
import pytest
from onnx import numpy_helper
from onnxq.cli import machine
from onnxq.errors import ModelError
from onnxq.model.cuda import devices, libraries, refusal_of_tensorrt
from onnxq.records import VERSIONS
from onnxq.validation.execute import runner

from support.cli_case import Case, Run, network, run

PREPROCESS = ("--preprocess", "resize=8x8,mean=0.5,std=0.5")


def outputs(path: Path, data: Path) -> np.ndarray:
    with np.load(data) as arrays:
        return runner(library.load(path), "emulate")({"x": arrays["x"]})[0]


# --- calibrate and merge ---------------------------------------------------------------------


def test_calibrate_prints_the_table(case: Case):
    result = run("calibrate", case.model, "--data", case.data)
    assert result.code == 0
    assert "Optimized Layer Name" in result.out
    assert "conv1_Weights" in result.out
    assert case.files() == {"tiny.onnx", "data.npz", "images"} | {
        name for name in case.files() if name.startswith("images/")
    }


def test_calibration_table_names_layers_as_matlab_does(case: Case):
    result = run("calibrate", case.model, "--data", case.data, "--format", "csv")
    rows = list(csv.reader(io.StringIO(result.out)))
    assert rows[0] == [
        "Optimized Layer Name", "Network Layer Name", "Learnables / Activations", "MinValue",
        "MaxValue",
    ]  # fmt: skip
    names = [row[:3] for row in rows[1:]]
    assert names[:4] == [
        ["x_Activations", "x", "Activations"],
        ["conv1_Weights", "conv1", "Weights"],
        ["conv1_Bias", "conv1", "Bias"],
        ["relu1_Activations", "relu1", "Activations"],
    ]
    assert ["classifier_Bias", "classifier", "Bias"] in names
    # What only a fused activation reads exists on no target.
    assert not any(name[0] == "conv1_Activations" for name in names)
    relu = next(row for row in rows if row[0] == "relu2_Activations")
    assert float(relu[3]) == 0.0
    assert float(relu[4]) == 6.0


def test_calibration_table_names_the_folded_batch_norm(tmp_path: Path, case: Case):
    """The activation is the batch norm's, the weights are the convolution's."""
    model = network()
    del model.graph.node[2]  # relu1
    for node in model.graph.node:
        node.input[:] = ["n1" if name == "r1" else name for name in node.input]
    onnx.save(model, case.model)
    rows = run("calibrate", case.model, "--data", case.data, "--json").json["table"]
    named = {row["optimized_layer"]: row["network_layer"] for row in rows}
    assert named["conv1_Weights"] == "conv1"
    assert named["conv1_Activations"] == "bn1"


def test_calibration_table_weights_are_those_after_folding(case: Case):
    rows = run("calibrate", case.model, "--data", case.data, "--json").json["table"]
    weights = {t.name: numpy_helper.to_array(t) for t in network().graph.initializer}
    gain = weights["g"] / np.sqrt(weights["v"] + 1e-5)
    folded = weights["w1"] * gain[:, None, None, None]
    row = next(row for row in rows if row["optimized_layer"] == "conv1_Weights")
    assert row["minimum"] == pytest.approx(folded.min(), rel=1e-6)
    assert row["maximum"] == pytest.approx(folded.max(), rel=1e-6)


def test_calibration_table_tells_the_outputs_of_one_node_apart(case: Case):
    node = onnx.helper.make_node("Split", ["y"], ["left", "right"], "split", axis=1, num_outputs=2)
    model = network(opset=18)
    model.graph.node.append(node)
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 2])
        for name in node.output
    )
    onnx.save(model, case.model)
    rows = run("calibrate", case.model, "--data", case.data, "--json").json["table"]
    assert [row["optimized_layer"] for row in rows[-2:]] == [
        "split:left_Activations", "split:right_Activations",
    ]  # fmt: skip
    assert {row["network_layer"] for row in rows[-2:]} == {"split"}


def test_calibrate_writes_a_file_and_says_so_on_stderr(case: Case):
    result = run("calibrate", case.model, "--data", case.data, "-o", case.calib)
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == ["24 samples seen, 8 tensors", f"wrote {case.calib}"]
    assert case.calib.is_file()


def test_format_json_is_the_document(case: Case):
    one = run("calibrate", case.model, "--data", case.data, "--json").json
    assert one == run("calibrate", case.model, "--data", case.data, "--format", "json").json
    assert (one["schema"], one["version"]) == ("onnxq/calibrate", 1)
    assert one["samples"] == 24
    assert one["shards"] == [[1, 1]]


def test_images_are_preprocessed(case: Case):
    document = run("calibrate", case.model, "--data", case.images, *PREPROCESS, "--json").json
    assert document["samples"] == 6
    assert document["preprocessing"].startswith("resize=8x8")


def test_random_data_say_so(case: Case):
    result = run("calibrate", case.model, "--data", "random:4")
    assert "note: random samples" in result.err


def test_shards_merge_to_the_same_bytes(case: Case):
    parts = [case.folder / f"{index}.calib" for index in (1, 2, 3)]
    for index, part in enumerate(parts, start=1):
        shard = ("--shard", f"{index}/3", "-o", part)
        assert run("calibrate", case.model, "--data", case.data, *shard).code == 0
    result = run("merge", *reversed(parts), "-o", case.calib, "--json")
    assert result.json["samples"] == 24
    whole = case.folder / "whole.calib"
    run("calibrate", case.model, "--data", case.data, "-o", whole)
    assert case.calib.read_bytes() == whole.read_bytes()


def test_merge_says_what_is_missing(case: Case):
    part = case.folder / "1.calib"
    run("calibrate", case.model, "--data", case.data, "--shard", "1/2", "-o", part)
    assert "incomplete: shards 1 of 2" in run("merge", part, "-o", case.calib).err


# --- equalize --------------------------------------------------------------------------------


@pytest.mark.parametrize("with_data", [True, False])
def test_equalize_keeps_the_outputs(case: Case, with_data: bool):
    data = ("--data", case.data) if with_data else ()
    result = run("equalize", case.model, "-o", case.out, *data)
    assert result.code == 0
    assert "proof: float outputs" in result.out
    np.testing.assert_allclose(
        outputs(case.out, case.data), outputs(case.model, case.data), rtol=0, atol=1e-5
    )


def test_equalize_explains_classes_and_barriers(calibrated: Case):
    result = run(
        "equalize", calibrated.model, "-o", calibrated.out, "--calibration", calibrated.calib,
        "--explain",
    )  # fmt: skip
    assert result.code == 0
    for words in ("Scale classes", "Saturating Clips", "Barriers", "graph output"):
        assert words in result.out
    assert "proven tie" in result.out or "per-channel" in result.out


def test_equalize_document(calibrated: Case):
    document = run(
        "equalize", calibrated.model, "-o", calibrated.out, "--calibration", calibrated.calib,
        "--relu6", "tie", "--json",
    ).json  # fmt: skip
    assert document["schema"] == "onnxq/equalize"
    assert document["options"]["relu6"] == "tie"
    assert {clip["node"] for clip in document["clips"]} == {"relu1", "relu2"}
    assert all(barrier["reason"] for barrier in document["barriers"])


# --- quantize --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_quantize_writes_a_model_that_is_close(case: Case, target: str):
    result = run("quantize", case.model, "--data", case.data, "-o", case.out, "--target", target)
    assert result.code == 0
    assert f"target {target}:" in result.out
    error = outputs(case.out, case.data) - outputs(case.model, case.data)
    assert np.abs(error).max() < 0.2


def test_quantize_from_a_calibration_file(calibrated: Case):
    arguments = ("quantize", calibrated.model, "--calibration", calibrated.calib)
    document = run(*arguments, "-o", calibrated.out, "--json").json
    assert document["quantized_sqnr_db"] == "nan"
    assert document["bias_corrections"] == []
    assert calibrated.out.is_file()


@pytest.mark.parametrize("finds", [True, False])
def test_a_result_that_is_hardly_of_use_is_said_to_be(case: Case, monkeypatch, finds: bool):
    generator = np.random.default_rng(0)
    x, w, v = (generator.standard_normal(n).astype(np.float32) for n in ((80, 4), (4, 3), (3, 3)))
    x[:, 0] *= 1000  # one step is more than all there is in the other channels, which alone matter
    w[0] = 0
    np.savez(case.data, x=x)
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node("MatMul", ["x", "w"], ["a"], "coarse"), node("MatMul", ["a", "v"], ["y"], "fine")],
        "g", [info("x", kind, ["N", 4])], [info("y", kind, ["N", 3])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(v, "v")],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), case.model)
    if not finds:
        refuse = Mock(side_effect=ModelError("no layer can be measured"))
        monkeypatch.setattr("onnxq.commands.costliest.measure_layers", refuse)
    options = ("--ranges", "minmax", "--no-equalize")
    result = run("quantize", case.model, "--data", case.data, "-o", case.out, *options)
    (line,) = [line for line in result.out.splitlines() if "less than 20 dB" in line]
    assert ("layers: coarse (" in line) == finds
    assert ("validate --layers" in line) != finds
    assert case.out.exists()


@pytest.mark.parametrize(("samples", "held_out"), [(30, False), (1, False), (64, True)])
def test_few_samples_give_an_uncertain_estimate(case: Case, samples: int, held_out: bool):
    x = np.random.default_rng(0).standard_normal((samples, 3, 8, 8)).astype(np.float32)
    np.savez(case.data, x=x)
    arguments = ("quantize", case.model, "--data", case.data, "-o", case.out)
    said = run(*arguments).out
    error = r" ± \d+(\.\d+)?" if samples > 1 else ""
    assert re.search(rf"quantized against float: \d+\.\d{error} dB SQNR on ", said)
    assert ("one sample does not tell how far that may be off" in said) == (samples == 1)
    assert ("uncertain" not in said) == held_out
    document = run(*arguments, "--json").json
    assert document["measured_on"] == {"samples": 8 if held_out else samples, "held_out": held_out}
    assert 10 < document["quantized_sqnr_db"] < 60
    assert (document["quantized_sqnr_error_db"] == "nan") == (samples == 1)
    checked = run("validate", case.model, case.out, "--data", case.data, "--json").json
    (sqnr,) = [row["metrics"]["sqnr"] for row in checked["rows"][1:]]
    assert (sqnr["standard_error"] == "nan") == (samples == 1)
    if not held_out:
        assert sqnr["value"] == pytest.approx(document["quantized_sqnr_db"], rel=1e-4)
        if samples > 1:
            told = document["quantized_sqnr_error_db"]
            assert sqnr["standard_error"] == pytest.approx(told, rel=1e-3)
            assert 0.05 < sqnr["standard_error"] < 2
    assert checked["rows"][1]["metrics"]["cosine"]["standard_error"] is None
    shown = run("validate", case.model, case.out, "--data", case.data)
    assert (" ± " in shown.out) == (samples > 1)
    assert ("which does not tell how far" in shown.err + shown.out) == (samples == 1)
    assert run("inspect", case.out, "--json").json["record"]["measured_on"]


@pytest.mark.parametrize(
    "options",
    [
        ("--weights", "per-tensor", "--no-equalize", "--no-bias-correction"),
        ("--ranges", "entropy", "--scale", "power-of-two"),
        ("--samples", "8", "--ranges", "percentile"),
    ],
)
def test_quantize_takes_options(case: Case, options: tuple[str, ...]):
    result = run("quantize", case.model, "--data", case.data, "-o", case.out, *options, "--json")
    assert result.code == 0
    tried = [each["name"] for each in result.json["trials"]]
    assert tried == ([] if "--no-equalize" in options else ["not equalized", "equalized"])


def test_quantize_states_why_nodes_stay_in_float(case: Case):
    result = run(
        "quantize", case.model, "--data", case.data, "-o", case.out, "--exclude", "^project$",
        "--no-equalize", "--json",
    )  # fmt: skip
    nodes = {node["node"]: node for node in result.json["nodes"]}
    assert nodes["project"]["becomes"] == "float"
    assert nodes["project"]["reason"] == "--exclude matches it"
    assert nodes["relu2"] == {
        "node": "relu2", "operator": "Clip", "becomes": "fused", "reason": "into depthwise",
    }  # fmt: skip
    assert all(node["reason"] for node in nodes.values() if node["becomes"] == "float")


def test_include_selects_nodes(case: Case):
    document = run(
        "quantize", case.model, "--data", case.data, "--dry-run", "--include", "conv1",
        "--include", "classifier", "--json",
    ).json  # fmt: skip
    int8 = {node["node"] for node in document["nodes"] if node["becomes"] == "quantized"}
    assert {"conv1", "classifier"} <= int8
    assert "project" not in int8


def test_dry_run_writes_nothing(case: Case):
    before = case.files()
    result = run("quantize", case.model, "--data", case.data, "-o", case.out, "--dry-run")
    assert result.code == 0
    assert "depthwise" in result.out
    assert "nothing was written" in result.err
    assert case.files() == before


def test_dry_run_plans_what_the_run_does(case: Case):
    plan = run("quantize", case.model, "--data", case.data, "--dry-run", "--json").json
    done = run("quantize", case.model, "--data", case.data, "-o", case.out, "--json").json
    assert plan["nodes"] == done["nodes"]
    assert (plan["output"], done["output"]) == (None, str(case.out))


# --- emulate -----------------------------------------------------------------------------------


def test_emulate_writes_the_outputs_of_every_sample(quantized: Case):
    path = quantized.folder / "outputs.npz"
    result = run("emulate", quantized.out, "--data", quantized.data, "-o", path)
    assert result.code == 0
    assert "no sum can leave its accumulator" in result.out
    with np.load(path) as written, np.load(quantized.data) as data:
        assert list(written) == ["y"]
        expected = library.emulate(library.load(quantized.out), data["x"])["y"]
        np.testing.assert_array_equal(written["y"], expected)
        assert written["y"].shape == (24, 4)


def test_emulate_gives_the_same_bytes(quantized: Case):
    paths = [quantized.folder / f"{number}.npz" for number in range(2)]
    for size, path in zip((8, 5), paths, strict=True):
        options = ("--data", quantized.data, "-o", path, "--batch-size", size)
        assert run("emulate", quantized.out, *options).code == 0
    first, second = (path.read_bytes() for path in paths)
    assert first == second


def test_emulate_says_what_runs_in_float_and_why(quantized: Case):
    arguments = ("emulate", quantized.out, "--data", quantized.data, "--samples", "4")
    result = run(*arguments, "-v")
    assert "no integer form" in result.out or "is not quantized" in result.out
    document = run(*arguments, "--json").json
    assert document["samples"] == 4
    assert document["output"] is None
    layers = {layer["node"]: layer for layer in document["layers"]}
    assert set(layers) == {"conv1", "depthwise", "project", "classifier"}
    assert all(layer["proved"] and layer["overflows"] == 0 for layer in layers.values())
    assert all(node["reason"] for node in document["float_nodes"])


def test_emulate_reports_sums_that_leave_int32(case: Case):
    """A bias at the end of int32, in the steps of the sum: adding to it wraps around."""
    assert run("quantize", case.model, "--data", case.data, "-o", case.out, "--target", "cpu",
               "--no-bias-correction").code == 0  # fmt: skip
    model = onnx.load(case.out)
    (bias,) = (t for t in model.graph.initializer if t.name == "classifier.bias_quantized")
    bias.CopyFrom(numpy_helper.from_array(np.full(4, 2**31 - 1, np.int32), bias.name))
    onnx.save(model, case.out)
    result = run("emulate", case.out, "--data", case.data)
    assert result.code == 0
    assert "sums of classifier left int32" in result.out
    document = run("emulate", case.out, "--data", case.data, "--json").json
    layer = next(each for each in document["layers"] if each["node"] == "classifier")
    assert layer["overflows"] > 0
    assert not layer["proved"]
    # A verdict on wrapped sums would mean nothing.
    verdict = run("validate", case.model, case.out, "--data", case.data)
    assert verdict.code == 3
    assert "leave int32" in verdict.err


# --- validate --------------------------------------------------------------------------------


def test_validate_shows_the_float_model_first(quantized: Case):
    result = run("validate", quantized.model, quantized.out, "--data", quantized.data)
    assert result.code == 0
    header, _, first, second = result.out.splitlines()[:4]
    assert "top1 (%)" in header
    assert "sqnr (dB)" in header
    assert "tiny.onnx" in first
    assert "out.onnx" in second


def test_validate_the_float_model_alone(case: Case):
    document = run("validate", case.model, "--data", case.data, "--json").json
    (row,) = document["rows"]
    assert row["execution"] == "cpu"
    top1 = {"value": 25.0, "unit": "%", "standard_error": None, "output": "", "values": {}}
    assert row["metrics"]["top1"] == top1


def test_validate_rows_by_model_and_execution(quantized: Case):
    document = run(
        "validate", quantized.model, quantized.out, quantized.model, "--data", quantized.data,
        "--execution", "emulate", "--execution", "cpu", "--metric", "sqnr", "--json",
    ).json  # fmt: skip
    rows = [(Path(row["model"]).name, row["execution"]) for row in document["rows"]]
    assert rows == [
        ("tiny.onnx", "cpu"),
        *itertools.product(["out.onnx", "tiny.onnx"], ["emulate", "cpu"]),
    ]
    assert document["rows"][0]["metrics"]["sqnr"]["value"] == "nan"
    assert document["rows"][1]["metrics"]["sqnr"]["value"] > 20
    assert document["rows"][1]["metrics"]["sqnr"]["unit"] == "dB"


def test_a_gate_that_holds(quantized: Case):
    gates = ("--max-drop", "50", "--min-accuracy", "1")
    result = run("validate", quantized.model, quantized.out, "--data", quantized.data, *gates)
    assert result.code == 0
    assert "passed" in result.out
    assert "failed" not in result.out


def test_a_gate_that_fails_is_exit_1(quantized: Case):
    arguments = ("validate", quantized.model, quantized.out, "--data", quantized.data)
    result = run(*arguments, "--min-accuracy", "99")
    assert result.code == 1
    assert "failed: --min-accuracy 99 %: out.onnx (emulate) is at 25 %" in result.err
    result = run(*arguments, "--max-drop", "-1", "--json")
    assert result.code == 1
    assert result.json["passed"] is False


def test_a_metric_of_the_users(quantized: Case):
    metric = quantized.folder / "mine.py"
    metric.write_text("def largest(outputs, labels):\n    return outputs.max(axis=1)\n")
    document = run(
        "validate", quantized.model, quantized.out, "--data", quantized.data,
        "--metric", f"{metric}:largest", "--json",
    ).json  # fmt: skip
    values = [row["metrics"]["largest"]["value"] for row in document["rows"]]
    assert values[0] == pytest.approx(outputs(quantized.model, quantized.data).max(1).mean())


def test_a_gate_without_labels_looks_at_the_error(quantized: Case):
    """For the SQNR a drop is the error in % of the outputs; the float model itself has none."""
    arguments = ("validate", quantized.model, quantized.out, "--data", "random:16", "--json")
    document = run(*arguments).json
    decibels = document["rows"][1]["metrics"]["sqnr"]["value"]
    error = 100 * 10 ** (-decibels / 20)
    for limit, code in ((error * 1.01, 0), (error * 0.99, 1)):
        result = run(*arguments, "--max-drop", limit)
        assert result.code == code
        (gate,) = result.json["gates"]
        assert gate["value"] == pytest.approx(error)
        assert gate["unit"] == "%"
    for limit, code in ((decibels - 0.1, 0), (decibels + 0.1, 1)):
        result = run(*arguments, "--min-accuracy", limit)
        assert result.code == code
        assert [gate["model"] for gate in result.json["gates"]] == ["out.onnx"]


def test_layers_are_ranked(quantized: Case):
    arguments = ("validate", quantized.model, quantized.out, "--data", quantized.data, "--layers")
    result = run(*arguments)
    assert result.code == 0
    assert "Share of the output error" in result.out
    assert "Own error (dB)" in result.out
    for layer in ("conv1", "depthwise", "project", "add", "classifier"):
        assert layer in result.out
    (report,) = run(*arguments, "--json").json["layers"]
    assert report["model"] == str(quantized.out)
    assert report["unmatched"] == []
    assert report["warning"] == ""
    assert (report["samples"], report["probes"]) == (24, 24)
    ranking = report["ranking"]
    assert {each["operator"] for each in ranking} == {"Conv", "Add", "Gemm"}
    assert sum(each["share_percent"] for each in ranking) == pytest.approx(100)
    assert run(*arguments[:-1], "--json").json["layers"] == []


def keep_in_float(case: Case, limit: object, *options: str) -> Run:
    return run(
        "quantize", case.model, "--data", case.data, "-o", case.out, "--max-drop", limit,
        "--validate-data", "random:16", *options,
    )  # fmt: skip


def test_layers_stay_in_float_until_the_gate_holds(case: Case):
    steps = keep_in_float(case, 1e-9, "--dry-run", "--json").json["search"]["steps"]
    drops = [step["drop"] for step in steps]
    assert len(drops) > 2
    assert not case.out.exists()
    result = keep_in_float(case, (drops[0] + drops[1]) / 2)
    assert result.code == 0
    assert "holds with 1 layer in float" in result.out
    assert "step by step" in result.out
    (layer,) = steps[1]["added"]
    (told,) = [line for line in run("inspect", case.out).out.splitlines() if "--max-drop" in line]
    assert f" {layer} " in told
    again = run("validate", case.model, case.out, "--data", "random:16", "--json").json
    error = 100 * 10 ** (-again["rows"][1]["metrics"]["sqnr"]["value"] / 20)
    assert error == pytest.approx(drops[1])


def test_a_drop_that_cannot_be_held_is_exit_1_and_writes_nothing(case: Case):
    before = case.files()
    result = keep_in_float(case, 1e-9, "--json")
    assert result.code == 1
    assert "nothing was written" in result.err
    assert result.json["output"] is None
    assert result.json["search"]["passed"] is False
    assert "leaves one quantized" in result.json["search"]["ended"]
    assert case.files() == before
    result = keep_in_float(case, 1e-9, "--max-trials", "2")
    assert result.code == 1
    assert "2 trials were made" in result.out


# --- documents ---------------------------------------------------------------------------------

KEYS = {
    "calibrate": "model output model_fingerprint data_fingerprint preprocessing note samples "
    "shards tensors not_finite findings too_few_samples gradients table",
    "merge": "parts output model_fingerprint data_fingerprint preprocessing note samples shards "
    "tensors not_finite findings too_few_samples gradients",
    "equalize": "model output normalization calibration_samples options classes clips barriers "
    "expected_gain_db proof kernels_added rolled_back factors absorption change",
    "quantize": "model output target scheme formats options normalization equalization trials absorption relu6_reason "
    "float_sqnr_db quantized_sqnr_db quantized_sqnr_error_db measured_on costliest outputs ranges uneven_scales harmful_clips roundings bias_corrections mixed search float16 account interface nodes",
    "tune": "model output target execution samples metric max_drop drop_unit passed chosen reason recipe float rows "
    "untimed not_tried budget_seconds seconds state",
    "emulate": "model output samples note outputs left_out layers on_quantized_values float_nodes agreement",
    "validate": "passed samples note rows gates kernels layers latency",
    "bench": "note rows",
    "inspect": "model opset size_bytes inputs outputs is_quantized target quantized_layers "
    "quantized_layer_count learnables activations float_nodes record recipe findings kernels kernels_in rules_of plan",
    "explain": "model node operator asked becomes reason equalized equalization quantization "
    "neighbors note",
    "report": "model quantized output size_bytes passed gates notes",
    "doctor": "ready verdict findings",
    "completion": "shell line file installed",
}


@pytest.mark.parametrize("command", KEYS)
def test_documents_keep_their_keys(calibrated: Case, command: str):
    """Scripts depend on them: what is taken away or renamed needs another version."""
    data = ("--data", calibrated.data)
    arguments = {
        "calibrate": (calibrated.model, *data),
        "merge": (calibrated.calib, "-o", calibrated.folder / "all.calib"),
        "equalize": (calibrated.model, "-o", calibrated.out),
        "quantize": (calibrated.model, *data, "-o", calibrated.out),
        "tune": (calibrated.model, *data, "--validate-data", calibrated.data, "--target", "web",
                 "--budget", "1s", "-o", calibrated.out),
        "emulate": (calibrated.model, *data),
        "validate": (calibrated.model, *data),
        "bench": (calibrated.model, "--seconds", 0),
        "inspect": (calibrated.model,),
        "explain": (calibrated.model, "add", "--calibration", calibrated.calib),
        "report": (calibrated.model, "-o", calibrated.folder / "report.html"),
        "doctor": (),
        "completion": ("bash",),
    }[command]  # fmt: skip
    document = run(command, *arguments, "--json").json
    assert (document.pop("schema"), document.pop("version")) == (
        f"onnxq/{command}",
        VERSIONS.get(command, 1),
    )
    assert list(document) == KEYS[command].split()


# --- inspect and doctor ----------------------------------------------------------------------


def test_inspect_shows_the_details(quantized: Case):
    result = run("inspect", quantized.out)
    assert result.code == 0
    for words in ("Quantized: yes", "Target: gpu", "folded batch norm", "int8 8×3×3×3"):
        assert words in result.out


def test_inspect_document(quantized: Case):
    document = run("inspect", quantized.out, "--json").json
    assert document["schema"] == "onnxq/inspect"
    assert document["is_quantized"] is True
    assert document["quantized_layer_count"] == len(document["quantized_layers"])
    assert {"conv1", "bn1", "relu1", "classifier"} <= set(document["quantized_layers"])
    first = document["learnables"][0]
    assert first == {
        "layer": "conv1", "parameter": "Weights", "value": "int8 8×3×3×3", "format": "int8",
        "granularity": "per channel on axis 0",
        "shape": [8, 3, 3, 3],
    }  # fmt: skip
    assert all(node["reason"] for node in document["float_nodes"])


def test_inspect_a_float_model(case: Case):
    document = run("inspect", case.model, "--json").json
    assert document["is_quantized"] is False
    assert document["learnables"] == []
    reasons = {node["node"]: node["reason"] for node in document["float_nodes"]}
    assert list(reasons) == [node.name for node in network().graph.node]
    assert reasons["conv1"] == "its weight is float"
    assert reasons["add"] == "Add has no weight"


def test_inspect_names_nodes_as_quantize_does(case: Case):
    model = network()
    for node in model.graph.node:
        node.name = "twice" if node.op_type == "Clip" else ""
    onnx.save(model, case.model)
    shown = [row["node"] for row in run("inspect", case.model, "--json").json["float_nodes"]]
    assert len(set(shown)) == len(model.graph.node)
    assert {"Conv_c1", "twice", "Clip_r2"} < set(shown)
    options = ("--data", case.data, "--no-equalize", "--dry-run", "--json")
    plan = run("quantize", case.model, *options).json["nodes"]
    assert {row["node"] for row in plan} < set(shown)
    assert "Conv_c1  " in run("inspect", case.model, "-v").out


def test_a_model_of_dynamic_operators_is_quantized(case: Case):
    node = onnx.helper.make_node
    model = network()
    model.graph.node.append(node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"))
    onnx.save(model, case.model)
    assert run("inspect", case.model, "--json").json["is_quantized"] is True


def test_doctor_names_what_matters():
    document = run("doctor", "--json").json
    found = {each["name"]: each for each in document["findings"]}
    assert {"onnxq", "python", "numpy", "onnx", "onnxruntime", "providers", "cuda"} <= set(found)
    assert found["cpu"]["implies"]
    wanted = libraries()
    for each in wanted if devices() else ():
        assert each.name in found["cuda libraries"]["found"]
    missing = bool(devices()) and any(each.missing for each in wanted)
    assert ("pip install" in found.get("cuda libraries", {}).get("implies", "")) == missing
    first, *_ = run("doctor").out.splitlines()
    assert first.startswith("ready for --target cpu: yes; for --execution cuda: ")
    assert (document["ready"], document["verdict"]) == (True, first)


def test_doctor_looks_on_where_looking_fails(monkeypatch):
    def broken():
        raise RuntimeError("no such system")

    monkeypatch.setattr(machine.platform, "platform", broken)
    monkeypatch.setattr(machine, "cpu_flags", broken)
    found = {each.name: each.found for each in machine.examine()}
    assert found["python"] == found["cpu"] == "unknown: RuntimeError: no such system"
    assert found["numpy"]


def test_doctor_advises_no_other_build_where_no_device_is(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = " ".join(each.implies for each in machine.examine())
    assert "there is no CUDA device" in told
    assert "uninstall" not in told


@pytest.mark.parametrize(
    ("features", "saturates"),
    [("fpu avx2 avx512f avx512_vnni", False), ("fpu avx2", True), ("", None)],
)
def test_doctor_says_what_the_cpu_implies(monkeypatch, features, saturates):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(features.split()))
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    finding = next(each for each in machine.examine() if each.name == "cpu")
    expected = {True: machine.SATURATES, False: machine.EXACT, None: machine.UNKNOWN}
    assert finding.implies == expected[saturates]


# --- calibrate: memory, resume ----------------------------------------------------------


def test_ways_to_run_a_calibration_give_the_same_file(case: Case) -> None:
    command = ("calibrate", case.model, "--data", case.data, "-q", "-o")
    assert run(*command, case.calib).code == 0
    for number, extra in enumerate((("--memory", "20KB"), ("--resume",))):
        other = case.folder / f"{number}.calib"
        found = run(*command, other, *extra)
        assert (found.code, found.err) == (0, "")
        assert other.read_bytes() == case.calib.read_bytes()
    assert not [name for name in case.files() if ".state" in name]


def test_bad_ways_to_run_a_calibration(case: Case) -> None:
    command = ("calibrate", case.model, "--data", case.data)
    for extra in (("--memory", "much"), ("--memory", "0"), ("--resume",)):
        found = run(*command, *extra)
        assert found.code == 2, extra
    found = run(*command, "--custom-op-library", case.folder / "none.so")
    assert found.code == 3
    assert "no such library" in found.err


def test_findings_are_said_and_documented(case: Case) -> None:
    found = run("calibrate", case.model, "--data", case.data, "--samples", 1, "--json")
    assert "too few samples to tell" in found.err
    assert found.json["too_few_samples"].startswith("too few samples")
    assert all(
        {"tensor", "kind", "channels", "text"} == each.keys() for each in found.json["findings"]
    )


def test_merge_refuses_what_does_not_belong_together(case: Case) -> None:
    command = ("calibrate", case.model, "--data", case.data, "-o")
    parts = [case.folder / f"{i}.calib" for i in (1, 2)]
    for index, part in enumerate(parts):
        assert run(*command, part, "--shard", f"{index + 1}/2").code == 0
    other = case.folder / "other.calib"
    assert run(*command, other, "--shard", "2/2", "--samples", 20).code == 0
    for named, message in (
        ((parts[0], parts[0]), "shard 1/2 is given twice"),
        ((parts[0], other), "different data"),
    ):
        found = run("merge", *named, "-o", case.folder / "all.calib")
        assert found.code == 4
        assert message in found.err
        assert not (case.folder / "all.calib").exists()
    assert run("merge", *parts, "-o", case.folder / "all.calib").code == 0
    assert run(*command, case.calib).code == 0
    assert (case.folder / "all.calib").read_bytes() == case.calib.read_bytes()


# --- quantize: where the result goes, and for which machine -------------------------------------


def test_quantize_writes_beside_the_model(case: Case):
    assert run("quantize", case.model, "--data", case.data).code == 0
    written = case.folder / "tiny.w8a8.onnx"
    first = written.read_bytes()
    # Its own file is written over; another is not.
    assert run("quantize", case.model, "--data", case.data, "--ranges", "minmax").code == 0
    assert written.read_bytes() != first
    for other in (case.model.read_bytes(), b"something else"):
        written.write_bytes(other)
        found = run("quantize", case.model, "--data", case.data)
        assert found.code == 2
        assert "onnxq did not write it" in found.err
        assert written.read_bytes() == other


def test_target_auto_is_resolved(case: Case):
    expected = "gpu" if refusal_of_tensorrt() is None else "cpu"
    found = run("quantize", case.model, "--data", case.data, "--target", "auto", "-o", case.out)
    assert found.out.startswith(f"target auto: {expected}, as ")
    again = case.folder / "again.onnx"
    run("quantize", case.model, "--data", case.data, "--target", expected, "-o", again)
    assert case.out.read_bytes() == again.read_bytes()
    assert f'target = "{expected}"' in run("inspect", case.out, "--recipe").out


def test_quantize_says_what_it_came_to(case: Case):
    arguments = ("quantize", case.model, "--data", case.data, "-o", case.out, "--target", "cpu")
    found = run(*arguments)
    account = run(*arguments, "--json").json["account"]
    assert account["size_bytes"] == case.out.stat().st_size
    assert "4 of 4 layers int8, " in found.out
    assert f"next: onnxq validate {case.model} {case.out} --data DATA" in found.err
    assert set(account["speed"]) == {"samples", "float_ms", "quantized_ms", "ratio"}
    assert run(*arguments, "--json", "--no-speed").json["account"]["speed"] is None
    # How the model came about is for those who ask.
    assert "corrected the biases" not in found.out
    assert "corrected the biases" in run(*arguments, "-v").out


def test_inspect_plans_a_float_model_without_data(case: Case):
    found = run("inspect", case.model, "--target", "cpu")
    assert "onnxq quantize --target cpu --scheme w8a8: 4 of 4 layers int8, " in found.out
    assert "8 random samples" in found.err
    plan = run("inspect", case.model, "--target", "cpu", "--json").json["plan"]
    options = ("--target", "cpu", "--data", case.data, "--no-equalize", "--dry-run", "--json")
    nodes = run("quantize", case.model, *options).json["nodes"]
    assert plan["nodes"] == nodes
    assert plan["quantized_layers"] == plan["layers"] == 4
    assert plan["multiply_adds"] == plan["integer_multiply_adds"] > 0
    assert "quantized" in run("inspect", case.model, "-v").out


def test_inspect_plans_no_quantized_model(quantized: Case):
    assert run("inspect", quantized.out, "--json").json["plan"] is None
