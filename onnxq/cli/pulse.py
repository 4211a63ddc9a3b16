"""A sign of life where no terminal shows a bar: a line from time to time."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.cli.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.progress import Advance

PERIOD = 30.0
"""Seconds between two lines. A command that is done before says nothing."""


@dataclass(eq=False)
class _Work:
    label: str
    total: int | None
    done: int = 0

    def __str__(self) -> str:
        return self.label if self.total is None else f"{self.label} {self.done:,}/{self.total:,}"


class Pulse:
    """Implements `onnxq.progress.Progress`: says what is being done, every `PERIOD` seconds.

    A thread says it, so that work that tells nothing of itself, such as reading a large model, is
    not silent either.
    """

    def __init__(self) -> None:
        self._works: list[_Work] = []

    @contextmanager
    def beating(self, command: str) -> Iterator[None]:
        """Say it for as long as the block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(command, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    @contextmanager
    def track(self, label: str, total: int | None) -> Iterator[Advance]:
        work = _Work(label, total)

        def advance(steps: int) -> None:
            work.done += steps

        self._works.append(work)
        try:
            yield advance
        finally:
            self._works.remove(work)

    def line(self, command: str, seconds: float) -> str:
        """Such as "quantize: settle layers 3/9, 90 s so far"."""
        work = self._works[-1] if self._works else None
        if work is None or work.label == command:
            return f"{work or command}, {seconds:,.0f} s so far"
        return f"{command}: {work}, {seconds:,.0f} s so far"

    def _beat(self, command: str, over: threading.Event) -> None:
        since = time.monotonic()
        while not over.wait(PERIOD):
            text = self.line(command, time.monotonic() - since)
            try:
                sys.stderr.write(printable(text) + "\n")
                sys.stderr.flush()
            except (OSError, ValueError):  # nobody reads it any more
                return
