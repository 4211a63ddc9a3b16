"""Results that show themselves: one line in a shell, tables in a notebook, frames in pandas.

How they look is the business of a package that comes after all the stages. The top of the library
hands it in with `show_with`; it is loaded when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Looks(Protocol):
    """How results of every type show themselves."""

    def line(self, result: Shown) -> str:
        """One line for a shell."""

    def html(self, result: Shown) -> str:
        """What a notebook shows."""

    def frame(self, result: Shown) -> Any:
        """The main table as a `pandas.DataFrame`; raises `UsageError` where pandas is missing."""


_looks: Callable[[], Looks]


def show_with(load: Callable[[], Looks]) -> None:
    """Let results look as what `load` returns says."""
    global _looks  # noqa: PLW0603 - set once, where the library is put together
    _looks = load


class Shown:
    """Base of the results that the public functions return."""

    def __repr__(self) -> str:
        return _looks().line(self)

    def _repr_html_(self) -> str:
        return _looks().html(self)

    def to_pandas(self) -> Any:
        """The result's main table as a `pandas.DataFrame`, numbers as numbers.

        Raises:
            UsageError: pandas is not installed.
        """
        return _looks().frame(self)
