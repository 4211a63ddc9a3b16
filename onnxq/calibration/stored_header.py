"""What the header of a calibration file must look like: types and ranges of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Holds = Callable[[object], bool]


def check(header: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a field of another type, `KeyError` for a missing one."""
    _check(header, _OF_ALL)
    for entry in header["tensors"]:
        _check(entry, _OF_TENSOR)
    if len({entry["name"] for entry in header["tensors"]}) < len(header["tensors"]):
        raise ValueError("a tensor twice")


def _check(fields: Mapping[str, Any], kinds: Mapping[str, Holds]) -> None:
    for name, holds in kinds.items():
        if not holds(fields[name]):
            raise ValueError(f"{name} is {fields[name]!r}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_whole(value) and 0 <= value < 1 << 63  # type: ignore[operator]


def _is_positive(value: object) -> bool:
    return _is_count(value) and value != 0


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _are_shards(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(each, list)
            and len(each) == 2
            and all(map(_is_positive, each))
            and each[0] <= each[1]
            for each in value
        )
    )


_OF_ALL: Mapping[str, Holds] = MappingProxyType(
    {
        "model": _is_text, "preprocessing": _is_text, "batch_size": _is_positive,
        "data": _is_text, "note": _is_text, "samples": _is_count, "shards": _are_shards,
        "tensors": _is_list,
    }
)  # fmt: skip

_OF_TENSOR: Mapping[str, Holds] = MappingProxyType(
    {
        "name": _is_text, "axis": lambda value: value is None or _is_whole(value),
        "channels": _is_positive, "top": _is_whole, "not_finite": _is_count,
        "step": _is_positive,
    }
)  # fmt: skip
