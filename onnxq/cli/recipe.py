"""Recipes: a command's options as TOML, read before it runs and written into what it makes.

A recipe holds every option that has a say in the result, defaults too, so it says the same to a
later onnxq whose defaults differ. Paths are kept as they were given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq import __version__
from onnxq.records import read_toml

if TYPE_CHECKING:
    from onnxq.model.model import Model

KEY = "onnxq.recipe."
"""Prefix of the metadata key; the command's name follows."""

ELSEWHERE = frozenset(
    {
        "output",
        "as_json",
        "verbose",
        "quiet",
        "dry_run",
        "explain",
        "recipe",
        "help",
        "batch_size",
        "memory",
    }
)
"""Options that have no say in the result."""


def keys_of(command: click.Command) -> dict[str, click.Option]:
    """The options that a recipe may hold, by their long name without dashes."""
    return {
        max(each.opts, key=len).lstrip("-"): each
        for each in command.params
        if isinstance(each, click.Option) and each.name not in ELSEWHERE
    }


# --- reading ---------------------------------------------------------------------------------


def take(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Make the recipe's values the defaults of the options, so that the command line wins."""
    if path is None:
        return
    found = _table(read_toml(path), path, str(ctx.command.name))
    known = keys_of(ctx.command)
    values: dict[str, Any] = {}
    for key, value in found.items():
        if key not in known:
            raise click.UsageError(f"{path}: unknown key {key!r}{_near(key, known)}", ctx)
        option = known[key]
        if key == "preprocess" and isinstance(value, dict):
            value = ",".join(f"{name}={_setting(each)}" for name, each in value.items())  # noqa: PLW2901
        if option.multiple and isinstance(value, str):
            value = [value]  # noqa: PLW2901
        wanted = _mismatch(option, value)
        if wanted:
            raise click.UsageError(f"{path}: {key} must be {wanted}, not {value!r}", ctx)
        values[str(option.name)] = value
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _table(content: Mapping[str, Any], path: Path, command: str) -> Mapping[str, Any]:
    """The table of this command; those of other commands are theirs."""
    from onnxq.cli.group import COMMANDS

    for name, value in content.items():
        if name not in COMMANDS or not isinstance(value, dict):
            near = _near(name, COMMANDS) if name not in COMMANDS else ""
            raise click.UsageError(
                f"{path}: {name!r} is no table of a command such as [{command}]{near}"
            )
    if command not in content:
        raise click.UsageError(f"{path}: it has no table [{command}]")
    table: Mapping[str, Any] = content[command]
    return table


def _near(name: str, known: Any) -> str:
    from onnxq.suggest import suggest

    return f": {suggest(name, known, of='the keys')}"


def _setting(value: object) -> str:
    """One preprocessing setting as its text: lists joined by colons."""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)


def _mismatch(option: click.Option, value: object) -> str:
    """What the value should have been; "" if it fits. What values are allowed, click knows."""
    if option.multiple:
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return "" if fits else "a list of strings"
    if option.is_flag:
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType)):
        whole = isinstance(option.type, click.types.IntParamType)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        return "" if fits else "a whole number" if whole else "a number"
    return "" if isinstance(value, str) else "a string"


# --- writing ---------------------------------------------------------------------------------


def carried(model: Model, context: click.Context) -> Model:
    """The model with the recipe of the command that is running."""
    from onnxq.model.model import with_metadata

    text = _written(keys_of(context.command), context.params)
    return with_metadata(model, {KEY + str(context.command.name): text})


def _written(options: Mapping[str, click.Option], values: Mapping[str, Any]) -> str:
    lines = []
    for key, option in options.items():
        value = values.get(str(option.name))
        if value is None or value == ():
            continue
        lines.append(f"{key} = {_toml(value)}\n")
    return "".join(lines)


def _toml(value: object) -> str:
    """A value as TOML: its strings are JSON's, but for DEL."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def recorded(model: Model) -> str:
    """The recipes that made the model, as a TOML file; "" where it carries none."""
    tables = [
        f"\n[{key.removeprefix(KEY)}]\n{text}"
        for key, text in sorted(model.metadata.items())
        if key.startswith(KEY)
    ]
    return f"# onnxq {__version__}\n{''.join(tables)}" if tables else ""
