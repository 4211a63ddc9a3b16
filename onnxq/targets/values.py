"""Plain values of a target's TOML file, each with what must be there in its place."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path

from onnxq.errors import UsageError
from onnxq.model.operators import OPERATORS, Operator
from onnxq.suggest import suggest


def as_text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{path}: {key} must be a text, not {value!r}")
    return value


def as_flag(path: Path, key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{path}: {key} must be true or false, not {value!r}")
    return value


def as_number(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise UsageError(f"{path}: {key} must be a number above 0, not {value!r}")
    return float(value)


def as_texts(path: Path, key: str, value: object) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise UsageError(f"{path}: {key} must be a list of texts, not {value!r}")
    return tuple(value)


def as_one_of(kind: type[enum.Enum]) -> Callable[[Path, str, object], enum.Enum]:
    """Reads a member of an enumeration."""

    def read(path: Path, key: str, value: object) -> enum.Enum:
        names = [each.value for each in kind]
        if value not in names:
            raise UsageError(f"{path}: {key} must be one of {', '.join(names)}, not {value!r}")
        return kind(value)

    return read


def as_operators(
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
