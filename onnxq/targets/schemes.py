"""The schemes of a target's TOML file: formats and operators of each, and what is wider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

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
from onnxq.model.operators import QuantizedRule
from onnxq.suggest import suggest
from onnxq.targets.target import TargetScheme
from onnxq.targets.values import as_flag, as_operators, as_texts

FLOAT = "float"
"""What a scheme calls a role that stays in float."""

_SCHEME_KEYS = (
    "weight", "symmetric_weight", "activation", "symmetric", "bias", "operators", "wider",
    "power_of_two",
)  # fmt: skip


def as_schemes(path: Path, key: str, value: object) -> Mapping[str, TargetScheme]:
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
        operators = as_operators(
            path, f"{where}.operators", row["operators"],
            lambda each: each.quantized is not QuantizedRule.FLOAT or bool(each.by_run),
        )  # fmt: skip
    spec = _activations(path, where, row, activation)
    weights = None if weight is None else _weights(path, where, row, weight)
    roles = {"weights": weights, "activations": spec}
    for role in as_texts(path, f"{where}.power_of_two", row.get("power_of_two", [])):
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
    symmetric = as_flag(path, f"{where}.{key}", row.get(key, True))
    if not symmetric and not preset.block:
        raise UsageError(f"{path}: {where}.{key} must be true: its weights are not in blocks")
    return weights_in(format_, preset.used_bits, symmetric=symmetric)


def _activations(
    path: Path, where: str, row: Mapping[str, object], format_: Format | None
) -> Spec | None:
    if format_ is None:
        return None
    symmetric = as_flag(path, f"{where}.symmetric", row.get("symmetric", format_.signed))
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
