"""Folders of images: order, classes, decoding, refusals."""

import shutil

import numpy as np
import pytest
from onnxq.data import Preprocessing, open_data
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
    assert source.preprocessing == UNIT
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
        ("unit", ("N", 4, 5, 3), "gives 3 channels in layout nchw.*layout=nhwc"),
        ("unit,layout=nhwc", ("N", 3, 4, 5), "in layout nhwc.*layout=nchw"),
        ("unit", ("N", 7, 4, 5), r"gives 3 channels.*\.npz"),
        ("unit,crop=2", ("N", 3, 4, 5), "gives 2×2 pixels.*crop=4x5"),
        ("unit", ("N", 3), "images have four axes"),
    ],
)
def test_preprocessing_that_cannot_fit(flat, text, shape, message):
    with pytest.raises(DataError, match=message):
        open_data(flat, [spec(shape)], preprocessing=Preprocessing.parse(text))


def test_models_that_take_no_images(flat):
    with pytest.raises(DataError, match="'image', 'mask'"):
        open_data(flat, [IMAGE, TensorSpec("mask", np.dtype("bool"), ("N",))], **FITTING)
    with pytest.raises(DataError, match=r"images become float32.*uint8"):
        open_data(flat, [spec(dtype="uint8")], **FITTING)


def test_preprocessing_is_needed(flat):
    with pytest.raises(DataError, match=r"flat: images need preprocessing.*imagenet\|tf\|unit"):
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
