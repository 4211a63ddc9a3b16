"""Text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with what would steer a terminal written out, such as `\x1b`.

    Names in a model or an archive may hold anything.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text
    )
