"""The manifest: which models, where they come from, what they are fed.

`manifest.toml` holds the data. A model is a table `[[model]]`, each of its inputs a table
`[model.inputs.NAME]`: a maker of `makers.py`, the shape of one feed, and what the maker takes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).with_name("manifest.toml")


@dataclass(frozen=True)
class Shipped:
    """A file in a wheel.

    Attributes:
        package, version: as pip knows them.
        path: inside the wheel.
        sha256: of the file, 64 hexadecimal digits.
    """

    package: str
    version: str
    path: str
    sha256: str

    @property
    def wheel(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        inputs: name → maker, shape and what else the maker takes.
        feeds: how many feeds calibrate; `test` other ones measure.
        states: output → input, of a streaming model.
        steps: feeds in a sequence of such a model.
        refused: why onnxq may refuse it: what the message must hold; "" where it may not.
    """

    name: str
    file: Shipped
    inputs: Mapping[str, Mapping[str, Any]]
    feeds: int = 32
    test: int = 16
    states: Mapping[str, str] = field(default_factory=dict)
    steps: int = 1
    refused: str = ""


@dataclass(frozen=True)
class Manifest:
    """All models, and the pictures from which photographs are cut."""

    models: tuple[Entry, ...]
    pictures: tuple[Shipped, ...]

    def named(self, names: list[str]) -> list[Entry]:
        """Those of these names, all if none is given; raises `KeyError` for an unknown one."""
        by_name = {entry.name: entry for entry in self.models}
        return [by_name[name] for name in names] if names else list(self.models)


def read(file: Path = FILE) -> Manifest:
    """Raises `TypeError` or `KeyError` for a key that means nothing, or one that lacks."""
    content = toml(file)
    pictures = content["pictures"]
    source = {key: pictures[key] for key in ("package", "version")}
    return Manifest(
        models=tuple(_entry(dict(table)) for table in content["model"]),
        pictures=tuple(Shipped(**source, path=p, sha256=s) for p, s in pictures["files"].items()),
    )


def toml(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _entry(table: dict[str, Any]) -> Entry:
    file = Shipped(**{part.name: table.pop(part.name) for part in fields(Shipped)})
    return Entry(file=file, **table)
