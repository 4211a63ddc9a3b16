"""Near misses: what the user probably meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


LIKENESS = 0.7
"""Of two names, by `difflib`, from which on one is meant by the other; gpu and cpu are below."""


def suggest(name: str, known: Iterable[str], *, of: str = "") -> str:
    """A hint for the unknown `name`: the closest of `known`, or the list of them.

    `of` says what they are, in the plural: "the keys". Without it there is no list.
    """
    options = list(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=LIKENESS)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"{of} are: {', '.join(options)}" if of and options else ""
