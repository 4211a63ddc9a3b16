"""Recipes: a command's options as TOML, read before it runs and written into what it makes.

A recipe holds every option that has a say in the result, defaults too, so it says the same to a
later onnxq whose defaults differ. Paths are kept as they were given.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onnxq.errors import UsageError
from onnxq.options.commands import COMMANDS
from onnxq.options.fields import Options, options_of
from onnxq.options.kinds import Several
from onnxq.records import read_toml
from onnxq.suggest import suggest


def read(path: Path, options: type[Options]) -> dict[str, Any]:
    """The options of one command that a recipe file holds, by their field.

    Raises:
        UsageError: the file is no recipe, has no table of this command, or an option in it is
            unknown or of the wrong kind.
    """
    fields = {
        each.long_name(name).lstrip("-"): name
        for name, each in options_of(options).items()
        if each.flag is not None
    }
    values: dict[str, Any] = {}
    for key, value in _table(read_toml(path), path, options.command).items():
        if key not in fields:
            raise UsageError(f"{path}: unknown key {key!r}{_near(key, fields)}")
        name = fields[key]
        option = options_of(options)[name]
        single = isinstance(option.kind, Several) and isinstance(value, str)
        values[name] = option.kind.accept([value] if single else value, f"{path}: {key}")
    return values


def _table(content: Mapping[str, Any], path: Path, command: str) -> Mapping[str, Any]:
    """The table of this command; those of other commands are theirs."""
    for name, value in content.items():
        if name not in COMMANDS or not isinstance(value, dict):
            near = _near(name, COMMANDS) if name not in COMMANDS else ""
            raise UsageError(f"{path}: {name!r} is no table of a command such as [{command}]{near}")
    if command not in content:
        raise UsageError(f"{path}: it has no table [{command}]")
    table: Mapping[str, Any] = content[command]
    return table


def _near(name: str, known: Iterable[str]) -> str:
    return f": {suggest(name, known, of='the keys')}"


def written(options: Options) -> str:
    """The options as the lines of a TOML table."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in options.plain().items())


def _toml(value: object) -> str:
    """A value as TOML: its strings are JSON's, but for DEL."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # TOML writes infinity as Python does, JSON does not
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
