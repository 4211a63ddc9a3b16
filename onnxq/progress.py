"""How long work tells its caller where it stands, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """A listener: `track` opens one piece of work and yields a function that advances it."""

    def track(self, label: str, total: int | None) -> AbstractContextManager[Advance]:
        """Open work of `total` steps (None if unknown) and yield `advance(steps)`."""
        ...


class Silent:
    """The listener of library calls: it says nothing."""

    @contextmanager
    def track(self, label: str, total: int | None) -> Iterator[Advance]:  # noqa: ARG002
        yield lambda _steps: None


SILENT: Progress = Silent()
