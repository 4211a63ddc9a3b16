"""Preprocessing: its text, its arithmetic, its refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.data import Preprocessing
from onnxq.errors import UsageError
from PIL import Image

SIZES = st.none() | st.integers(1, 65536) | st.tuples(st.integers(1, 500), st.integers(1, 500))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@st.composite
def preprocessings(draw):
    color = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    lengths = st.sampled_from([1] if color == "gray" else [1, 3])
    mean, std = (draw(lengths) for _ in range(2))
    return Preprocessing(
        resize=draw(SIZES),
        crop=draw(SIZES),
        mean=tuple(draw(FLOATS) for _ in range(mean)),
        std=tuple(draw(POSITIVE) for _ in range(std)),
        layout=draw(st.sampled_from(["nchw", "nhwc"])),
        color=color,
    )


@given(preprocessings())
def test_text_reads_back_identically(preprocessing):
    assert Preprocessing.parse(str(preprocessing)) == preprocessing


def picture(height, width, channels=3):
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, channels))
    return values.astype(np.uint8)


def test_presets():
    assert str(Preprocessing.parse("imagenet")) == (
        "resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw,color=rgb"
    )
    assert Preprocessing.parse("unit") == Preprocessing()
    written_out = "resize=96,crop=96x96,mean=0.5:0.5:0.5,std=0.5:0.5:0.5,layout=nchw,color=rgb"
    assert Preprocessing.parse(" tf, resize=96 , crop=96") == Preprocessing.parse(written_out)
    assert Preprocessing.parse("tf,color=gray").mean == (0.5,)
    assert Preprocessing.parse("imagenet,crop=none").crop is None


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
        ("crop", "unknown preprocessing 'crop'"),
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
        ("layout=nchv", "layout=nchv is unknown.*'nchw'"),
        ("color=grey", "color=grey is unknown.*'gray'"),
    ],
)
def test_refusals_name_the_key(text, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing.parse(text)
