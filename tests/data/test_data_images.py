"""Folders of images: order, classes, decoding, refusals."""

import shutil

import numpy as np
import pytest
from onnxq.data.classes import Classes, as_class_names
from onnxq.data.decode import decode_image
from onnxq.data.geometry import Geometry
from onnxq.data.image_input import for_input
from onnxq.data.images import require_labels
from onnxq.data.open import open_data
from onnxq.data.preprocess import Preprocessing
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec
from PIL import Image

UNIT = Preprocessing.parse("unit")
FITTING = {"preprocessing": UNIT}


def spec(shape=("N", 3, 4, 5), dtype="float32"):
    return TensorSpec("image", np.dtype(dtype), shape)


IMAGE = spec()


def write(path, value=0, size=(4, 5), mode="RGB"):
    """An image of one color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = value if mode == "L" else (value,) * 3
    Image.new(mode, size[::-1], color).save(path)
    return path


def values(source, batch_size=3):
    """The color of each sample."""
    return [
        round(float(sample.flat[0]) * 255)
        for batch in source.batches(batch_size)
        for sample in batch.feeds["image"]
    ]


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "flat"
    for index in range(40):
        write(folder / f"{index:03}.png", index)
    return folder


def classes(folder, names, count=3):
    for position, name in enumerate(names):
        for index in range(count):
            write(folder / name / f"{index}.png", 10 * position + index)
    return folder


def labels(source):
    return np.concatenate([batch.labels for batch in source.batches(4)]).tolist()


def test_flat_folder_in_sorted_order(flat):
    write(flat / ".hidden.png", 99)
    (flat / "readme.txt").write_text("ignored")
    (flat / "empty").mkdir()
    source = open_data(str(flat), [IMAGE], **FITTING)
    assert (source.count, source.has_labels, source.note) == (40, False, "")
    assert source.preprocessing == Preprocessing.parse("unit,layout=nchw")
    assert source.sample_name(3) == str(flat / "003.png")
    for _ in range(2):
        assert values(source) == list(range(40))
    batches = list(source.batches(16, start=5, stop=30))
    assert [(b.start, len(b), b.labels) for b in batches] == [(5, 16, None), (21, 9, None)]
    assert batches[0].feeds["image"].shape == (16, 3, 4, 5)
    assert batches[0].feeds["image"].dtype == np.float32
    assert list(source.batches(4, start=40)) == []


def test_stopping_early_leaves_nothing_behind(flat):
    source = open_data(flat, [IMAGE], **FITTING)
    batches = source.batches(2)
    next(batches)
    batches.close()
    assert values(source) == list(range(40))


@pytest.mark.parametrize("extension", ["PNG", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "ppm"])
def test_formats(tmp_path, extension):
    write(tmp_path / f"a.{extension}", 64)
    (value,) = values(open_data(tmp_path, [IMAGE], **FITTING))
    assert abs(value - 64) <= 1


def test_webp_and_pgm(tmp_path):
    write(tmp_path / "a.webp", 64)
    write(tmp_path / "b.pgm", 64, mode="L")
    assert values(open_data(tmp_path, [IMAGE], **FITTING)) == pytest.approx([64, 64], abs=2)


def test_leading_numbers_are_the_classes(tmp_path):
    source = open_data(classes(tmp_path, ["10_dog", "2_cat", "007"], 2), [IMAGE], **FITTING)
    assert source.has_labels
    assert labels(source) == [2, 2, 7, 7, 10, 10]
    assert source.sample_name(0) == str(tmp_path / "2_cat" / "0.png")


def test_sorted_place_where_one_folder_has_no_number(tmp_path):
    source = open_data(classes(tmp_path, ["cat", "9_dog", "bird"], 1), [IMAGE], **FITTING)
    assert labels(source) == [0, 1, 2]
    assert [source.sample_name(i).split("/")[-2] for i in range(3)] == ["9_dog", "bird", "cat"]


def test_samples_are_spread_over_the_classes(tmp_path):
    classes(tmp_path, ["0_a", "1_b", "2_c"], 5)
    shutil.rmtree(tmp_path / "1_b")
    write(tmp_path / "1_b" / "only.png", 77)
    source = open_data(tmp_path, [IMAGE], samples=6, **FITTING)
    assert labels(source) == [0, 0, 0, 1, 2, 2]
    assert values(source) == [0, 1, 2, 77, 20, 21]


def test_samples_of_a_flat_folder_are_the_first(flat):
    assert values(open_data(flat, [IMAGE], samples=3, **FITTING)) == [0, 1, 2]


def test_fingerprint(tmp_path, flat):
    original = open_data(flat, [IMAGE], **FITTING).fingerprint
    moved = tmp_path / "moved"
    for index, file in enumerate(sorted(flat.iterdir())):
        (moved / f"{index % 2}_class").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, moved / f"{index % 2}_class" / f"{100 - index}.png")
    assert open_data(moved, [IMAGE], **FITTING).fingerprint == original
    assert open_data(flat, [IMAGE], samples=9, **FITTING).fingerprint != original
    tf = Preprocessing.parse("tf")
    assert open_data(flat, [IMAGE], preprocessing=tf).fingerprint != original


def test_sizes_that_differ_do_not_share_a_batch(tmp_path):
    for index, size in enumerate([(4, 5), (4, 5), (6, 7), (4, 5)]):
        write(tmp_path / f"{index}.png", index, size)
    source = open_data(tmp_path, [spec(("N", 3, "H", "W"))], **FITTING)
    assert [(b.start, b.feeds["image"].shape) for b in source.batches(3)] == [
        (0, (2, 3, 4, 5)),
        (2, (1, 3, 6, 7)),
        (3, (1, 3, 4, 5)),
    ]


def test_gray_model(tmp_path):
    write(tmp_path / "a.png", 50)
    gray = Preprocessing.parse("unit,color=gray")
    assert values(open_data(tmp_path, [spec(("N", 1, 4, 5))], preprocessing=gray)) == [50]


def test_float16_model(flat):
    batch = next(open_data(flat, [spec(dtype="float16")], **FITTING).batches(2))
    assert batch.feeds["image"].dtype == np.float16


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("unit", ("N", 1, 4, 5), "gives 3 channels.*N×1×4×5.*color=gray"),
        ("unit,color=gray", ("N", 3, 4, 5), "gives 1 channels.*color=rgb"),
        ("unit,layout=nchw", ("N", 4, 5, 3), "gives 3 channels in layout nchw.*layout=nhwc"),
        ("unit,layout=nhwc", ("N", 3, 4, 5), "in layout nhwc.*layout=nchw"),
        ("unit", ("N", 7, 4, 5), r"gives 3 channels.*\.npz"),
        ("unit,crop=2", ("N", 3, 4, 5), "gives 2×2 pixels.*crop=4x5"),
        ("unit,letterbox=8", ("N", 3, 4, 5), "gives 8×8 pixels.*letterbox=4x5"),
        ("unit", ("N", 3), "images have four axes, or three without a batch"),
        ("unit,layout=chw", ("N", 3, 4, 5), "layout=chw has another number of axes.*layout=nchw"),
        ("unit,layout=nhwc", (3, 4, 5), "layout=nhwc has another number of axes.*layout=chw"),
        ("unit", ("a", "b", "c"), "does not say where the channels lie.*layout=chw or layout=hwc"),
        ("unit,color=gray", ("N", 4, 5), "does not say where the channels lie.*axis counts images"),
    ],
)
def test_preprocessing_that_cannot_fit(flat, text, shape, message):
    with pytest.raises(DataError, match=message):
        open_data(flat, [spec(shape)], preprocessing=Preprocessing.parse(text))


def test_models_that_take_no_images(flat):
    with pytest.raises(DataError, match="'image', 'mask'"):
        open_data(flat, [IMAGE, TensorSpec("mask", np.dtype("bool"), ("N",))], **FITTING)
    with pytest.raises(DataError, match=r"images become numbers.*bool"):
        open_data(flat, [spec(dtype="bool")], **FITTING)


@pytest.mark.parametrize(
    ("shape", "text", "layout"),
    [
        (("N", 3, 4, 5), "unit", "nchw"),
        (("N", 4, 5, 3), "unit", "nhwc"),
        ((1, "H", "W", 3), "unit", "nhwc"),
        (("N", "C", "H", "W"), "unit", "nchw"),
        (("N", "H", "W", "C"), "unit,layout=nhwc", "nhwc"),
        (("N", "H", 5, "C"), "unit,layout=nhwc", "nhwc"),
        (("N", 1, "H", "W"), "unit,color=gray", "nchw"),
        (("N", 3, 4, 3), "unit", "nchw"),
        (None, "unit", "nchw"),
        ((3, 4, 5), "unit", "chw"),
        (("H", "W", 3), "unit", "hwc"),
        (("a", "b", "c"), "unit,layout=hwc", "hwc"),
    ],
)
def test_the_declared_shape_tells_the_layout(shape, text, layout):
    assert for_input(Preprocessing.parse(text), spec(shape), "images").layout == layout


def coloured(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    return pixels


@pytest.mark.parametrize("text", ["unit", "pixels", "unit,layout=nhwc"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "uint16"])
def test_integer_inputs_take_the_pixels_as_they_are(tmp_path, dtype, text):
    pixels = coloured(tmp_path)
    found = Preprocessing.parse(text)
    source = open_data(tmp_path, [spec(("N", "H", "W", 3), dtype)], preprocessing=found)
    (batch,) = source.batches(1)
    expected = pixels.astype(int) - (128 if dtype == "int8" else 0)
    assert batch.feeds["image"].dtype == dtype
    np.testing.assert_array_equal(batch.feeds["image"][0], expected)
    middle = "128.0" if dtype == "int8" else "0.0"
    assert f"scale=255.0,mean={middle}:{middle}:{middle},std=1.0" in str(source.preprocessing)


@pytest.mark.parametrize("text", ["tf", "imagenet,crop=none,resize=none", "pixels,mean=104"])
def test_integer_inputs_are_not_normalized(tmp_path, text):
    coloured(tmp_path)
    with pytest.raises(DataError, match=r"uint8 N×4×5×3, the pixels as they are.*leave them out"):
        open_data(
            tmp_path, [spec(("N", 4, 5, 3), "uint8")], preprocessing=Preprocessing.parse(text)
        )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_inputs_of_0_to_255(tmp_path, dtype):
    pixels = coloured(tmp_path)
    found = Preprocessing.parse("pixels")
    (batch,) = open_data(tmp_path, [spec(dtype=dtype)], preprocessing=found).batches(1)
    assert batch.feeds["image"].dtype == dtype
    np.testing.assert_array_equal(batch.feeds["image"][0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("shape", "axes"), [((3, 4, 5), (2, 0, 1)), ((4, 5, 3), (0, 1, 2))])
def test_a_sample_without_a_batch_axis(tmp_path, shape, axes):
    pixels = coloured(tmp_path)
    found = for_input(UNIT, spec(shape), "images")
    sample = decode_image(tmp_path / "a.png", found, spec(shape), "a.png")
    np.testing.assert_allclose(sample, pixels.transpose(axes) / 255, atol=1e-7)
    with pytest.raises(DataError, match=r"a\.png: input 'image' has shape"):
        decode_image(tmp_path / "a.png", found, spec((3, 9, 9) if axes[0] else (9, 9, 3)), "a.png")


def test_the_geometry_of_each_sample(tmp_path):
    write(tmp_path / "a.png", size=(40, 80))
    write(tmp_path / "b.png", size=(80, 40))
    box = Preprocessing.parse("letterbox=20")
    source = open_data(tmp_path, [spec(("N", 3, "H", "W"))], preprocessing=box)
    assert [source.geometry(i) for i in (0, 1)] == [
        Geometry((40, 80), (10, 20), (5, 0), (20, 20)),
        Geometry((80, 40), (20, 10), (0, 5), (20, 20)),
    ]


def test_preprocessing_is_needed(flat):
    with pytest.raises(
        DataError, match=r"flat: images need preprocessing.*imagenet\|tf\|unit\|pixels"
    ):
        open_data(flat, [IMAGE])


def test_one_image_of_another_size_is_named(flat):
    write(flat / "007.png", 0, size=(9, 9))
    source = open_data(flat, [IMAGE], **FITTING)
    with pytest.raises(DataError, match=r"007\.png: input 'image' has shape 1×3×9×9.*resize=4x5"):
        values(source)


def test_an_image_of_another_size_is_not_decoded(flat):
    """The rest of the file is missing, which nobody notices."""
    Image.new("RGB", (900, 700)).save(flat / "007.png")
    (flat / "007.png").write_bytes((flat / "007.png").read_bytes()[:100])
    with pytest.raises(DataError, match=r"007\.png: input 'image' has shape 1×3×700×900"):
        values(open_data(flat, [IMAGE], **FITTING))


def truncated(path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"text"),
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n"),
        lambda path: path.symlink_to("nowhere.png"),
    ],
)
def test_undecodable_files_are_named(flat, damage):
    (flat / "020.png").unlink()
    damage(flat / "020.png")
    with pytest.raises(DataError, match=r"cannot decode .*020\.png") as caught:
        values(open_data(flat, [IMAGE], **FITTING))
    assert "object at" not in str(caught.value)
    assert str(caught.value).count("020.png") == 1


@pytest.mark.parametrize("limit", [5, 12, 19])
def test_decompression_bombs(flat, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"cannot decode .*000\.png"):
        values(open_data(flat, [IMAGE], **FITTING))


def test_too_small_to_crop(flat):
    preprocessing = Preprocessing.parse("crop=8")
    with pytest.raises(DataError, match=r"cannot preprocess .*000\.png: 4×5 pixels are too few"):
        values(open_data(flat, [spec(("N", 3, 8, 8))], preprocessing=preprocessing))


def test_folders_without_images(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no images \(known extensions: \.bmp"):
        open_data(tmp_path, [IMAGE], **FITTING)


def test_a_folder_too_high_up(tmp_path):
    classes(tmp_path / "val", ["0_a", "1_b"])
    with pytest.raises(DataError, match="name one of its folders: val"):
        open_data(tmp_path, [IMAGE], **FITTING)


def test_ambiguous_classes(tmp_path):
    classes(tmp_path, ["a", "b"])
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"class folder .*c holds no images"):
        open_data(tmp_path, [IMAGE], **FITTING)
    write(tmp_path / "c" / "0.png")
    write(tmp_path / "stray.png")
    with pytest.raises(DataError, match="both images and folders of images"):
        open_data(tmp_path, [IMAGE], **FITTING)


def test_two_classes_of_one_number(tmp_path):
    with pytest.raises(DataError, match="01_b and 1_a are both number 1"):
        open_data(classes(tmp_path, ["1_a", "01_b"]), [IMAGE], **FITTING)


SYNSETS = ["n01440764", "n01443537", "n15075141"]


@pytest.mark.parametrize(
    ("names", "count", "expected"),
    [
        (["a", "b", "c"], 3, [0, 1, 2]),
        (["a", "b", "c"], None, [0, 1, 2]),
        (["7_a", "2_b", "9"], 10, [2, 7, 9]),
        (SYNSETS, 1000, [0, 1, 999]),
        (SYNSETS, 1001, [1, 2, 1000]),
        (SYNSETS, 3, [0, 1, 2]),
    ],
)
def test_class_folders_that_the_model_can_have(tmp_path, names, count, expected):
    source = open_data(classes(tmp_path, names, 1), [IMAGE], classes=Classes(count), **FITTING)
    assert labels(source) == expected
    require_labels(source, "top1")


@pytest.mark.parametrize(
    ("names", "count", "message"),
    [
        (["a", "b", "c"], 1000, "there are 3 class folders, the model has 1000 classes.*--classes"),
        (["a"], 2, "there is 1 class folder, the model has 2 classes"),
        (["a", "b", "c"], 2, "there are 3 class folders, the model has 2 classes"),
        (["1_a", "10_b"], 10, "the class folder 10_b is number 10, the model has 10 classes, 0 to"),
        (SYNSETS, 21841, "there are 3 class folders"),
        ([*SYNSETS, "n00000001"], 1000, "there are 4 class folders"),
    ],
)
def test_class_folders_that_the_model_cannot_have(tmp_path, names, count, message):
    source = open_data(classes(tmp_path, names, 1), [IMAGE], classes=Classes(count), **FITTING)
    assert source.count == len(names)  # to calibrate with, they will do
    with pytest.raises(DataError, match=f"top1 needs labels: {message}"):
        require_labels(source, "top1")


def test_names_tell_the_index(tmp_path):
    known = as_class_names(["ant", "Bald Eagle", "cat", "dog", "sea-lion"])
    folder = classes(tmp_path, ["sea_lion", "cat", "bald_eagle"], 1)
    source = open_data(folder, [IMAGE], classes=Classes(5, known), **FITTING)
    assert labels(source) == [1, 2, 4]
    assert [source.sample_name(i).split("/")[-2] for i in range(3)] == [
        "bald_eagle", "cat", "sea_lion",
    ]  # fmt: skip
    require_labels(source, "top1")
    source = open_data(folder, [IMAGE], classes=Classes(6, known), **FITTING)
    with pytest.raises(DataError, match="--classes names 5 classes, the model has 6"):
        require_labels(source, "top1")


def test_numbers_tell_the_index_where_names_do_not(tmp_path):
    known = as_class_names(["a", "b", "c"])
    source = open_data(
        classes(tmp_path, ["2_x", "0_y"], 1), [IMAGE], classes=Classes(names=known), **FITTING
    )
    assert labels(source) == [0, 2]
    digits = as_class_names(["9", "8", "7"])
    source = open_data(
        classes(tmp_path / "d", ["7", "9"], 1), [IMAGE], classes=Classes(names=digits), **FITTING
    )
    assert labels(source) == [0, 2]


def test_folders_that_are_no_class_of_the_names(tmp_path):
    known = as_class_names(["ant", "cat", "crane", "crane"])
    with pytest.raises(DataError, match="no class is called 'catt': did you mean 'cat'"):
        open_data(
            classes(tmp_path / "1", ["ant", "catt"], 1),
            [IMAGE],
            classes=Classes(names=known),
            **FITTING,
        )
    with pytest.raises(DataError, match="classes 2 and 3 are called 'crane'"):
        open_data(
            classes(tmp_path / "2", ["ant", "crane"], 1),
            [IMAGE],
            classes=Classes(names=known),
            **FITTING,
        )
    with pytest.raises(DataError, match="are both number 1"):
        open_data(
            classes(tmp_path / "3", ["Cat", "cat"], 1),
            [IMAGE],
            classes=Classes(names=known),
            **FITTING,
        )
