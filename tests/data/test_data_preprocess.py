"""Preprocessing: its text, its arithmetic, its refusals."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.data.geometry import Frame
from onnxq.data.preprocess import Preprocessing
from onnxq.data.resample import INTERPOLATIONS
from onnxq.errors import UsageError
from PIL import Image

SIZES = st.none() | st.integers(1, 65536) | st.tuples(st.integers(1, 500), st.integers(1, 500))
FRAMES = st.builds(
    Frame, st.integers(1, 65536), st.integers(1, 500), st.sampled_from(["center", "top-left"])
)
SCALES = st.sampled_from([1.0, 2.0, 255.0])


@st.composite
def preprocessings(draw):
    color = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    lengths = st.sampled_from([1] if color == "gray" else [1, 3])
    mean, std, fill = (draw(lengths) for _ in range(3))
    scale = draw(SCALES)
    means, stds = st.floats(1.01 * scale / 255, scale), st.floats(scale / 255, 10 * scale)
    steps = {"resize": draw(SIZES), "crop": draw(SIZES), "pad": draw(st.none() | FRAMES)}
    if draw(st.booleans()):
        steps = {"letterbox": draw(FRAMES)}
    if steps.get("pad") or steps.get("letterbox"):
        steps["fill"] = tuple(draw(st.integers(0, 255)) for _ in range(fill))
    if steps.get("resize") or steps.get("letterbox"):
        steps["interpolation"] = draw(st.sampled_from(INTERPOLATIONS))
    return Preprocessing(
        **steps,
        scale=scale,
        mean=tuple(draw(means) for _ in range(mean)),
        std=tuple(draw(stds) for _ in range(std)),
        layout=draw(st.sampled_from([None, "nchw", "nhwc", "chw", "hwc"])),
        color=color,
    )


@given(preprocessings())
def test_text_reads_back_identically(preprocessing):
    assert Preprocessing.parse(str(preprocessing)) == preprocessing


def picture(height, width, channels=3):
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, channels))
    return values.astype(np.uint8)


def test_presets():
    assert str(Preprocessing.parse("imagenet,layout=nchw")) == (
        "resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw,color=rgb"
    )
    assert Preprocessing.parse("unit") == Preprocessing()
    written_out = "resize=96,crop=96x96,mean=0.5:0.5:0.5,std=0.5:0.5:0.5,color=rgb"
    assert Preprocessing.parse(" tf, resize=96 , crop=96") == Preprocessing.parse(written_out)
    assert Preprocessing.parse("tf,color=gray").mean == (0.5,)
    assert Preprocessing.parse("imagenet,crop=none").crop is None
    assert Preprocessing.parse("pixels") == Preprocessing(scale=255)


def test_the_canonical_text_of_a_letterbox():
    text = (
        "letterbox=320x416:top-left,fill=0:0:0,interpolation=area,scale=255.0,"
        "mean=0.0:0.0:0.0,std=1.0:1.0:1.0,layout=nhwc,color=rgb"
    )
    short = "pixels,letterbox=320x416:top-left,fill=0,interpolation=area,layout=nhwc"
    assert str(Preprocessing.parse(short)) == text
    assert Preprocessing.parse("letterbox=64") == Preprocessing.parse(
        "letterbox=64x64:center,fill=114"
    )


def test_a_letterbox_takes_the_place_of_a_presets_sizes():
    found = Preprocessing.parse("imagenet,letterbox=640")
    assert (found.resize, found.crop, found.size) == (None, None, (640, 640))
    assert found.mean == (0.485, 0.456, 0.406)
    assert Preprocessing.parse("imagenet,letterbox=none") == Preprocessing.parse("imagenet")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pixels", lambda x: x),
        ("scale=255,mean=123.675:116.28:103.53,std=58.395:57.12:57.375",
         lambda x: (x - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]),
        ("scale=255,mean=104:117:123,color=bgr", lambda x: x[..., ::-1] - [104, 117, 123]),
        ("scale=2,mean=1", lambda x: x / 127.5 - 1),
    ],
)  # fmt: skip
def test_pixels_of_other_scales(text, expected):
    pixels = picture(3, 5)
    values = Preprocessing.parse(f"{text},layout=hwc").apply(Image.fromarray(pixels))
    np.testing.assert_allclose(values, expected(pixels.astype(float)), rtol=1e-5, atol=1e-5)


def test_pixels_of_0_to_255_are_exact():
    pixels = picture(3, 5)
    values = Preprocessing.parse("pixels,layout=hwc").apply(Image.fromarray(pixels))
    np.testing.assert_array_equal(values, pixels)


def test_an_orientation_tag_is_not_followed():
    image = Image.fromarray(picture(4, 6))
    image.getexif()[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, format="PNG", exif=image.getexif())
    with Image.open(stream) as tagged:
        assert tagged.getexif()[0x0112] == 6
        values = Preprocessing.parse("pixels,layout=hwc").apply(tagged)
    np.testing.assert_array_equal(values, picture(4, 6))


def test_preset_mean_follows_bgr_but_a_given_one_is_in_the_order_of_the_channels():
    assert Preprocessing.parse("imagenet,color=bgr").mean == (0.406, 0.456, 0.485)
    assert Preprocessing.parse("imagenet,color=bgr,mean=1:2:3").mean == (1, 2, 3)


def test_tf_is_x_over_127_5_minus_1():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = Preprocessing.parse("tf").apply(Image.fromarray(ramp))
    assert values.dtype == np.float32
    assert values.shape == (3, 16, 16)
    np.testing.assert_allclose(values[0], ramp / 127.5 - 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("layout=nchw", lambda x: x.transpose(2, 0, 1)),
        ("layout=nhwc", lambda x: x),
        ("layout=nhwc,color=bgr", lambda x: x[..., ::-1]),
        ("color=bgr,mean=1:2:3", lambda x: x.transpose(2, 0, 1)[::-1] - [[[1]], [[2]], [[3]]]),
    ],
)
def test_layout_and_color(options, expected):
    pixels = picture(3, 5)
    values = Preprocessing.parse(options).apply(Image.fromarray(pixels))
    np.testing.assert_allclose(values, expected(pixels / 255), atol=1e-6)
    assert values.flags.c_contiguous


def test_gray_is_one_channel():
    values = Preprocessing.parse("unit,color=gray").apply(Image.fromarray(picture(4, 6)))
    assert values.shape == (1, 4, 6)


@pytest.mark.parametrize(
    ("options", "image", "shape"),
    [
        ("resize=8", (10, 20), (8, 16)),
        ("resize=8", (20, 10), (16, 8)),
        ("resize=8x12", (20, 10), (8, 12)),
        ("resize=8,crop=6x4", (10, 20), (6, 4)),
        ("resize=7", (7, 7), (7, 7)),
    ],
)
def test_sizes(options, image, shape):
    preprocessing = Preprocessing.parse(options)
    assert preprocessing.apply(Image.fromarray(picture(*image))).shape == (3, *shape)
    assert preprocessing.size in {None, shape}


def test_resize_is_pillows_bilinear():
    image = Image.fromarray(picture(32, 32))
    expected = np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR))
    values = Preprocessing.parse("resize=96,layout=nhwc").apply(image)
    np.testing.assert_array_equal(np.round(values * 255), expected)


def test_crop_takes_the_center():
    pixels = picture(5, 6)
    values = Preprocessing.parse("crop=3x2,layout=nhwc").apply(Image.fromarray(pixels))
    np.testing.assert_array_equal(np.round(values * 255), pixels[1:4, 2:4])


def test_sixteen_bits_are_scaled_to_eight():
    pixels = np.array([[0, 255, 256, 65535]], np.uint16)
    values = Preprocessing.parse("unit,color=gray").apply(Image.fromarray(pixels))
    np.testing.assert_array_equal(np.round(values[0] * 255), [[0, 0, 1, 255]])


def test_palette_with_transparency():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.info["transparency"] = b"\x00\xff"
    values = Preprocessing.parse("unit").apply(image)
    np.testing.assert_array_equal(values[:, 0, 0], [1, 0, 0])


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (Image.new("F", (4, 4)), "unit", "mode F"),
        (Image.new("RGB", (4, 4)), "crop=8", "4×4 pixels are too few to crop 8×8"),
        (Image.new("RGB", (1, 5000)), "resize=60000", "resizing 5000×1"),
    ],
)
def test_unfit_images(image, options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.parse(options).apply(image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown preprocessing ''"),
        ("imagnet", r"unknown preprocessing 'imagnet' \(did you mean 'imagenet'\?\)"),
        ("nothing", "the presets are: imagenet, tf, unit"),
        ("reszie=96", "'reszie'.*did you mean 'resize'"),
        ("resize=96,tf", "unknown preprocessing key 'tf'"),
        ("tf,size", "unknown preprocessing key 'size'.*'resize'"),
        ("resize=", "resize has no value"),
        ("crop", "crop has no value"),
        ("tf,crop", "crop has no value"),
        ("crop=1,crop=2", "crop is given twice"),
        ("resize=big", "resize=big is no size"),
        ("resize=1x2x3", "resize=1x2x3 is no size"),
        ("resize=0", "resize=0 is out of range"),
        ("crop=99999999", "crop=99999999 is out of range"),
        ("mean=a", "mean=a is no list of numbers"),
        ("mean=nan", "mean must be finite"),
        ("mean=1:2", "mean has 2 values, color=rgb has 3 channels"),
        ("imagenet,color=gray", "mean has 3 values, color=gray has 1 channels"),
        ("std=0", "std must be positive"),
        ("letterbox=640,resize=640", "letterbox and resize exclude each other.*leave resize out"),
        ("imagenet,letterbox=640,crop=224", "letterbox and crop exclude each other"),
        ("letterbox=640,pad=640", "letterbox and pad exclude each other"),
        ("letterbox=big", "letterbox=big is no size"),
        ("letterbox=0", "letterbox=0x0 is out of range"),
        ("letterbox=640:topleft", "letterbox=topleft is unknown.*did you mean 'top-left'"),
        ("letterbox=640:", "letterbox= is unknown"),
        ("leterbox=640", "'leterbox'.*did you mean 'letterbox'"),
        ("fill=0", "fill has nothing to fill.*letterbox=640"),
        ("pad=64,fill=0.5", "fill=0.5 is no value of a pixel.*0 to 255"),
        ("pad=64,fill=256", "fill=256.0 is no value of a pixel"),
        ("pad=64,fill=nan", "fill=nan is no value of a pixel"),
        ("pad=64,fill=1:2", "fill has 2 values, color=rgb has 3 channels"),
        ("interpolation=area", "interpolation=area has nothing to resize"),
        ("resize=8,interpolation=bicubik", "interpolation=bicubik is unknown.*'bicubic'"),
        ("scale=0", "scale must be positive"),
        ("scale=inf", "scale must be positive"),
        ("scale=1:2", "scale=1:2 is no number"),
        ("mean=123.675:116.28:103.53,std=58.395:57.12:57.375",
         "of pixels of 0…255.*0…1.*mean=0.485:0.456:0.406,std=0.229:0.224:0.225, or add scale=255"),
        ("tf,mean=127.5", "like those of pixels of 0…255"),
        ("mean=-104:-117:-123", "like those of pixels of 0…255"),
        ("std=255", r"like those of pixels of 0…255.*std=1.0:1.0:1.0"),
        ("imagenet,scale=255", r"like those of pixels of 0…1.*0…255 \(leave scale=255 out"),
        ("pixels,std=0.5", "like those of pixels of 0…1"),
        ("layout=nchv", "layout=nchv is unknown.*'nchw'"),
        ("color=grey", "color=grey is unknown.*'gray'"),
    ],
)  # fmt: skip
def test_refusals_name_the_key(text, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing.parse(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (123.7,)}, "like those of pixels of 0…255, the pixels here are 0…1"),
        ({"std": (58.4, 57.1, 57.4)}, "like those of pixels of 0…255, the pixels here are 0…1"),
        ({"scale": 255.0, "mean": (0.485, 0.456, 0.406)}, "of 0…1, the pixels here are 0…255"),
        ({"scale": 255.0, "std": (0.229, 0.224, 0.225)}, "of 0…1, the pixels here are 0…255"),
    ],
)
def test_values_of_another_scale_are_refused_from_python_too(settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        Preprocessing(**settings)
    assert "scale=255" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "imagenet", "imagenet,color=bgr", "tf", "unit", "pixels",
        "mean=0.481:0.458:0.408,std=0.269:0.261:0.276",  # CLIP
        "color=gray,mean=0.1307,std=0.3081",  # MNIST
        "mean=0.485:0.456:0.406",
        "scale=255,mean=123.675:116.28:103.53,std=58.395:57.12:57.375",  # mmdetection
        "scale=255,color=bgr,mean=103.939:116.779:123.68",  # Caffe, Keras
        "scale=255,mean=127.5,std=127.5", "scale=255,mean=127,std=128",  # UltraFace
        "scale=2,mean=1",  # what Keras calls tf
        "color=gray,scale=255,mean=33.3,std=78.6",  # MNIST again
        "letterbox=640", "scale=255,mean=0,std=255",
    ],
)  # fmt: skip
def test_settings_in_use_are_taken(text):
    found = Preprocessing.parse(text)
    assert Preprocessing.parse(str(found)) == found
