"""Where a command's words go.

Results go to stdout and notes to stderr; with `--json` stdout holds one JSON document and
everything for people goes to stderr.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from onnxq.cli.pulse import Pulse
from onnxq.cli.text import printable
from onnxq.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnxq.report.table import Table


@dataclass(frozen=True)
class Terminal:
    """The streams of one command.

    Attributes:
        json: the result is wanted as a document.
        verbose: notes with more detail.
        quiet: no notes and no progress.
        pulse: tells of progress where there is no terminal.
        results: where results go; what code of the user's prints does not, see `alive`.
    """

    json: bool = False
    verbose: bool = False
    quiet: bool = False
    pulse: Pulse = field(default_factory=Pulse, compare=False)
    results: TextIO = field(default_factory=lambda: sys.stdout, compare=False, repr=False)

    def with_json(self, *, asked: bool) -> Terminal:
        """The same, with a document if another option than `--json` asks for one too."""
        return replace(self, json=self.json or asked)

    @cached_property
    def progress(self) -> Progress:
        """A bar, where somebody can see it."""
        if self.quiet:
            return SILENT
        if not sys.stderr.isatty():
            return self.pulse
        from onnxq.cli.console import ProgressBar

        return ProgressBar(sys.stderr)

    @contextmanager
    def alive(self, command: str) -> Iterator[None]:
        """Tell from time to time that the command goes on, where no bar shows it.

        What functions of data and metrics print goes to stderr: stdout is for results alone.
        """
        silent = self.quiet or sys.stderr.isatty()
        beating = nullcontext() if silent else self.pulse.beating(command)
        with beating, redirect_stdout(sys.stderr):
            yield

    @property
    def _shown(self) -> TextIO:
        """Where results for people go."""
        return sys.stderr if self.json else self.results

    def note(self, text: str) -> None:
        """Say something beside the result, on stderr."""
        if not self.quiet:
            _print(text, sys.stderr)

    def detail(self, text: str) -> None:
        """Say something that only `--verbose` asks for."""
        if self.verbose:
            _print(text, sys.stderr)

    def line(self, text: str) -> None:
        """Print a line of the result."""
        if not (self.json and self.quiet):
            _print(text, self._shown)

    def table(self, content: Table) -> None:
        """Print a table of the result; one without rows is left out."""
        if content.rows and not (self.json and self.quiet):
            from onnxq.cli.console import draw

            draw(content, self._shown)

    def raw(self, text: str) -> None:
        """Write text to stdout as it is."""
        self.results.write(text)

    def document(self, command: str, content: Mapping[str, Any]) -> None:
        """Write the JSON document of `--json`."""
        if self.json:
            from onnxq.records import to_json

            self.raw(to_json(command, content) + "\n")


def _print(text: str, stream: TextIO) -> None:
    stream.write(printable(text) + "\n")
    stream.flush()
