"""Targets from TOML files: those beside this module are shipped, users name their own."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxq.errors import UsageError
from onnxq.formats.scheme import (
    DEFAULT,
    PRESETS,
    Dynamic,
    Preset,
    Scheme,
    Spec,
    activations_in,
    weights_in,
)
from onnxq.formats.table import FORMATS, SUMS, Floating, Format, Uniform
from onnxq.model.operators import OPERATORS, Operator, QuantizedRule
from onnxq.options.validate import Execution
from onnxq.records import read_toml
from onnxq.suggest import suggest
from onnxq.targets.sizes import Sizes
from onnxq.targets.target import Placement, Shapes, Target, TargetScheme

SHIPPED = ("gpu", "cpu", "qnn", "openvino", "web", "cpu-arm64", "gpu-dla")

BASE = "base"
"""Key that names the shipped target whose values hold where the file has none."""

FLOAT = "float"
"""What a scheme calls a role that stays in float."""

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
        flag = _flag(path, "integer_bias", old["integer_bias"])
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
        return _operators(path, key, value, _OPERATORS_OF[key])
    return _READERS[key](path, key, value)


def _text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{path}: {key} must be a text, not {value!r}")
    return value


def _flag(path: Path, key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{path}: {key} must be true or false, not {value!r}")
    return value


def _number(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise UsageError(f"{path}: {key} must be a number above 0, not {value!r}")
    return float(value)


def _texts(path: Path, key: str, value: object) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise UsageError(f"{path}: {key} must be a list of texts, not {value!r}")
    return tuple(value)


def _one_of(kind: type[enum.Enum]) -> Callable[[Path, str, object], enum.Enum]:
    """Reads a member of an enumeration."""

    def read(path: Path, key: str, value: object) -> enum.Enum:
        names = [each.value for each in kind]
        if value not in names:
            raise UsageError(f"{path}: {key} must be one of {', '.join(names)}, not {value!r}")
        return kind(value)

    return read


def _runtime(path: Path, key: str, value: object) -> str:
    return "" if value == "" else str(_one_of(Execution)(path, key, value).value)


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
            _flag(path, f"{key}.{name}", size)
        elif isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"{path}: {key}.{name} must be a whole number above 0, not {size!r}")
    return Sizes(**value)


def _operators(
    path: Path, key: str, value: object, may_be: Callable[[Operator], bool]
) -> frozenset[str]:
    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise UsageError(f"{path}: {key} must be a list of operators, not {value!r}")
    able = [row.op_type for row in OPERATORS.values() if may_be(row)]
    for name in value:
        if name not in able:
            hint = suggest(name, able, of=f"operators for {key}")
            raise UsageError(f"{path}: {name!r} cannot be in {key}", hint=hint)
    return frozenset(value)


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
        "own": _is_own,
        "products": _contracts,
        "residual": _is_own,
        "unified": _is_own,
    }
)
"""Field → which rows of the operator table it may name."""


# --- schemes ---------------------------------------------------------------------------------

_SCHEME_KEYS = (
    "weight", "symmetric_weight", "activation", "symmetric", "bias", "operators", "wider",
    "power_of_two",
)  # fmt: skip


def _schemes(path: Path, key: str, value: object) -> Mapping[str, TargetScheme]:
    if not isinstance(value, dict) or not value:
        raise UsageError(f"{path}: {key} must be a table of schemes such as [schemes.{DEFAULT}]")
    found = {name: _scheme(path, name, row) for name, row in value.items()}
    for name, row in value.items():
        if "wider" in row:
            found[name] = _with_wider(path, found, name, row["wider"])
    return MappingProxyType(found)


def _with_wider(
    path: Path, found: Mapping[str, TargetScheme], name: str, wider: object
) -> TargetScheme:
    """The scheme with the one of its target that takes what it does not fit."""
    mine = PRESETS[name]
    able = [each for each in found if each != name and _is_wider(PRESETS[each], mine)]
    if wider not in able:
        words = ", ".join(able) or "a scheme of the file with wider weights or activations"
        raise UsageError(f"{path}: schemes.{name}.wider must be one of {words}, not {wider!r}")
    scheme = replace(found[name].scheme, wider=found[str(wider)].scheme)
    return replace(found[name], scheme=scheme)


def _is_wider(other: Preset, preset: Preset) -> bool:
    """Whether a layer of the preset may compute with the other instead, beside its neighbours."""
    if preset.needs_ranges != other.needs_ranges or preset.floating != other.floating:
        return False
    if preset.needs_ranges:
        return other.activation_bits > preset.activation_bits
    return not (preset.activation_bits or other.activation_bits)


def _scheme(path: Path, name: str, row: object) -> TargetScheme:
    where = f"schemes.{name}"
    if name not in PRESETS:
        hint = suggest(name, PRESETS, of="schemes")
        raise UsageError(f"{path}: unknown scheme {name!r}", hint=hint)
    if not isinstance(row, dict):
        raise UsageError(f"{path}: {where} must be a table, not {row!r}")
    for key in row:
        if key not in _SCHEME_KEYS:
            hint = suggest(key, _SCHEME_KEYS, of="keys of a scheme")
            raise UsageError(f"{path}: {where} has the unknown key {key!r}", hint=hint)
    preset = PRESETS[name]
    grid = Floating if preset.floating else Uniform
    weight = _format(path, f"{where}.weight", row.get("weight", FLOAT), preset.weight_bits, grid)
    activation = _format(
        path, f"{where}.activation", row.get("activation", FLOAT), preset.activation_bits, grid
    )
    bias = _format(path, f"{where}.bias", row.get("bias", FLOAT), SUMS.bits, Uniform)
    operators = None
    if "operators" in row:
        operators = _operators(
            path, f"{where}.operators", row["operators"],
            lambda each: each.quantized is not QuantizedRule.FLOAT or bool(each.by_run),
        )  # fmt: skip
    spec = _activations(path, where, row, activation)
    weights = None if weight is None else _weights(path, where, row, weight)
    roles = {"weights": weights, "activations": spec}
    for role in _texts(path, f"{where}.power_of_two", row.get("power_of_two", [])):
        of = roles.get(role)
        if of is None:
            able = ", ".join(each for each, one in roles.items() if one is not None)
            raise UsageError(f"{path}: {where}.power_of_two may name {able}, not {role!r}")
        roles[role] = replace(of, power_of_two=True)
    weights, spec = roles["weights"], roles["activations"]
    scheme = Scheme(
        name,
        weights,
        Dynamic(spec) if preset.dynamic and spec is not None else spec,
        bias,
        preset.block or 0,
    )
    return TargetScheme(scheme, operators)


def _weights(path: Path, where: str, row: Mapping[str, object], format_: Format) -> Spec:
    """Asymmetric ones in blocks only: no kernel takes a zero point for each channel."""
    key, preset = "symmetric_weight", PRESETS[where.removeprefix("schemes.")]
    symmetric = _flag(path, f"{where}.{key}", row.get(key, True))
    if not symmetric and not preset.block:
        raise UsageError(f"{path}: {where}.{key} must be true: its weights are not in blocks")
    return weights_in(format_, preset.used_bits, symmetric=symmetric)


def _activations(
    path: Path, where: str, row: Mapping[str, object], format_: Format | None
) -> Spec | None:
    if format_ is None:
        return None
    symmetric = _flag(path, f"{where}.symmetric", row.get("symmetric", format_.signed))
    if not symmetric and not format_.zero_point:
        raise UsageError(f"{path}: {where}.symmetric must be true: {format_} has no zero point")
    return activations_in(format_, symmetric=symmetric)


def _format(
    path: Path, key: str, value: object, bits: int, grid: type[Uniform | Floating]
) -> Format | None:
    """A format of so many bits on such a grid, or None for float; no bits allow float only."""
    able = [row.name for row in FORMATS.values() if row.bits == bits and isinstance(row.grid, grid)]
    if value == FLOAT and (not bits or key.endswith("bias")):
        return None
    if value not in able:
        names = able if bits and not key.endswith("bias") else [*able, FLOAT]
        raise UsageError(f"{path}: {key} must be one of {', '.join(names)}, not {value!r}")
    return FORMATS[str(value)]


_READERS: Mapping[str, Callable[[Path, str, object], object]] = MappingProxyType(
    {
        "runs_on": _text,
        "placement": _one_of(Placement),
        "channel_bounds": _flag,
        "largest_pooling_ratio": _number,
        "float_ends": _flag,
        "own_parts": _flag,
        "fixed_steps": _flag,
        "row_tables": _flag,
        "sums_apart": _flag,
        "lint": _texts,
        "runtime": _runtime,
        "shapes": _one_of(Shapes),
        "sizes": _sizes,
        "schemes": _schemes,
    }
)
