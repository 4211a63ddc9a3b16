"""Tables as values: what a report says, without how it is drawn."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Column:
    """A column; the header names the unit where the cells do not."""

    header: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as text, one row for each thing reported.

    Attributes:
        title: "" for none.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


def table(columns: str, rows: Sequence[Sequence[str]], *, title: str = "") -> Table:
    """A table from headers separated by "|"; a header that starts with ">" is numeric."""
    heads = tuple(
        Column(head.strip().removeprefix(">"), head.strip().startswith(">"))
        for head in columns.split("|")
    )
    return Table(heads, tuple(tuple(row) for row in rows), title)


def number(value: float, digits: int = 4) -> str:
    """A measured value with `digits` significant digits; "–" where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}g}"


def decibels(value: float) -> str:
    """A ratio in dB, without its unit; "identical" where there is no difference."""
    if math.isnan(value):
        return "–"
    return "identical" if value == math.inf else f"{value:.1f}"


def in_decibels(value: float, error: float = math.nan) -> str:
    """The same with its unit: "41.0 dB", "41.0 ± 0.3 dB" or "identical"."""
    text = decibels_within(value, error)
    return text if value == math.inf else f"{text} dB"


def decibels_within(value: float, error: float) -> str:
    """The same with its standard error, as "41.0 ± 0.3", where that is known."""
    known = math.isfinite(value) and not math.isnan(error)
    return f"{value:.1f} ± {error:.2g}" if known else decibels(value)


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 node", "12 nodes", "2 classes"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def to_csv(content: Table) -> str:
    """RFC 4180 with a header line; the cells as they are."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.header for column in content.columns])
    writer.writerows(content.rows)
    return stream.getvalue()
