"""The libraries that each page holds, as their authors built them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "vendored"


@dataclass(frozen=True)
class Library:
    """One library.

    Attributes:
        purpose: what the page does with it.
        package: its name in the npm registry.
        licence: the whole text.
    """

    name: str
    version: str
    purpose: str
    package: str
    licence: str


def _text(file: str) -> str:
    return (FOLDER / file).read_text(encoding="utf-8").strip()


LIBRARIES = (
    Library("dagre", "3.1.3", "lays out the graph", "@dagrejs/dagre", _text("dagre.LICENSE")),
    Library("uPlot", "1.6.32", "draws charts", "uplot", _text("uPlot.LICENSE")),
)

SCRIPTS = ("dagre.min.js", "uPlot.iife.min.js")
STYLES = ("uPlot.min.css",)


def contents(files: tuple[str, ...]) -> str:
    """The files, one behind the other."""
    return "\n".join(map(_text, files))
