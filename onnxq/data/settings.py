"""The text of a preprocessing: presets, and key=value pairs."""

from __future__ import annotations

import math
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxq.data.configurations import read_configuration
from onnxq.data.geometry import Frame, Size, pair
from onnxq.errors import UsageError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PRESETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "imagenet": MappingProxyType(
            {
                "resize": "256",
                "crop": "224",
                "mean": "0.485:0.456:0.406",
                "std": "0.229:0.224:0.225",
            }
        ),
        "tf": MappingProxyType({"mean": "0.5", "std": "0.5"}),
        "unit": MappingProxyType({"mean": "0", "std": "1"}),
        "pixels": MappingProxyType({"scale": "255"}),
    }
)
"""The named preprocessings, in RGB."""

FRACTION = "fraction"
"""The key that says what part of the shorter side a crop shows, in place of `resize`."""

_PRESETS_OR_PAIRS = (
    "write pairs such as resize=96,mean=0.5,std=0.5, a .json file of the model's, or a preset; "
    "the presets"
)


def read_settings(text: str) -> dict[str, Any]:
    """The arguments of `Preprocessing` that `text` names; see `Preprocessing.parse`."""
    first, *rest = (part.strip() for part in text.split(","))
    values: dict[str, str] = {}
    if first.lower().endswith(".json"):
        given = _pairs(rest)
        values.update(read_configuration(Path(first), given))
    elif "=" not in first:
        if first in _READERS:
            raise _without_value(first)
        if first not in PRESETS:
            raise UsageError(
                f"unknown preprocessing {first!r}",
                hint=suggest(first, PRESETS, of=_PRESETS_OR_PAIRS),
            )
        values.update(PRESETS[first])
        given = _pairs(rest)
    else:
        given = _pairs([first, *rest])
    if given.get("color") == "bgr":
        values |= {
            key: ":".join(reversed(values[key].split(":")))
            for key in ("mean", "std")
            if key in values
        }
    if given.get("letterbox", "none") != "none":
        # It takes the place of the steps that a preset resizes by.
        values = {key: value for key, value in values.items() if key not in {"resize", "crop"}}
    if FRACTION in given:
        values = {key: value for key, value in values.items() if key != "resize"}
    values |= given
    if FRACTION in values:
        values["resize"] = _resize_for(values.pop(FRACTION), values)
    return {key: _READERS[key](key, value) for key, value in values.items()}


def _resize_for(fraction: str, values: Mapping[str, str]) -> str:
    """The shorter side of which a square crop is this fraction, rounded down."""
    share = _read_number(FRACTION, fraction)
    if not 0 < share <= 1:
        raise UsageError(
            f"preprocessing: {FRACTION}={fraction} is no fraction", hint=f"write {FRACTION}=0.875"
        )
    if "resize" in values:
        raise UsageError(
            f"preprocessing: {FRACTION} and resize exclude each other",
            hint=f"{FRACTION} says what to resize to: leave one of them out",
        )
    crop = _read_size("crop", values.get("crop", "none"))
    if not isinstance(crop, int):
        raise UsageError(
            f"preprocessing: {FRACTION} needs the side of a square crop", hint="add crop=224"
        )
    return str(math.floor(crop / share))


def _pairs(parts: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        known = (*_READERS, FRACTION)
        if key not in known and values and not equals and _is_number(key):
            raise _with_commas(parts, values)
        if key not in known:
            raise UsageError(
                f"unknown preprocessing key {key!r}", hint=suggest(key, known, of="the keys")
            )
        if not equals or not value:
            raise _without_value(key)
        if key in values:
            raise UsageError(f"preprocessing: {key} is given twice")
        values[key] = value
    return values


def _without_value(key: str) -> UsageError:
    return UsageError(f"preprocessing: {key} has no value", hint=f"write {key}={_SUCH_AS[key]}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_commas(parts: list[str], values: Mapping[str, str]) -> UsageError:
    """The error for several numbers of a key that commas part, as those of other tools do."""
    key, first = list(values.items())[-1]
    found = [first]
    for part in parts[len(values) :]:
        if not _is_number(part):
            break
        found.append(part.strip())
    return UsageError(
        f"preprocessing: {key}={','.join(found)}: commas part settings, colons numbers",
        hint=f"write {key}={':'.join(found)}",
    )


def _read_size(key: str, text: str) -> Size | None:
    if text == "none":
        return None
    try:
        numbers = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 2:
        return numbers
    raise UsageError(f"preprocessing: {key}={text} is no size", hint=f"write {key}=96 or 96x128")


def _read_frame(key: str, text: str) -> Frame | None:
    sides, colon, place = text.lower().partition(":")
    size = _read_size(key, sides)
    if size is None:
        return None
    # `Preprocessing` checks the place.
    return Frame(*pair(size), place if colon else "center")  # type: ignore[arg-type]


def _read_number(key: str, text: str) -> float:
    numbers = _read_numbers(key, text)
    if len(numbers) != 1:
        raise UsageError(f"preprocessing: {key}={text} is no number", hint=f"write {key}=255")
    return numbers[0]


def _read_numbers(key: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(":"))
    except ValueError as error:
        raise UsageError(
            f"preprocessing: {key}={text} is no list of numbers",
            hint=f"write {key}=0.5 or {key}=0.5:0.5:0.5",
        ) from error


def _read_flag(key: str, text: str) -> bool:
    found = {"yes": True, "true": True, "no": False, "false": False}.get(text.lower())
    if found is None:
        raise UsageError(f"preprocessing: {key}={text} is neither yes nor no")
    return found


def _read_word(_key: str, text: str) -> str:
    return text.lower()


_READERS: Mapping[str, Callable[[str, str], Any]] = MappingProxyType(
    {
        "resize": _read_size,
        "pad": _read_frame,
        "crop": _read_size,
        "letterbox": _read_frame,
        "fill": _read_numbers,
        "interpolation": _read_word,
        "antialias": _read_flag,
        "orientation": _read_word,
        "scale": _read_number,
        "mean": _read_numbers,
        "std": _read_numbers,
        "layout": _read_word,
        "color": _read_word,
    }
)


_SUCH_AS: Mapping[str, str] = MappingProxyType(
    {
        "resize": "256",
        "pad": "640",
        "crop": "224",
        "letterbox": "640",
        "fill": "114",
        "interpolation": "bicubic",
        "scale": "255",
        "mean": "0.5:0.5:0.5",
        "std": "0.5:0.5:0.5",
        "layout": "nhwc",
        "color": "bgr",
    }
)
"""Key → a value, for advice."""


def size_text(size: Size) -> str:
    return f"{size[0]}x{size[1]}" if isinstance(size, tuple) else str(size)


def frame_text(frame: Frame) -> str:
    square = frame.height == frame.width
    return f"{size_text(frame.height if square else frame.sides)}:{frame.place}"


def numbers_text(values: tuple[float, ...]) -> str:
    return ":".join(repr(float(value)) for value in values)
