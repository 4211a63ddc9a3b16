"""The text of a preprocessing becomes arguments; what is wrong is named."""

import pytest
from onnxq.data.geometry import Frame
from onnxq.data.settings import PRESETS, frame_text, numbers_text, read_settings, size_text
from onnxq.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("resize=96", {"resize": 96}),
        ("crop=96X128", {"crop": (96, 128)}),
        ("resize=none", {"resize": None}),
        ("pad=10x20:top-left", {"pad": Frame(10, 20, "top-left")}),
        ("letterbox=640", {"letterbox": Frame(640, 640, "center")}),
        ("mean=0.5:1:2e-1", {"mean": (0.5, 1.0, 0.2)}),
        (" scale = 255 , color = BGR", {"scale": 255.0, "color": "bgr"}),
        ("layout=NHWC,interpolation=Area", {"layout": "nhwc", "interpolation": "area"}),
    ],
)
def test_each_key_is_read_as_its_kind(text, wanted):
    assert read_settings(text) == wanted


def test_pairs_replace_what_a_preset_says():
    plain = read_settings("imagenet")
    assert (plain["resize"], plain["crop"]) == (256, 224)
    assert read_settings("imagenet,crop=none,std=1") == plain | {"crop": None, "std": (1.0,)}


def test_a_presets_numbers_follow_bgr_but_given_ones_do_not():
    found = read_settings("imagenet,color=bgr,std=1:2:3")
    assert found["mean"] == (0.406, 0.456, 0.485)
    assert found["std"] == (1, 2, 3)


def test_a_letterbox_drops_what_a_preset_resizes_by_unless_it_is_none():
    assert not {"resize", "crop"} & read_settings("imagenet,letterbox=640").keys()
    assert read_settings("imagenet,letterbox=none")["resize"] == 256


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("imagnet", "unknown preprocessing 'imagnet'", "did you mean 'imagenet'?"),
        ("nothing", "unknown preprocessing 'nothing'", ", ".join(PRESETS)),
        ("", "unknown preprocessing ''", "imagenet"),
        ("imagenet,resise=3", "unknown preprocessing key 'resise'", "did you mean 'resize'?"),
        ("imagenet,", "unknown preprocessing key ''", "resize, pad, crop"),
        ("resize=", "resize has no value", "resize=256"),
        ("imagenet,crop", "crop has no value", "crop=224"),
        ("crop=1,crop=2", "crop is given twice", ""),
        ("resize=a", "resize=a is no size", "resize=96 or 96x128"),
        ("resize=1x2x3", "resize=1x2x3 is no size", ""),
        ("pad=wide:center", "pad=wide is no size", ""),
        ("mean=0.5;0.5", "mean=0.5;0.5 is no list of numbers", "mean=0.5:0.5:0.5"),
        ("scale=1:2", "scale=1:2 is no number", "scale=255"),
    ],
)
def test_mistakes_are_named(text, message, hint):
    with pytest.raises(UsageError) as caught:
        read_settings(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_sizes_frames_and_numbers_are_written_as_they_are_read():
    for text in ("96", "96x128"):
        assert size_text(read_settings(f"resize={text}")["resize"]) == text
    for text in ("640:center", "10x20:top-left"):
        assert frame_text(read_settings(f"pad={text}")["pad"]) == text
    assert numbers_text((0.1, 1, 1e-300)) == "0.1:1.0:1e-300"
