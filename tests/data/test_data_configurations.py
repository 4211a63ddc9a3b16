"""Preprocessing from a model's own files, and the same from dictionaries."""

import importlib.util
import json

import numpy as np
import onnxq
import pytest
from onnxq.data.preprocess import Preprocessing
from onnxq.errors import DataError, UsageError
from PIL import Image

from support.testdata import uneven

VIT = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 2,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor", "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}  # fmt: skip
CLIP = {
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": 224,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
MOBILEVIT = {
    "crop_size": 256, "do_center_crop": True, "do_flip_channel_order": True, "do_resize": True,
    "feature_extractor_type": "MobileViTFeatureExtractor", "resample": 2, "size": 288,
}  # fmt: skip
CONVNEXT = VIT | {
    "image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, "resample": 3,
    "size": {"shortest_edge": 224},
}  # fmt: skip
TIMM = {
    "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.95,
    "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
}  # fmt: skip
CLIP_NUMBERS = "mean=0.48145466:0.4578275:0.40821073,std=0.26862954:0.26130258:0.27577711"
HALVES = "mean=0.5:0.5:0.5,std=0.5:0.5:0.5"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (VIT, f"resize=224x224,{HALVES}"),
        (VIT | {"size": 224}, f"resize=224x224,{HALVES}"),
        (VIT | {"do_resize": False}, HALVES),
        (VIT | {"do_normalize": False}, "resize=224x224,unit"),
        (VIT | {"do_rescale": False, "do_normalize": False}, "resize=224x224,scale=255"),
        (VIT | {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
         "resize=224x224,scale=2,mean=1"),
        (CLIP, f"resize=224,crop=224,interpolation=bicubic,{CLIP_NUMBERS}"),
        (MOBILEVIT, "resize=288,crop=256,color=bgr"),
        (CONVNEXT, f"resize=256,crop=224,interpolation=bicubic,{HALVES}"),
        (CONVNEXT | {"size": {"shortest_edge": 384}},
         f"resize=384x384,interpolation=bicubic,{HALVES}"),
        (TIMM, "imagenet,resize=235,interpolation=bicubic"),
        (TIMM | {"crop_mode": "squash", "crop_pct": 1.0},
         "imagenet,resize=224x224,interpolation=bicubic"),
        ({"architecture": "resnet18", "pretrained_cfg": TIMM},
         "imagenet,resize=235,interpolation=bicubic"),
    ],
)  # fmt: skip
def test_a_file_says_what_its_library_does(tmp_path, values, wanted):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(values))
    wanted = wanted.replace("resize=224x224,unit", "unit,resize=224x224")
    found = Preprocessing.parse(str(path))
    assert found == Preprocessing.parse(wanted)
    assert Preprocessing.of(values) == found
    assert Preprocessing.parse(str(found)) == found


def test_pairs_beside_a_file_win(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TIMM))
    found = Preprocessing.parse(f"{path},crop=192,fraction=0.75,color=bgr")
    assert (found.crop, found.resize, found.mean) == (192, 256, (0.406, 0.456, 0.485))
    path.write_text(json.dumps(VIT | {"size": 224, "image_processor_type": "OtherImageProcessor"}))
    with pytest.raises(UsageError, match=r"may be a square or the shorter side \(add which: "):
        Preprocessing.parse(str(path))
    assert Preprocessing.parse(f"{path},resize=224").resize == 224


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "no JSON object"),
        ('{"id2label": {}}', "holds no preprocessing.*preprocessor_config.json"),
        (json.dumps(VIT | {"do_pad": True}), "has do_pad, which onnxq does not do"),
        (json.dumps(VIT | {"resample": 4}), "has the filter 4"),
        (json.dumps(VIT | {"size": {"shortest_edge": 800, "longest_edge": 1333}}), "longest_edge"),
        (json.dumps(VIT | {"size": "big"}), "cannot be understood"),
        (json.dumps(CONVNEXT | {"image_processor_type": "PoolFormerImageProcessor"}), "crop_pct"),
        (json.dumps(TIMM | {"crop_mode": "border"}), "crop_mode 'border'"),
        (json.dumps(TIMM | {"input_size": [3]}), "cannot be understood"),
        (json.dumps(TIMM | {"crop_pct": "x"}), "cannot be understood"),
    ],
)
def test_what_onnxq_cannot_do_is_named(tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        Preprocessing.parse(str(path))
    with pytest.raises(UsageError, match="cannot read the preprocessing"):
        Preprocessing.parse(str(tmp_path / "none.json"))


def test_the_same_values_from_everywhere(tmp_path):
    """A file, a dictionary and text make one preprocessing; another one is refused later."""
    generator = np.random.default_rng(0)
    for index in range(8):
        pixels = generator.integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    small = VIT | {"size": {"height": 8, "width": 8}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(small))
    ways = [
        str(tmp_path / "preprocessor_config.json"), small, f"resize=8x8,{HALVES}",
        {"resize": "8x8", "mean": [0.5] * 3, "std": [0.5] * 3},
    ]  # fmt: skip
    made = [onnxq.calibrate(uneven(), tmp_path, preprocess=way) for way in ways]
    assert len({each.provenance.preprocessing for each in made}) == 1
    int8, _ = onnxq.quantize(uneven(), tmp_path, preprocess=small, rounding="nearest")
    assert onnxq.validate(uneven(), int8, tmp_path, preprocess=ways[0]).samples == 8
    with pytest.raises(DataError, match="preprocessed as"):
        onnxq.validate(uneven(), int8, tmp_path, preprocess="unit,resize=8x8")


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
@pytest.mark.parametrize(
    "name", ["ViT", "CLIP", "ConvNext", "Beit", "DeiT", "MobileNetV2", "Levit", "Siglip"]
)
def test_the_pixels_are_those_of_transformers(tmp_path, name):
    import transformers

    processor = getattr(transformers, f"{name}ImageProcessorPil")()
    processor.save_pretrained(tmp_path)
    ours = Preprocessing.parse(str(tmp_path / "preprocessor_config.json"))
    generator = np.random.default_rng(0)
    for sides in ((300, 420), (512, 300), (256, 256)):
        image = Image.fromarray(generator.integers(0, 256, (*sides, 3), np.uint8))
        (theirs,) = processor(image, return_tensors="np")["pixel_values"]
        assert np.array_equal(theirs, ours.apply(image))
