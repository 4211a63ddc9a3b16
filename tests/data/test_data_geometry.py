"""Letterboxes, padding and crops: where the pixels go, and labels with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.data.geometry import Frame, Geometry
from onnxq.data.preprocess import Preprocessing
from PIL import Image

SIDES = st.tuples(st.integers(1, 700), st.integers(1, 700))
FRAMES = st.builds(
    Frame, st.integers(1, 700), st.integers(1, 700), st.sampled_from(["center", "top-left"])
)
SIZES = st.integers(1, 300) | st.tuples(st.integers(1, 300), st.integers(1, 300))


def picture(height, width):
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, 3))
    return values.astype(np.uint8)


def pixels(text, image):
    """Height×width×3 as the model sees them, 0…255."""
    values = Preprocessing.parse(f"{text},layout=hwc").apply(Image.fromarray(image))
    return np.round(values * 255).astype(int)


@pytest.mark.parametrize(
    ("text", "size", "inner", "corner", "fill"),
    [
        # A picture of 60×80 fits 32×32 as 24×32.
        ("letterbox=32", (32, 32), (24, 32), (4, 0), (114, 114, 114)),
        ("letterbox=32:top-left,fill=0", (32, 32), (24, 32), (0, 0), (0, 0, 0)),
        ("letterbox=33:center,fill=1:2:3", (33, 33), (25, 33), (4, 0), (1, 2, 3)),
        ("letterbox=24x50", (24, 50), (24, 32), (0, 9), (114, 114, 114)),
        ("letterbox=120x200", (120, 200), (120, 160), (0, 20), (114, 114, 114)),
    ],
)
def test_letterbox_is_a_resized_picture_on_a_canvas(text, size, inner, corner, fill):
    image = picture(60, 80)
    expected = np.empty((*size, 3), int)
    expected[:] = fill
    resized = Image.fromarray(image).resize(inner[::-1], Image.Resampling.BILINEAR)
    rows, columns = (slice(at, at + side) for at, side in zip(corner, inner, strict=True))
    expected[rows, columns] = np.asarray(resized)
    np.testing.assert_array_equal(pixels(text, image), expected)
    assert Preprocessing.parse(text).size == size


def test_fill_is_in_the_order_of_the_channels():
    values = pixels("letterbox=8:top-left,fill=10:20:30,color=bgr", picture(4, 8))
    np.testing.assert_array_equal(values[7, 7], [10, 20, 30])


def test_mean_and_std_apply_to_the_fill_too():
    text = "letterbox=8:top-left,fill=51,mean=0.1,std=0.5,layout=hwc"
    values = Preprocessing.parse(text).apply(Image.fromarray(picture(4, 8)))
    np.testing.assert_allclose(values[7, 7], [(51 / 255 - 0.1) / 0.5] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "size", "corner"),
    [
        ("pad=9", (9, 9), (2, 0)),
        ("pad=9:top-left,fill=7", (9, 9), (0, 0)),
        ("pad=3x12", (4, 12), (0, 1)),
        ("pad=2", (4, 9), (0, 0)),
    ],
)
def test_padding_leaves_what_is_larger(text, size, corner):
    image = picture(4, 9)
    expected = np.full((*size, 3), 7 if "fill" in text else 0)
    expected[corner[0] : corner[0] + 4, corner[1] : corner[1] + 9] = image
    np.testing.assert_array_equal(pixels(text, image), expected)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (20, 30), (6, 30)])
def test_padding_lets_a_crop_take_every_picture(shape):
    image = picture(*shape)
    padded = np.pad(image, [(max(0, 8 - side) // 2, 8) for side in shape] + [(0, 0)])
    corner = [round((max(side, 8) - 8) / 2) for side in shape]
    expected = padded[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8]
    np.testing.assert_array_equal(pixels("pad=8,crop=8", image), expected)


@given(SIDES, FRAMES)
def test_a_letterboxed_picture_fills_its_box_one_way_and_keeps_its_ratio(size, box):
    found = Geometry.letterboxed(size, box)
    assert found.input == box.sides
    assert all(inner <= outer for inner, outer in zip(found.resized, box.sides, strict=True))
    assert any(inner == outer for inner, outer in zip(found.resized, box.sides, strict=True))
    factor = min(box.height / size[0], box.width / size[1])
    for new, old in zip(found.resized, size, strict=True):
        assert new == 1 or abs(new - old * factor) <= 0.5


@given(SIDES, FRAMES | st.none(), FRAMES | st.none(), SIZES | st.none(), st.data())
def test_boxes_come_back(size, box, pad, resize, data):
    if box is not None:
        found = Geometry.letterboxed(size, box)
    else:
        padded = Geometry.cropped(size, resize, pad, None).input
        crop = st.tuples(*(st.integers(1, side) for side in padded)) | st.none()
        found = Geometry.cropped(size, resize, pad, data.draw(crop))
    corners = st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4)
    boxes = np.array(data.draw(st.lists(corners, max_size=5))).reshape(-1, 4)
    np.testing.assert_allclose(found.to_picture(found.to_input(boxes)), boxes, atol=1e-6)


@given(SIDES, FRAMES)
def test_the_whole_picture_is_where_its_pixels_are(size, box):
    found = Geometry.letterboxed(size, box)
    ones = np.ones(found.resized, np.uint8)
    rows, columns = found.lay(ones, np.uint8(0)).nonzero()
    whole = found.to_input(np.array([0, 0, size[1], size[0]]))
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(whole, expected, atol=1e-9)


@pytest.mark.parametrize(
    "text",
    ["letterbox=90,fill=0", "letterbox=64:top-left,fill=0", "resize=80,crop=60x70",
     "pad=200,crop=150"],
)  # fmt: skip
def test_a_marked_rectangle_is_found_where_its_box_goes(text):
    image = np.zeros((100, 140, 3), np.uint8)
    image[40:60, 50:90] = 255
    found = Preprocessing.parse(text).geometry((100, 140))
    rows, columns = np.nonzero(pixels(text, image)[..., 0] > 127)
    box = found.to_input(np.array([[50, 40, 90, 60]]))[0]
    marked = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(box, marked, atol=1)
    np.testing.assert_allclose(found.to_picture(np.array(marked)), [50, 40, 90, 60], atol=2)


def test_scale_and_offset_of_a_letterbox():
    found = Preprocessing.parse("letterbox=320").geometry((480, 640))
    assert found == Geometry((480, 640), (240, 320), (40, 0), (320, 320))
    assert found.scale == (0.5, 0.5)
    boxes = np.array([[[0, 0, 640, 480], [100, 50, 200, 250]]])
    expected = [[[0, 40, 320, 280], [50, 65, 100, 165]]]
    np.testing.assert_array_equal(found.to_input(boxes), expected)


def overlaps(old, new):
    """new×old: the share that each old pixel has in a new one, counted in finest steps."""
    owner_old, owner_new = np.repeat(np.arange(old), new), np.repeat(np.arange(new), old)
    shares = np.zeros((new, old))
    np.add.at(shares, (owner_new, owner_old), 1 / old)
    return shares


@given(st.tuples(*[st.integers(1, 12)] * 4))
def test_area_is_the_mean_over_what_a_pixel_covers(sizes):
    height, width, new_height, new_width = sizes
    image = picture(height, width)
    expected = np.einsum(
        "yr,xc,rck->yxk", overlaps(height, new_height), overlaps(width, new_width), image
    )
    text = f"resize={new_height}x{new_width},interpolation=area,scale=255,layout=hwc"
    values = Preprocessing.parse(text).apply(Image.fromarray(image))
    np.testing.assert_allclose(values, expected, atol=0.5 + 1e-9)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest", "lanczos"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_the_other_filters_are_pillows(name, color):
    image = Image.fromarray(picture(50, 31))
    mode = image if color == "rgb" else image.convert("L")
    expected = np.asarray(mode.resize((20, 44), Image.Resampling[name.upper()]))
    text = f"resize=44x20,interpolation={name},scale=255,layout=hwc,color={color}"
    values = Preprocessing.parse(text).apply(image)
    np.testing.assert_array_equal(values, expected.reshape(values.shape))


def test_a_gray_letterbox_in_area():
    image = picture(8, 16)
    gray = np.asarray(Image.fromarray(image).convert("L")).astype(float)
    text = "letterbox=8:top-left,fill=9,interpolation=area,scale=255,color=gray"
    values = Preprocessing.parse(text).apply(Image.fromarray(image))
    means = gray.reshape(4, 2, 8, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(values[0, :4], np.rint(means))
    np.testing.assert_array_equal(values[0, 4:], 9)
