"""Pictures for models of all kinds, from the command line: detectors, pixels, class folders."""

from pathlib import Path

import numpy as np
import onnx
import onnxq as library
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.quantization.details import recorded_preprocessing
from PIL import Image

from support.cli_case import SIDE, Case, run

DATA_REFUSED = 4
OPSET = [helper.make_opsetid("", 17)]


@pytest.fixture
def pixel_model(tmp_path: Path) -> Path:
    """uint8 N×H×W×3 → Cast, Transpose, normalization, Conv; H and W are free."""
    generator = np.random.default_rng(0)
    weights = {
        "mean": np.array([123.7, 116.3, 103.5], np.float32).reshape(1, 3, 1, 1),
        "factor": np.float32(1 / 58),
        "w": generator.standard_normal((4, 3, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["t", "mean"], ["s"], "subtract"),
        helper.make_node("Mul", ["s", "factor"], ["m"], "divide"),
        helper.make_node("Conv", ["m", "w"], ["y"], "conv", pads=[1, 1, 1, 1]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "pixels",
        [info("pixels", TensorProto.UINT8, ["N", "H", "W", 3])],
        [info("y", TensorProto.FLOAT, ["N", 4, "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    path = tmp_path / "pixels.onnx"
    onnx.save(helper.make_model(graph, opset_imports=OPSET, ir_version=8), path)
    return path


def test_a_uint8_model_is_fed_the_pixels(case: Case, pixel_model: Path):
    model = library.load(pixel_model)
    files = sorted(case.images.rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    of_images = library.calibrate(model, case.images, preprocess="pixels")
    of_arrays = library.calibrate(model, pixels)
    assert of_images.tensors.keys() == of_arrays.tensors.keys()
    for name, tensor in of_images.tensors.items():
        assert np.array_equal(tensor.counts, of_arrays.tensors[name].counts)
        assert np.array_equal(tensor.maximum, of_arrays.tensors[name].maximum)
    options = ("--data", case.images, "--preprocess", f"resize={SIDE}", "--target", "cpu")
    made = run("quantize", pixel_model, *options, "-o", case.out)
    assert made.code == 0, made.err
    checked = run("validate", pixel_model, case.out, *options[:4], "--json")
    assert checked.code == 0, checked.err
    assert "scale=255.0" in recorded_preprocessing(library.load(case.out))


def test_a_uint8_model_refuses_a_mean(case: Case, pixel_model: Path):
    result = run("quantize", pixel_model, "--data", case.images, "--preprocess", "tf", "-o",
                 case.out)  # fmt: skip
    assert result.code == DATA_REFUSED
    assert "uint8" in result.err
    assert "leave them out of --preprocess" in result.err
    assert not case.out.exists()


def test_a_detectors_letterbox(case: Case):
    """Pictures of any size fit; validate wants the letterbox that the model was quantized with."""
    for number, size in enumerate([(40, 30), (16, 33), (5, 7)]):
        Image.new("RGB", size, (9 * number, 50, 90)).save(case.folder / f"{number}.png")
    folder = case.folder / "pictures"
    folder.mkdir()
    for number in range(3):
        (case.folder / f"{number}.png").rename(folder / f"{number}.png")
    box = ("--preprocess", f"letterbox={SIDE}:top-left,fill=0")
    made = run("quantize", case.model, "--data", folder, *box, "-o", case.out)
    assert made.code == 0, made.err
    assert run("validate", case.model, case.out, "--data", folder, *box).code == 0
    other = run("validate", case.model, case.out, "--data", folder, "--preprocess",
                f"letterbox={SIDE}")  # fmt: skip
    assert other.code == DATA_REFUSED
    assert "fill=0:0:0" in other.err
    assert "use the same --preprocess" in other.err


def test_a_recipe_holds_a_letterbox(case: Case):
    recipe = case.folder / "recipe.toml"
    recipe.write_text(
        f'[quantize]\ndata = "{case.images}"\n[quantize.preprocess]\nletterbox = "{SIDE}:top-left"\n'
        'fill = [1, 2, 3]\ninterpolation = "area"\nscale = 255\nmean = [104, 117, 123]\n'
    )
    result = run("quantize", case.model, "--recipe", recipe, "-o", case.out)
    assert result.code == 0, result.err
    assert recorded_preprocessing(library.load(case.out)) == (
        "letterbox=8:top-left,fill=1:2:3,interpolation=area,scale=255.0,mean=104.0:117.0:123.0,"
        "std=1.0:1.0:1.0,layout=nchw,color=rgb"
    )


def validate(case: Case, *extra: object):
    return run("validate", case.model, case.out, "--data", case.images, "--preprocess", "unit",
               *extra, "--json")  # fmt: skip


def test_folders_of_some_classes_are_no_labels(case: Case):
    """class0 and class1 are not the first two of four classes unless their names say so."""
    made = run("quantize", case.model, "--data", case.images, "--preprocess", "unit", "-o",
               case.out)  # fmt: skip
    assert made.code == 0, made.err
    result = validate(case)
    assert result.code == DATA_REFUSED
    for words in ("top1 needs labels: there are 2 class folders, the model has 4 classes",
                  "--classes FILE", "--metric sqnr"):  # fmt: skip
        assert words in result.err
    assert validate(case, "--metric", "sqnr").code == 0
    names = case.folder / "classes.txt"
    names.write_text("class3\nclass1\nclass2\nclass0\n")
    named = validate(case, "--classes", names)
    assert named.code == 0, named.err
    for folder, index in (("class0", 3), ("class1", 1)):
        (case.images / folder).rename(case.images / f"{index}_{folder}")
    numbered = validate(case)
    assert numbered.code == 0, numbered.err
    assert named.json["rows"] == numbered.json["rows"]


def classifier(folder: Path, classes: int, *, declared: bool) -> Path:
    """A model of so many classes, which its file says or which only a run tells."""
    weights = np.random.default_rng(0).standard_normal((classes, 3)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w"], ["s"], "scores", transB=1),
        # A shape that goes through floats is not inferred.
        helper.make_node("Cast", ["sizes"], ["c"], "back", to=TensorProto.INT64),
        helper.make_node("Reshape", ["s", "c"], ["y"], "reshape"),
    ]
    constants = {"w": weights, "sizes": np.array([-1, classes], np.float32)}
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes if declared else "K"])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )  # fmt: skip
    path = folder / f"classes{classes}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=OPSET, ir_version=8), path)
    return path


def rename(images: Path, *names: str) -> None:
    for folder, name in zip(sorted(images.iterdir()), names, strict=True):
        folder.rename(images / name)


@pytest.mark.parametrize("declared", [True, False])
def test_two_folders_are_not_the_first_of_a_thousand_classes(case: Case, declared: bool):
    model = classifier(case.folder, 1000, declared=declared)
    told = ("validate", model, "--data", case.images, "--preprocess", "unit")
    refused = run(*told)
    assert refused.code == DATA_REFUSED
    assert "there are 2 class folders, the model has 1000 classes" in refused.err
    names = case.folder / "classes.txt"
    names.write_text("\n".join(f"class{index}" for index in range(1000)))
    named = run(*told, "--classes", names, "--json")
    assert named.code == 0, named.err
    rename(case.images, "n01440764", "n01443537")  # the first two of ImageNet's
    synsets = run(*told, "--json")
    assert synsets.code == 0, synsets.err
    assert synsets.json["rows"] == named.json["rows"]


def test_synsets_of_a_model_of_other_classes_need_their_names(case: Case):
    model = classifier(case.folder, 500, declared=True)
    rename(case.images, "n01440764", "n01443537")
    told = ("validate", model, "--data", case.images, "--preprocess", "unit")
    assert "2 class folders, the model has 500 classes" in run(*told).err
    names = case.folder / "classes.txt"
    names.write_text("\n".join(["n01443537", *(f"other{i}" for i in range(498)), "n01440764"]))
    named = run(*told, "--classes", names, "--json")
    assert named.code == 0, named.err
    rename(case.images, "499_tench", "0_goldfish")
    assert run(*told, "--json").json["rows"] == named.json["rows"]


@pytest.mark.parametrize(("shape", "axes"), [([3, 8, 8], None), ([8, 8, 3], [2, 0, 1])])
def test_a_model_that_takes_one_picture(case: Case, shape: list[int], axes: list[int] | None):
    """3×H×W or H×W×3: no axis counts pictures, each is run by itself."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "transpose", perm=axes or [0, 1, 2]),
        helper.make_node("Unsqueeze", ["t", "first"], ["u"], "unsqueeze"),
        helper.make_node("Conv", ["u", "w"], ["y"], "conv", pads=[1, 1, 1, 1]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "one",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.array([0]), "first"), numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=OPSET, ir_version=8), case.model)
    options = ("--data", case.images, "--preprocess", "unit,letterbox=8")
    made = run("quantize", case.model, *options, "--target", "cpu", "-o", case.out)
    assert made.code == 0, made.err
    checked = run("validate", case.model, case.out, *options, "--json")
    assert checked.code == 0, checked.err
    assert checked.json["samples"] == 6
    assert checked.json["rows"][1]["metrics"]["sqnr"]["value"] > 30


@pytest.mark.parametrize(
    ("preprocess", "advice"),
    [
        ("unit,mean=123.7,std=58.4", "mean=0.4851:0.4851:0.4851,std=0.229:0.229:0.229, or add "),
        ("pixels,mean=0.485,std=0.229", "leave scale=255 out, or the preset pixels"),
    ],
)  # fmt: skip
def test_mean_and_std_of_another_scale_are_refused_with_advice(case, preprocess, advice):
    told = ("--data", case.images, "--preprocess", preprocess)
    for command in ("calibrate", "quantize"):
        refused = run(command, case.model, *told, "-o", case.out)
        assert refused.code == 2
        assert advice in refused.err
    assert not case.out.exists()
