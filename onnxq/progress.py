"""How long work tells its caller where it stands, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from onnxq.errors import UsageError

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

Listener = Progress | Callable[..., Any] | bool | None
"""What `as_progress` takes."""


@dataclass(frozen=True)
class Bars:
    """A bar for each piece of work, as `tqdm` draws them.

    Attributes:
        bar: makes one of `total=` and `desc=`; it has `update(steps)` and `close()`.
    """

    bar: Callable[..., Any]

    @contextmanager
    def track(self, label: str, total: int | None) -> Iterator[Advance]:
        bar = self.bar(total=total, desc=label)
        try:
            yield bar.update
        finally:
            bar.close()


@dataclass(frozen=True)
class Told:
    """A function that is told, after each step: (label, steps done, steps in all or None)."""

    tell: Callable[[str, int, int | None], object]

    @contextmanager
    def track(self, label: str, total: int | None) -> Iterator[Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            self.tell(label, done, total)

        yield advance


def as_progress(listener: Listener) -> Progress:
    """A listener in any form.

    Args:
        listener: one that has `track`; a class of bars such as `tqdm`; a function of (label, steps
            done, steps in all or None); True for bars of tqdm's; False or None for silence.

    Raises:
        UsageError: it is none of these, or tqdm is not installed.
    """
    if listener is None or listener is False:
        return SILENT
    if listener is True:
        return Bars(_tqdm())
    if not isinstance(listener, type) and hasattr(listener, "track"):
        return cast("Progress", listener)
    made = listener.func if isinstance(listener, partial) else listener
    if isinstance(made, type) and hasattr(made, "update"):
        return Bars(listener)
    if callable(listener):
        return Told(listener)
    raise UsageError(
        "progress must be True, tqdm, a function of (label, done, total), or an object with "
        f"track(), not {type(listener).__name__}"
    )


def _tqdm() -> Callable[..., Any]:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise UsageError(
            "progress=True needs the package tqdm",
            hint="pip install tqdm, or give a function of (label, done, total)",
        ) from None
    return cast("Callable[..., Any]", tqdm)
