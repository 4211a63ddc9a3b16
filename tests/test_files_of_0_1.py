"""Files that onnxq 0.1 wrote are read and mean what they meant (`scripts/files_of_0_1.py`)."""

import shutil

import numpy as np
import onnx
import pytest
import tomllib
from onnxq import api
from onnxq.calibration import files
from onnxq.model.channel_scales import recorded_exponents, recorded_offsets
from onnxq.model.model import Model
from onnxq.model.session import open_session, run, with_outputs
from onnxq.quantization.details import details, recorded_preprocessing
from PIL import Image

from support.cli_case import run as onnxq
from support.testdata import TESTDATA

PREPROCESS = "unit,mean=0.5,std=0.25"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy as the working folder: recipes keep paths as they were given."""
    shutil.copytree(TESTDATA / "0.1", tmp_path / "0.1")
    monkeypatch.chdir(tmp_path / "0.1")
    return tmp_path / "0.1"


def samples(folder):
    """The images, preprocessed by hand."""
    paths = sorted((folder / "images").glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in paths])
    return ((pixels / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype(np.float32)


def activations(path, names, feed):
    session = open_session(Model(with_outputs(api.load(path), names)), optimize=False)
    return dict(zip(names, run(session, names, {"image": feed}), strict=True))


def without_metadata(path):
    proto = onnx.load(path)
    del proto.metadata_props[:]
    return proto


def without_bias_zero_points(proto):
    """0.1 wrote those of int32, which are 0 without being named."""
    zeros = {t.name for t in proto.graph.initializer if t.name.endswith(".bias_zero_point")}
    assert zeros
    for node in proto.graph.node:
        if len(node.input) > 2 and node.input[2] in zeros:
            del node.input[2:]
    kept = [t for t in proto.graph.initializer if t.name not in zeros]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto


# --- the calibration -------------------------------------------------------------------------


def test_the_calibration_holds_the_ranges(folder):
    calibration = files.load(folder / "tiny.calib")
    assert calibration.samples == 8
    assert calibration.provenance.model == api.load(folder / "tiny.onnx").fingerprint
    assert calibration.provenance.preprocessing == (
        "mean=0.5:0.5:0.5,std=0.25:0.25:0.25,layout=nchw,color=rgb"
    )
    names = [name for name in calibration.tensors if name != "image"]
    assert {"r1", "r2", "c3", "sum", "logits"} <= set(names)
    found = activations("tiny.onnx", names, samples(folder))
    for name, values in found.items():
        statistics = calibration.tensors[name]
        assert statistics.seen == values.size
        assert statistics.low == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        assert statistics.high == pytest.approx(values.max(), rel=1e-5, abs=1e-6)


def test_the_calibration_is_written_again_as_it_was(folder):
    content = (folder / "tiny.calib").read_bytes()
    assert files.to_bytes(files.from_bytes(content, folder)) == content


# --- recipes ---------------------------------------------------------------------------------


def test_the_recipe_makes_the_same_model(folder):
    """From the stored calibration, nothing of which depends on the processor."""
    made = onnxq("quantize", "tiny.onnx", "--recipe", "nearest.toml", "-o", "again.onnx")
    assert made.code == 0, made.err
    old_proto = without_bias_zero_points(without_metadata("nearest.int8.onnx"))
    assert without_metadata("again.onnx") == old_proto
    written = tomllib.loads(onnxq("inspect", "again.onnx", "--recipe").out)["quantize"]
    old = tomllib.loads((folder / "nearest.toml").read_text())["quantize"]
    assert {key: written[key] for key in old} == old


@pytest.mark.parametrize("model", ["nearest", "adaptive"])
def test_a_model_gives_its_recipe(folder, model):
    shown = tomllib.loads(onnxq("inspect", f"{model}.int8.onnx", "--recipe").out)
    assert shown == tomllib.loads((folder / f"{model}.toml").read_text())


def test_both_tables_of_a_recipe_are_taken(folder):
    made = onnxq("equalize", "tiny.onnx", "--recipe", "adaptive.toml", "-o", "again.onnx")
    assert made.code == 0, made.err
    # 0.1 did not know what the target rounds, so its scales were others: of the same float model.
    again, old = (activations(name, ["logits"], samples(folder)) for name in
                  ("again.onnx", "equalized.onnx"))  # fmt: skip
    assert np.array_equal(again["logits"], old["logits"])
    kinds = [[n.op_type for n in without_metadata(name).graph.node] for name in
             ("again.onnx", "equalized.onnx")]  # fmt: skip
    assert kinds[0] == kinds[1]
    made = onnxq("quantize", "equalized.onnx", "--recipe", "adaptive.toml", "-o", "int8.onnx")
    assert made.code == 0, made.err
    assert details(api.load("int8.onnx")).float_nodes["classifier"] == "--exclude matches it"


# --- models and their metadata ---------------------------------------------------------------


def test_every_metadata_key_is_there(folder):
    assert set(api.load(folder / "adaptive.int8.onnx").metadata) == {
        "onnxq.octaves", "onnxq.offsets", "onnxq.quantization", "onnxq.recipe.equalize",
        "onnxq.recipe.quantize",
    }  # fmt: skip


def test_the_details_are_read(folder):
    found = details(api.load(folder / "adaptive.int8.onnx"))
    assert found.is_quantized
    assert found.target == "gpu"
    assert set(found.layers) == {"stem", "relu1", "depthwise", "relu2.relu", "project", "add"}
    assert [(each.layer, each.parameter, each.value) for each in found.learnables] == [
        ("stem", "Weights", "int8 8×3×3×3"), ("stem", "Bias", "float32 8"),
        ("depthwise", "Weights", "int8 8×1×3×3"), ("depthwise", "Bias", "float32 8"),
        ("project", "Weights", "int8 8×8×1×1"), ("project", "Bias", "float32 8"),
    ]  # fmt: skip
    assert found.float_nodes["classifier"] == "--exclude matches it"
    assert set(found.float_nodes) == {"classifier", "flatten", "pool", "relu2.min"}
    assert found.record["options"]["ranges"] == "mse"
    assert found.record["weights_rounded_adaptively"] == 1
    assert found.record["biases_corrected"] == 3
    assert found.record["calibration"]["samples"] == 8


def test_the_biases_of_the_other_target(folder):
    found = details(api.load(folder / "nearest.int8.onnx"))
    assert (found.target, len(found.learnables)) == ("cpu", 8)
    assert found.record["folded_batch_norms"] == {"norm": "stem"}
    assert {each.value for each in found.learnables if each.parameter == "Bias"} == {
        "int32 8", "int32 4",
    }  # fmt: skip


def test_what_is_shown_of_it(folder):
    shown = onnxq("inspect", "adaptive.int8.onnx")
    assert shown.code == 0, shown.err
    assert "Target: gpu" in shown.out
    assert "--exclude matches it" in shown.out
    told = onnxq("explain", "adaptive.int8.onnx", "classifier")
    assert told.code == 0, told.err
    assert "--exclude matches it" in told.out
    assert onnxq("inspect", "adaptive.int8.onnx", "--json").json["record"]["onnxq"] == "0.1.0"


def test_the_preprocessing_is_compared(folder):
    recorded = "mean=0.5:0.5:0.5,std=0.25:0.25:0.25,layout=nchw,color=rgb"
    assert recorded_preprocessing(api.load(folder / "adaptive.int8.onnx")) == recorded
    other = onnxq("validate", "tiny.onnx", "adaptive.int8.onnx", "--data", "images",
                  "--preprocess", "unit,mean=0.5,std=0.5")  # fmt: skip
    assert other.code == 4
    assert "use the same --preprocess" in other.err


@pytest.mark.parametrize("model", ["equalized.onnx", "adaptive.int8.onnx"])
def test_scales_and_offsets_relate_the_tensors(folder, model):
    """s·x − o of the original's activation is the model's, up to what int8 rounds."""
    exponents, offsets = recorded_exponents(api.load(model)), recorded_offsets(api.load(model))
    assert np.any(exponents["r2"])
    assert (model == "adaptive.int8.onnx") == ("r2" in offsets)
    names = ["r2", "c3", "sum", "logits"]
    original = activations("tiny.onnx", names, samples(folder))
    ours = activations(model, names, samples(folder))
    for name in names:
        scale = np.exp2(exponents.get(name, np.zeros(())))
        expected = original[name] * scale - offsets.get(name, np.zeros(()))
        error = np.abs(ours[name] - expected).max() / np.abs(expected).max()
        assert error < (1e-5 if model == "equalized.onnx" else 0.1), name


def test_the_models_are_validated(folder):
    result = onnxq("validate", "tiny.onnx", "equalized.onnx", "adaptive.int8.onnx",
                   "nearest.int8.onnx", "--data", "images", "--preprocess", PREPROCESS,
                   "--layers", "--json")  # fmt: skip
    assert result.code == 0, result.err
    rows = {row["model"]: row["metrics"]["sqnr"]["value"] for row in result.json["rows"]}
    assert rows["equalized.onnx"] in {"inf", "nan"} or float(rows["equalized.onnx"]) > 100
    assert rows["adaptive.int8.onnx"] == pytest.approx(52.5, abs=1)
    assert rows["nearest.int8.onnx"] == pytest.approx(42.2, abs=1)


def test_quantized_again_from_the_equalized_model(folder):
    """The scales that it records go on into what is made from it."""
    made = onnxq("quantize", "equalized.onnx", "--data", "images", "--preprocess", PREPROCESS,
                 "--no-equalize", "-o", "int8.onnx")  # fmt: skip
    assert made.code == 0, made.err
    old, new = (recorded_exponents(api.load(path)) for path in ("equalized.onnx", "int8.onnx"))
    assert {name: values.tolist() for name, values in new.items()} == {
        name: values.tolist() for name, values in old.items()
    }
