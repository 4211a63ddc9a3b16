"""Values as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from onnxq.report.table import Table

DIGITS = 5
"""Significant digits of a number on the page."""


def plain(value: Any) -> Any:
    """Values as JSON has them, with floats to so many digits."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain({each.name: getattr(value, each.name) for each in fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return value


def plain_table(content: Table) -> dict[str, Any] | None:
    if not content.rows:
        return None
    return {
        "columns": [{"header": each.header, "numeric": each.numeric} for each in content.columns],
        "rows": content.rows,
    }
