"""Targets as data: what a machine computes in integers and where it wants Q/DQ.

Each is a TOML file; those beside this module are shipped, users name their own.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType

from onnxq.errors import UsageError
from onnxq.model.operators import OPERATORS, Int8Rule, Operator
from onnxq.records import read_toml
from onnxq.suggest import suggest


class Placement(enum.Enum):
    """Where QuantizeLinear/DequantizeLinear pairs go."""

    INPUTS = "inputs"
    """On the inputs of weighted operators, residual branches and int8 pass-throughs before them;
    a float reader of the same tensor keeps reading the float value."""
    ALL = "all"
    """On the inputs and outputs of everything that has an integer kernel, so that each group
    between two pairs becomes one kernel; every reader reads the dequantized value."""


@dataclass(frozen=True)
class Target:
    """One machine.

    Attributes:
        name: as given to `--target`, or of its file.
        runs_on: for people.
        activation: element type of activations.
        symmetric: whether activation zero points are all zero.
        integer_bias: int32 bias with scale input × weight; else float.
        placement: see `Placement`.
        own: operators with an integer kernel besides the weighted ones, used where some input is
            int8 already.
        residual: operators whose second branch gets Q/DQ under `Placement.INPUTS`.
        float_output: weighted operators whose integer kernel can write float: for a graph output,
            or where no other integer kernel reads it.
    """

    name: str
    runs_on: str
    activation: str
    symmetric: bool
    integer_bias: bool
    placement: Placement
    own: frozenset[str]
    residual: frozenset[str]
    float_output: frozenset[str]
    weighted: frozenset[str]

    @property
    def levels(self) -> int:
        """Quantization levels of an activation."""
        return 255 if self.symmetric else 256


SHIPPED = ("gpu", "cpu")

BASE = "base"
"""Key that names the shipped target whose values hold where the file has none."""


def target_named(name: str) -> Target:
    """A shipped target, or one from the TOML file of that name; raises `UsageError`."""
    if name in SHIPPED:
        return TARGETS[name]
    if not name.endswith(".toml"):
        names = (*SHIPPED, "or the path of a .toml file")
        raise UsageError(f"unknown target {name!r}", hint=f"one of {', '.join(names)}")
    return read_target(Path(name))


def read_target(path: Path) -> Target:
    """Read a target from a TOML file with the fields of `Target`, but for the name.

    Raises:
        UsageError: the file cannot be read, a key is missing or unknown, a value is of the wrong
            kind, or an operator cannot be what the file says it is.
    """
    values = read_toml(path)
    base = values.pop(BASE, None)
    if base is not None:
        if base not in SHIPPED:
            raise UsageError(f"{path}: base must be one of {', '.join(SHIPPED)}, not {base!r}")
        values = read_toml(_FOLDER / f"{base}.toml") | values
    known = {field.name for field in fields(Target)} - {"name"}
    for key in values:
        if key not in known:
            raise UsageError(f"{path}: unknown key {key!r}", hint=suggest(key, known))
    for key in sorted(known):
        if key not in values:
            hint = f'give it, or base = "{SHIPPED[0]}"'
            raise UsageError(f"{path}: no {key!r}", hint=hint)
        values[key] = _value(path, key, values[key])
    if values["symmetric"] != (values["activation"] == "int8"):
        raise UsageError(
            f"{path}: symmetric activations are int8, others uint8",
            hint='activation = "int8" with symmetric = true, or "uint8" with false',
        )
    return Target(path.stem, **values)


_CHOICES = {"activation": ("int8", "uint8"), "placement": tuple(p.value for p in Placement)}

_FOLDER = Path(__file__).parent


def _value(path: Path, key: str, value: object) -> object:
    """The value in the field's type."""
    if key in _OPERATORS_OF:
        return _operators(path, key, value)
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise UsageError(
                f"{path}: {key} must be one of {', '.join(_CHOICES[key])}, not {value!r}"
            )
        return Placement(value) if key == "placement" else value
    wanted, kind = ("a text", str) if key == "runs_on" else ("true or false", bool)
    if not isinstance(value, kind):
        raise UsageError(f"{path}: {key} must be {wanted}, not {value!r}")
    return value


def _operators(path: Path, key: str, value: object) -> frozenset[str]:
    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise UsageError(f"{path}: {key} must be a list of operators, not {value!r}")
    able = [row.op_type for row in OPERATORS.values() if _OPERATORS_OF[key](row)]
    for name in value:
        if name not in able:
            hint = suggest(name, able, of=f"operators for {key}")
            raise UsageError(f"{path}: {name!r} cannot be in {key}", hint=hint)
    return frozenset(value)


_OPERATORS_OF: Mapping[str, Callable[[Operator], bool]] = MappingProxyType(
    {
        "weighted": lambda row: row.int8 is Int8Rule.WEIGHTED,
        "float_output": lambda row: row.int8 is Int8Rule.WEIGHTED,
        "own": lambda row: row.int8 is Int8Rule.OWN,
        "residual": lambda row: row.int8 is Int8Rule.OWN,
    }
)
"""Field → which rows of the operator table it may name."""


TARGETS: Mapping[str, Target] = MappingProxyType(
    {name: read_target(_FOLDER / f"{name}.toml") for name in SHIPPED}
)
