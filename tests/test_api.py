"""The public functions that are thin: each gives what the command of its name prints."""

import importlib
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxq
import pytest
import tomllib
from click.testing import CliRunner
from onnxq import api
from onnxq.calibration import files
from onnxq.cli.group import onnxq as command_line
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.model.recipes import recorded_recipe, with_recipe

from support.testdata import uneven

MODEL = uneven()
(SPEC,) = MODEL.inputs
DATA = {SPEC.name: np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def int8():
    return onnxq.quantize(MODEL, DATA, rounding="nearest")[0]


def test_the_public_names_are_there():
    """What docs/stability.md promises: names come, none goes within a major version."""
    assert set(onnxq.__all__) >= {
        "Model", "calibrate", "emulate", "equalize", "explain", "inspect", "load", "merge",
        "quantize", "report", "save", "tune", "validate",
    }  # fmt: skip
    for name in onnxq.__all__:
        assert callable(getattr(onnxq, name))
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = onnxq.quantise


def test_importing_the_library_imports_nothing_heavy():
    code = (
        "import sys, onnxq, onnxq.options.quantize; print(sorted({'numpy', 'onnx', 'onnxruntime',"
    )
    code += " 'onnxq.api', 'onnxq.report'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "[]\n"


def test_merge_takes_calibrations_and_files(tmp_path):
    parts = [onnxq.calibrate(MODEL, DATA, shard=(index, 3)) for index in (1, 2, 3)]
    files.save(parts[1], tmp_path / "2.calib")
    whole = onnxq.merge([parts[2], tmp_path / "2.calib", parts[0]])
    assert files.to_bytes(whole) == files.to_bytes(onnxq.calibrate(MODEL, DATA))
    with pytest.raises(DataError, match=r"2\.calib: .* shard 2/3 is given twice"):
        onnxq.merge([parts[1], tmp_path / "2.calib"])
    with pytest.raises(UsageError, match="merge needs a list"):
        onnxq.merge([])


def test_inspect_says_what_is_int8_and_which_recipe_made_it(int8):
    found = onnxq.inspect(int8)
    assert found.details.is_quantized
    assert found.details.target == "gpu"
    assert found.details.record["settings"]["rounding"] == "nearest"
    assert (found.recipe, found.findings, found.kernels) == ("", None, None)
    assert not onnxq.inspect(MODEL).details.is_quantized
    more = onnxq.inspect(int8, lint=True, kernels=True)
    assert more.findings == ()
    assert more.kernels


def test_recipes_of_several_commands_make_one_file():
    made = with_recipe(
        with_recipe(MODEL, "equalize", 'relu6 = "tie"\n'), "quantize", "samples = 3\n"
    )
    assert tomllib.loads(recorded_recipe(made)) == {
        "equalize": {"relu6": "tie"}, "quantize": {"samples": 3},
    }  # fmt: skip


def test_explain_plans_a_float_model_for_a_target(int8):
    name = next(node.name for node in MODEL.proto.graph.node if node.op_type == "Conv")
    found = onnxq.explain(int8, name)
    assert (found.node, found.becomes) == (name, "quantized")
    calibration = onnxq.calibrate(MODEL, DATA)
    texts = {
        target: str(onnxq.explain(MODEL, name, calibration=calibration, target=target).quantization)
        for target in ("gpu", "cpu")
    }
    assert "uint8" in texts["cpu"]
    assert "uint8" not in texts["gpu"]
    with pytest.raises(UsageError, match="target must be gpu, cpu"):
        onnxq.explain(MODEL, name, target="tpu")


def test_report_gives_the_page_and_what_it_shows(int8):
    page, found = onnxq.report(MODEL, int8, data=DATA, max_drop=100)
    assert page.startswith("<!DOCTYPE html>")
    assert found.passed
    assert [gate.name for gate in found.validation.gates] == ["max-drop"]
    assert onnxq.report(MODEL, [int8], data=DATA, max_drop=100)[0] == page
    assert not onnxq.report(MODEL, int8, data=DATA, min_accuracy=1000.0)[1].passed
    with pytest.raises(UsageError, match="--samples needs data"):
        onnxq.report(MODEL, int8, samples=3)


def test_report_can_be_called_whether_or_not_its_package_was_imported(int8):
    module = importlib.import_module("onnxq.report")
    assert onnxq.report is module
    assert module(MODEL, int8)[0] == api.report(MODEL, int8)[0]


def test_a_result_shows_itself_without_the_api(tmp_path):
    """A calibration that is loaded with the modules alone."""
    files.save(onnxq.calibrate(MODEL, DATA), tmp_path / "m.calib")
    code = (
        "import sys; from pathlib import Path; from onnxq.calibration import files;"
        "print(files.load(Path(sys.argv[1])))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.calib"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert found.stdout.startswith("Calibration(24 samples, ")


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_settings_are_recorded_from_python_and_the_command_line_alike(tmp_path, target):
    onnxq.save(MODEL, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **DATA)
    words = ["quantize", tmp_path / "m.onnx", "--data", tmp_path / "d.npz", "--target", target,
             "--rounding", "nearest", "--no-equalize", "-o", tmp_path / "q.onnx"]  # fmt: skip
    result = CliRunner().invoke(command_line, [str(each) for each in words])
    assert result.exit_code == 0, result.output
    written = onnxq.load(tmp_path / "q.onnx")
    made, _ = onnxq.quantize(
        tmp_path / "m.onnx", tmp_path / "d.npz", target=target, rounding="nearest", equalize=False
    )
    onnxq.save(made, tmp_path / "again.onnx")
    made, key = onnxq.load(tmp_path / "again.onnx"), "onnxq.quantization"
    assert json.loads(written.metadata[key]) == json.loads(made.metadata[key])
    assert made.proto.graph == written.proto.graph


def test_signatures_name_the_values_of_every_choice():
    told = " ".join(onnxq.quantize.__doc__.split())
    assert (
        'Scales of the weights. One of "per-channel", "per-tensor". Default "per-channel".' in told
    )
    assert 'the path of a .toml file. Default "gpu".' in told
    assert 'A list of "emulate", "saturate", "cpu"' in " ".join(onnxq.validate.__doc__.split())


@pytest.mark.parametrize("form", ["bytes", "proto"])
def test_models_need_not_be_files(tmp_path, form):
    onnxq.save(MODEL, tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    proto = onnx.load(tmp_path / "m.onnx")
    given = onnxq.load(content if form == "bytes" else proto)
    assert given.fingerprint == onnxq.load(tmp_path / "m.onnx").fingerprint
    assert given.source is None
    proto.graph.name = "changed"
    assert given.proto.graph.name != "changed"


def test_models_in_memory_are_checked_as_files_are():
    for wrong, message in (
        (b"", "the model: the file is empty"),
        (b"no model", "the model: not an ONNX file"),
        (onnx.ModelProto(), "no graph or no operator set"),
    ):
        with pytest.raises(ModelError, match=message):
            onnxq.load(wrong)
    split = onnx.ModelProto()
    split.CopyFrom(MODEL.proto)
    split.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="its weights lie in other files"):
        onnxq.load(split)


def test_save_takes_a_model_in_every_form(tmp_path, int8):
    for number, form in enumerate((int8, int8.message, int8.message.SerializeToString())):
        api.save(form, tmp_path / f"{number}.onnx")
    assert len({onnxq.load(path).fingerprint for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda int8: api.save((int8, None), "x.onnx"),
        lambda int8: api.save(int8, None),
        lambda int8: api.save(int8, b"x.onnx"),
        lambda int8: api.save(int8, "a\0b"),
        lambda _: api.load("a\0b"),
        lambda _: api.calibrate(MODEL, "a\0b"),
        lambda _: api.validate(MODEL, [], DATA, labels="a\0b"),
        lambda _: api.merge([3]),
        lambda _: api.merge(3),
        lambda _: api.merge(iter([])),
        lambda int8: api.explain(int8, None),
    ],
)
def test_what_is_no_argument_is_a_usage_error(tmp_path, monkeypatch, int8, wrong):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        wrong(int8)
    assert not list(tmp_path.iterdir())
