"""Where a command's words go.

Results go to stdout and notes to stderr; with `--json` stdout holds one JSON document and
everything for people goes to stderr.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnxq.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.report.table import Table


@dataclass(frozen=True)
class Terminal:
    """The streams of one command.

    Attributes:
        json: the result is wanted as a document.
        verbose: notes with more detail.
        quiet: no notes and no progress.
    """

    json: bool = False
    verbose: bool = False
    quiet: bool = False

    def with_json(self, *, asked: bool) -> Terminal:
        """The same, with a document if another option than `--json` asks for one too."""
        return replace(self, json=self.json or asked)

    @cached_property
    def progress(self) -> Progress:
        """A bar, where somebody can see it."""
        if self.quiet or not sys.stderr.isatty():
            return SILENT
        from onnxq.cli.console import ProgressBar

        return ProgressBar(sys.stderr)

    def note(self, text: str) -> None:
        """Say something beside the result, on stderr."""
        if not self.quiet:
            _print(text, error=True)

    def detail(self, text: str) -> None:
        """Say something that only `--verbose` asks for."""
        if self.verbose:
            _print(text, error=True)

    def line(self, text: str) -> None:
        """Print a line of the result."""
        if not (self.json and self.quiet):
            _print(text, error=self.json)

    def table(self, content: Table) -> None:
        """Print a table of the result; one without rows is left out."""
        if content.rows and not (self.json and self.quiet):
            from onnxq.cli.console import draw

            draw(content, sys.stderr if self.json else sys.stdout)

    def raw(self, text: str) -> None:
        """Write text to stdout as it is."""
        sys.stdout.write(text)

    def document(self, command: str, content: Mapping[str, Any], *, version: int = 1) -> None:
        """Write the JSON document of `--json`; `version` is that of the command's schema."""
        if self.json:
            from onnxq.records import to_json

            self.raw(to_json(command, version, content) + "\n")


def printable(text: str) -> str:
    r"""The text with what would steer a terminal written out, such as `\x1b`.

    Names in a model or an archive may hold anything.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text
    )


def _print(text: str, *, error: bool) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.write(printable(text) + "\n")
    stream.flush()
