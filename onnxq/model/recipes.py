"""The recipes that a model carries: the options of the commands that made it, as TOML."""

from __future__ import annotations

from onnxq import __version__
from onnxq.model.model import Model, with_metadata

KEY = "onnxq.recipe."
"""Prefix of the metadata key; the command's name follows."""


def with_recipe(model: Model, command: str, text: str) -> Model:
    """The model with the recipe, the lines of a TOML table, of one of the commands that made it."""
    return with_metadata(model, {KEY + command: text})


def recorded_recipe(model: Model) -> str:
    """The recipes that made the model, as a TOML file; "" where it carries none."""
    tables = [
        f"\n[{key.removeprefix(KEY)}]\n{text}"
        for key, text in sorted(model.metadata.items())
        if key.startswith(KEY)
    ]
    return f"# onnxq {__version__}\n{''.join(tables)}" if tables else ""
