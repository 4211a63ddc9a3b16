"""Filters without antialias, and pictures that are turned."""

import importlib.util
import io

import numpy as np
import onnx
import onnxq
import pytest
from onnxq.data.open import open_data
from onnxq.data.preprocess import Preprocessing
from onnxq.data.resample import resize
from onnxq.errors import UsageError
from onnxq.model.model import TensorSpec
from PIL import Image, ImageOps

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)


def weight(kind, distance):
    """Keys' cubic kernel with a = −0.75, or the triangle, at a distance."""
    x, a = abs(distance), -0.75
    if kind == "bilinear":
        return max(0.0, 1 - x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def point_by_point(kind, height, width):
    """What OpenCV documents: pixel centers, the outermost pixels go on."""
    tall, wide, _ = PIXELS.shape
    result = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) * tall / height - 0.5, (column + 0.5) * wide / width - 0.5
            for i in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                    share = weight(kind, y - i) * weight(kind, x - j)
                    pixel = PIXELS[min(max(i, 0), tall - 1), min(max(j, 0), wide - 1)]
                    result[row, column] += share * pixel
    return np.rint(result).clip(0, 255)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(7, 5), (23, 40), (50, 31)])
def test_without_antialias_the_nearest_pixels_count(kind, sides):
    found = np.asarray(resize(IMAGE, sides, kind, antialias=False)).astype(int)
    assert np.abs(found - point_by_point(kind, *sides)).max() <= 1
    gray = resize(IMAGE.convert("L"), sides, kind, antialias=False)
    assert gray.size == sides[::-1]


def test_antialias_changes_what_shrinks():
    plain, quick = (Preprocessing.parse(f"unit,resize=8x8,antialias={a}") for a in ("yes", "no"))
    assert str(quick) == f"resize=8x8,antialias=no,{str(plain).partition(',')[2]}"
    assert np.abs(plain.apply(IMAGE) - quick.apply(IMAGE)).max() > 0.1
    assert "antialias" not in str(plain)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not installed")
@pytest.mark.parametrize("sides", [(7, 5), (64, 96), (23, 40)])
def test_opencv_agrees_to_one_level(sides):
    import cv2

    for kind, flag in (("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)):
        ours = np.asarray(resize(IMAGE, sides, kind, antialias=False)).astype(int)
        assert np.abs(ours - cv2.resize(PIXELS, sides[::-1], interpolation=flag)).max() <= 1


def photograph(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / f"{tag}.jpg"
    IMAGE.save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("tag", range(1, 9))
def test_photographs_are_turned_as_their_tag_says(tmp_path, tag):
    path = photograph(tmp_path, tag)
    with Image.open(path) as stored:
        stored.load()
        upright = ImageOps.exif_transpose(stored).convert("RGB")
        as_stored = stored.convert("RGB")
    for text, wanted in (("unit,orientation=exif", upright), ("unit", as_stored)):
        preprocessing = Preprocessing.parse(text)
        height, width = wanted.height, wanted.width
        spec = TensorSpec("x", np.dtype(np.float32), ("N", 3, height, width))
        source = open_data(tmp_path, [spec], preprocessing=preprocessing)
        (batch,) = source.batches(1)
        values = np.asarray(wanted, np.float32) / 255
        assert np.array_equal(batch.feeds.arrays["x"][0], values.transpose(2, 0, 1))
        assert source.geometry(0).picture == (height, width)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_tag_is_none(tmp_path):
    content = io.BytesIO()
    IMAGE.save(content, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a.jpg").write_bytes(content.getvalue())
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 3, 23, 31))
    preprocessing = Preprocessing.parse("unit,orientation=exif")
    assert [b.start for b in open_data(tmp_path, [spec], preprocessing=preprocessing).batches(1)]


def test_a_fraction_says_what_to_resize_to():
    assert Preprocessing.parse("imagenet,fraction=0.875") == Preprocessing.parse("imagenet")
    assert Preprocessing.parse("unit,crop=224,fraction=0.95").resize == 235


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unit,fraction=0.9", "fraction needs the side of a square crop"),
        ("unit,crop=8x9,fraction=0.9", "fraction needs the side of a square crop"),
        ("unit,crop=8,fraction=1.1", "fraction=1.1 is no fraction"),
        ("unit,crop=8,resize=9,fraction=0.9", "fraction and resize exclude each other"),
        ("unit,antialias=no", "antialias=no has nothing to resize"),
        ("unit,resize=8,antialias=maybe", "neither yes nor no"),
        ("unit,resize=8,interpolation=lanczos,antialias=no", "does nothing to interpolation=lanc"),
        ("unit,orientation=up", "orientation=up is unknown.*stored, exif"),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing.parse(text)


# --- NHWC ----------------------------------------------------------------------------------------


def channels_last(shape):
    """A model of pictures with channels last, whose input declares this shape."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, h, w, 3] x) => (float[N, 4] y) {
            t = Transpose <perm = [0, 3, 1, 2]> (x)
            c = Conv (t, weight)
            p = GlobalAveragePool (c)
            y = Flatten (p)
        }""")
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    for size, declared in zip(shape, sizes, strict=True):
        declared.Clear()
        if size is not None:
            declared.dim_value = size
    return onnxq.load(model)


@pytest.mark.parametrize("shape", [(None, None, None, 3), (None,) * 4, (1, None, None, None)])
def test_channels_last_with_free_sizes(tmp_path, shape):
    for index in range(4):
        IMAGE.resize((20 + index % 2, 18)).save(tmp_path / f"{index}.png")
    model = channels_last(shape)
    for text in ("unit", "unit,resize=16x16"):
        calibration = onnxq.calibrate(model, tmp_path, preprocess=text)
        assert "layout=nhwc" in calibration.provenance.preprocessing
    assert onnxq.calibrate(model, "random:2").samples == 2
