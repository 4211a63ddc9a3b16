"""Targets from TOML files: those beside this module are shipped, users name their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxq.errors import UsageError
from onnxq.formats.scheme import (
    DEFAULT,
    PRESETS,
)
from onnxq.formats.table import FORMATS, SUMS
from onnxq.model.operators import Operator, QuantizedRule
from onnxq.options.validate import Execution
from onnxq.records import read_toml
from onnxq.suggest import suggest
from onnxq.targets.schemes import FLOAT, as_schemes
from onnxq.targets.sizes import Sizes
from onnxq.targets.target import Placement, Shapes, Target
from onnxq.targets.values import as_flag, as_number, as_one_of, as_operators, as_text, as_texts

SHIPPED = ("gpu", "cpu", "qnn", "openvino", "web", "cpu-arm64", "gpu-dla")

BASE = "base"
"""Key that names the shipped target whose values hold where the file has none."""

_FOLDER = Path(__file__).parent


def target_named(name: str) -> Target:
    """A shipped target, or one from the TOML file of that name; raises `UsageError`."""
    if name in SHIPPED:
        return _shipped(name)
    if not name.endswith(".toml"):
        names = (*SHIPPED, "or the path of a .toml file")
        hint = suggest(name, SHIPPED) or f"one of {', '.join(names)}"
        raise UsageError(f"unknown target {name!r}", hint=hint)
    return read_target(Path(name))


@lru_cache
def _shipped(name: str) -> Target:
    return read_target(_FOLDER / f"{name}.toml")


def shipped_targets() -> Mapping[str, Target]:
    """All shipped targets by name, the default first."""
    return {name: _shipped(name) for name in SHIPPED}


def read_target(path: Path) -> Target:
    """Read a target from a TOML file with the fields of `Target`, but for the name.

    Raises:
        UsageError: the file cannot be read, a key is missing or unknown, a value is of the wrong
            kind, or an operator cannot be what the file says it is.
    """
    values = _of_first_version(path, _on_base(path, read_toml(path)))
    known = {each.name: each for each in fields(Target) if each.name != "name"}
    for key in values:
        if key not in known:
            raise UsageError(f"{path}: unknown key {key!r}", hint=suggest(key, known))
    for key in sorted(known):
        if key in values:
            values[key] = _value(path, key, values[key])
        elif known[key].default is MISSING and known[key].default_factory is MISSING:
            raise UsageError(f"{path}: no {key!r}", hint=f'give it, or base = "{SHIPPED[0]}"')
    return Target(path.stem, **values)


def _on_base(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a file, and those of its base, which may have one itself, where it has none."""
    base = values.pop(BASE, None)
    if base is None:
        return values
    if base not in SHIPPED:
        raise UsageError(f"{path}: base must be one of {', '.join(SHIPPED)}, not {base!r}")
    below = _FOLDER / f"{base}.toml"
    return _on_base(below, read_toml(below)) | values


_OLD_KEYS = ("activation", "symmetric", "integer_bias")
"""Keys of 0.1 that said what the default scheme says today."""


def _of_first_version(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The keys of today in place of those of 0.1."""
    old = {key: values.pop(key) for key in _OLD_KEYS if key in values}
    if not old:
        return values
    schemes = values.get("schemes", {})
    row: dict[str, Any] = dict(schemes.get(DEFAULT, {}))
    if "integer_bias" in old:
        flag = as_flag(path, "integer_bias", old["integer_bias"])
        row["bias"] = SUMS.name if flag else FLOAT
    row |= {key: old[key] for key in ("activation", "symmetric") if key in old}
    row.setdefault("weight", _signed(PRESETS[DEFAULT].weight_bits))
    return {**values, "schemes": {**schemes, DEFAULT: row}}


def _signed(bits: int) -> str:
    """The signed uniform format of so many bits."""
    return next(row.name for row in FORMATS.values() if row.bits == bits and row.signed)


# --- values ----------------------------------------------------------------------------------


def _value(path: Path, key: str, value: object) -> object:
    """The value in the field's type."""
    if key in _OPERATORS_OF:
        return as_operators(path, key, value, _OPERATORS_OF[key])
    return _READERS[key](path, key, value)


def _runtime(path: Path, key: str, value: object) -> str:
    return "" if value == "" else str(as_one_of(Execution)(path, key, value).value)


def _sizes(path: Path, key: str, value: object) -> Sizes:
    """A table of flags and whole numbers; what it leaves out allows every layer."""
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {key} must be a table, not {value!r}")
    known = {each.name: type(each.default) for each in fields(Sizes)}
    for name, size in value.items():
        if name not in known:
            hint = suggest(name, known, of=f"keys of {key}")
            raise UsageError(f"{path}: {key} has the unknown key {name!r}", hint=hint)
        if known[name] is bool:
            as_flag(path, f"{key}.{name}", size)
        elif isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"{path}: {key}.{name} must be a whole number above 0, not {size!r}")
    return Sizes(**value)


def _is_weighted(row: Operator) -> bool:
    return row.quantized is QuantizedRule.WEIGHTED


def _contracts(row: Operator) -> bool:
    return row.contracts


def _is_own(row: Operator) -> bool:
    return row.quantized is QuantizedRule.OWN


_OPERATORS_OF: Mapping[str, Callable[[Operator], bool]] = MappingProxyType(
    {
        "weighted": _is_weighted,
        "float_output": _is_weighted,
        "one_weight_scale": _is_weighted,
        "channels_last": _is_weighted,
        "own": _is_own,
        "products": _contracts,
        "residual": _is_own,
        "unified": _is_own,
    }
)
"""Field → which rows of the operator table it may name."""


_READERS: Mapping[str, Callable[[Path, str, object], object]] = MappingProxyType(
    {
        "runs_on": as_text,
        "placement": as_one_of(Placement),
        "channel_bounds": as_flag,
        "largest_pooling_ratio": as_number,
        "float_ends": as_flag,
        "own_parts": as_flag,
        "fixed_steps": as_flag,
        "row_tables": as_flag,
        "sums_apart": as_flag,
        "lint": as_texts,
        "runtime": _runtime,
        "shapes": as_one_of(Shapes),
        "sizes": _sizes,
        "schemes": as_schemes,
    }
)
