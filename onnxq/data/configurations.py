"""Preprocessing as a model's own files have it: Hugging Face's, and timm's.

`preprocessor_config.json` belongs to an image processor of `transformers`; timm has its data
configuration in `config.json`, or as what `timm.data.resolve_data_config` returns. Both become
settings such as the command line takes. What these cannot say is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxq.errors import UsageError

TIMM = "pretrained_cfg"
"""Where a `config.json` of timm's has the data configuration."""

FILTERS: Mapping[Any, str] = MappingProxyType(
    {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    | {name: name for name in ("nearest", "lanczos", "bilinear", "bicubic")}
    | {"random": "bilinear"}
)
"""Pillow's numbers and timm's words."""

SQUARE = ("ViT", "DeiT", "Beit", "Swin2SR", "Dinov3ViT", "Siglip")
SHORTER = ("CLIP", "ChineseCLIP", "MobileNetV1", "MobileNetV2", "MobileViT", "Bit", "ConvNext")
"""Processors that take a single number as the side of a square, or as the shorter side."""

CONVNEXT_WHOLE = 384
"""The side from which on ConvNeXt's processor crops nothing."""


def read_configuration(path: Path, given: Collection[str] = ()) -> dict[str, str]:
    """The settings in a file.

    Args:
        given: keys that the user gives besides, so that the file need not be clear about them.

    Raises:
        UsageError: it cannot be read, is none of the two kinds, or says what onnxq cannot do.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the preprocessing {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the preprocessing {path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"the preprocessing {path} is no JSON object")
    return settings_of(found, str(path), given)


def is_configuration(values: Mapping[str, Any]) -> bool:
    """Whether a dictionary is a configuration of one of the kinds, rather than onnxq's own."""
    return bool({TIMM, "input_size", "image_mean", "do_resize", "do_normalize"} & values.keys())


def settings_of(
    values: Mapping[str, Any], where: str, given: Collection[str] = ()
) -> dict[str, str]:
    """The settings of a configuration; raises as `read_configuration`."""
    try:
        if TIMM in values or "input_size" in values:
            return _of_timm(values.get(TIMM, values), where)
        if is_configuration(values):
            return _of_hugging_face(values, where, given)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"the preprocessing {where} cannot be understood: {what}") from None
    raise UsageError(
        f"{where} holds no preprocessing",
        hint="give a preprocessor_config.json of transformers, or a config.json of timm",
    )


def _refuse(where: str, what: str) -> UsageError:
    return UsageError(
        f"the preprocessing {where} has {what}, which onnxq does not do",
        hint="write the steps as pairs such as resize=96,mean=0.5, or give a function in Python",
    )


def _numbers(values: float | Sequence[float]) -> str:
    each = values if isinstance(values, Sequence) else [values]
    return ":".join(repr(float(value)) for value in each)


def _filter(value: Any, where: str) -> str:
    if value not in FILTERS:
        raise _refuse(where, f"the filter {value!r}")
    return FILTERS[value]


# --- timm ------------------------------------------------------------------------------------


def _of_timm(values: Mapping[str, Any], where: str) -> dict[str, str]:
    """As timm's `create_transform` evaluates: resize, crop at the center, normalize."""
    channels, height, width = values["input_size"]
    share, mode = values.get("crop_pct") or 1.0, values.get("crop_mode") or "center"
    if mode not in {"center", "squash"} or (mode == "center" and height != width):
        raise _refuse(where, f"crop_mode {mode!r} for {height}×{width} pixels")
    longer = (math.floor(height / share), math.floor(width / share))
    whole = mode == "squash"
    return {
        "resize": f"{longer[0]}x{longer[1]}" if whole else str(longer[0]),
        "crop": f"{height}x{width}" if whole else str(height),
        "interpolation": _filter(values.get("interpolation") or "bilinear", where),
        "mean": _numbers(values.get("mean", (0.485, 0.456, 0.406))),
        "std": _numbers(values.get("std", (0.229, 0.224, 0.225))),
        "color": "gray" if channels == 1 else "rgb",
    }


# --- Hugging Face ----------------------------------------------------------------------------


def _of_hugging_face(
    values: Mapping[str, Any], where: str, given: Collection[str]
) -> dict[str, str]:
    """As an image processor of `transformers` does: resize, crop, rescale, normalize."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    for key in ("do_pad", "include_top", "do_thumbnail", "do_align_long_axis"):
        if values.get(key):
            raise _refuse(where, f"{key}")
    result = _sizes(values, kind, where, given)
    if "resize" in result or "resize" in given:
        result["interpolation"] = _filter(values.get("resample", _usual_filter(kind)), where)
    result |= _scaled(values)
    if values.get("do_flip_channel_order"):
        result["color"] = "bgr"
    return result


def _usual_filter(kind: str) -> str:
    return "bicubic" if "CLIP" in kind else "bilinear"


def _scaled(values: Mapping[str, Any]) -> dict[str, str]:
    """Scale, mean and std."""
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    # 1/255 is stored with as many digits as a float has, which gives all but 1.
    scale = float(f"{255 * factor:.9g}")
    shift = 1.0 if values.get("rescale_offset") else 0.0
    mean: Any = [0.0]
    std: Any = [1.0]
    if values.get("do_normalize", "image_mean" in values):
        mean, std = values["image_mean"], values["image_std"]
    means = mean if isinstance(mean, Sequence) else [mean]
    return {
        "scale": repr(scale),
        "mean": _numbers([value + shift for value in means]),
        "std": _numbers(std),
    }


def _sizes(
    values: Mapping[str, Any], kind: str, where: str, given: Collection[str]
) -> dict[str, str]:
    """What is resized and cropped."""
    result: dict[str, str] = {}
    resizes = values.get("do_resize", True) and values.get("size") is not None
    if resizes and "resize" not in given:
        size = _size(values["size"], kind, where)
        if "ConvNext" in kind and isinstance(size, int):
            return _of_convnext(size, values)
        if "Levit" in kind and isinstance(size, int):
            size = int(256 / 224 * size)
        if values.get("crop_pct") is not None:
            raise _refuse(where, f"crop_pct of {kind or 'an unknown processor'}")
        result["resize"] = str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"
    if values.get("do_center_crop") and values.get("crop_size") is not None:
        crop = values["crop_size"]
        sides = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        result["crop"] = f"{sides[0]}x{sides[1]}"
    return result


def _size(size: Any, kind: str, where: str) -> int | tuple[int, int]:
    """The shorter side, or height and width."""
    if isinstance(size, int):
        if kind.startswith(SQUARE):
            return (size, size)
        if kind.startswith(SHORTER):
            return size
        raise UsageError(
            f"the preprocessing {where} has size {size}, which may be a square or the shorter side",
            hint=f"add which: {where},resize={size}x{size} or {where},resize={size}",
        )
    if {"height", "width"} <= size.keys():
        return (size["height"], size["width"])
    if set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    raise _refuse(where, f"size {dict(size)}")


def _of_convnext(size: int, values: Mapping[str, Any]) -> dict[str, str]:
    if size >= CONVNEXT_WHOLE:
        return {"resize": f"{size}x{size}"}
    share = values.get("crop_pct") or 224 / 256
    return {"resize": str(int(size / share)), "crop": str(size)}
