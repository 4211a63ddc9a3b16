"""How results show themselves in a shell, a notebook and pandas: see `onnxq.shown`."""

from __future__ import annotations

import html as markup
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.calibration.statistics import Calibration
from onnxq.commands.equalize import EqualizationResult
from onnxq.commands.validate import Validation
from onnxq.errors import UsageError
from onnxq.model.status import Float
from onnxq.quantization.request import QuantizationResult
from onnxq.report import equalization, layers, quantization, validation
from onnxq.report.table import Table, count, number, table
from onnxq.shown import Shown
from onnxq.validation.layers import LayerReport

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Looks:
    """How a type of result shows itself; `rows` is what pandas gets."""

    lines: Callable[[Any], Iterable[str]]
    tables: Callable[[Any], Iterable[Table]]
    rows: Callable[[Any], Sequence[Row]]


# --- what each has to say --------------------------------------------------------------------


def _calibration_rows(each: Calibration) -> list[Row]:
    return [
        {"tensor": name, "minimum": seen.low, "maximum": seen.high, "channels": seen.channels,
         "values": seen.count, "not_finite": seen.not_finite}
        for name, seen in each.tensors.items()
    ]  # fmt: skip


def _calibration_lines(each: Calibration) -> Iterable[str]:
    yield f"{count(each.samples, 'sample')}, {count(len(each.tensors), 'tensor')}"
    if each.note:
        yield each.note


def _calibration_tables(each: Calibration) -> Iterable[Table]:
    yield table(
        "Tensor | >Minimum | >Maximum | >Channels",
        [(name, number(seen.low), number(seen.high), str(seen.channels))
         for name, seen in each.tensors.items()],
    )  # fmt: skip


def _equalization_rows(each: EqualizationResult) -> list[Row]:
    return [
        {"class": record.tensors[0], "channels": record.channels, "scaled": record.scaled,
         "least_octave": record.exponents[0], "most_octave": record.exponents[1],
         "spread_before": record.spread_before, "spread_after": record.spread_after,
         "gain_db": record.gain}
        for record in each.equalization.classes
    ]  # fmt: skip


def _quantization_rows(each: QuantizationResult) -> list[Row]:
    return [
        {"node": name, "becomes": becomes, "reason": reason}
        for name, status in each.plan.nodes.items()
        for becomes, reason in [quantization.describe(status, each.plan)]
    ]


def _quantization_tables(each: QuantizationResult) -> Iterable[Table]:
    yield table(
        "Node | Reason",
        [(name, status.reason) for name, status in each.plan.nodes.items()
         if isinstance(status, Float)],
        title="Left in float",
    )  # fmt: skip
    if each.mixed is not None:
        yield quantization.mixed_table(each.mixed)
    if each.search is not None:
        yield quantization.search_table(each.search)


def _validation_rows(each: Validation) -> list[Row]:
    return [
        {"model": row.model, "execution": row.execution, "size_bytes": row.size, **row.values}
        for row in each.rows
    ]


def _validation_lines(each: Validation) -> Iterable[str]:
    for row in each.rows:
        values = ", ".join(
            f"{name} {validation.cell(row, name)} {row.units[name]}".rstrip() for name in row.values
        )
        yield f"{row.model} ({row.execution}): {values}"
    failed = [gate for gate in each.gates if not gate.passed]
    if each.gates:
        yield f"{count(len(each.gates), 'gate')}, {len(failed):,} failed"
    yield f"on {count(each.samples, 'sample')}"


def _validation_tables(each: Validation) -> Iterable[Table]:
    yield validation.metric_table(each, [Path(row.model) for row in each.rows])
    yield validation.gate_table(each)
    for report in each.layers:
        yield from layers.tables(report, whole=False)


def _layer_rows(each: LayerReport) -> list[Row]:
    ranking = layers.document(Path(each.model), each)["ranking"]
    return [dict(row) for row in ranking]


LOOKS: Mapping[type[Shown], _Looks] = {
    Calibration: _Looks(_calibration_lines, _calibration_tables, _calibration_rows),
    EqualizationResult: _Looks(
        lambda each: equalization.summary(each.equalization),
        lambda each: equalization.tables(each.equalization),
        _equalization_rows,
    ),
    QuantizationResult: _Looks(quantization.summary, _quantization_tables, _quantization_rows),
    Validation: _Looks(_validation_lines, _validation_tables, _validation_rows),
    LayerReport: _Looks(
        lambda each: layers.summary(Path(each.model), each),
        lambda each: layers.tables(each, whole=False),
        _layer_rows,
    ),
}


# --- the three ways --------------------------------------------------------------------------


def line(result: Shown) -> str:
    """`repr`: the type and what every reader needs."""
    return f"{type(result).__name__}({'; '.join(LOOKS[type(result)].lines(result))})"


def html(result: Shown) -> str:
    """What a notebook shows: the lines, and the tables that are not too long to read."""
    looks = LOOKS[type(result)]
    parts = [f"<p>{'<br>'.join(map(markup.escape, looks.lines(result)))}</p>"]
    parts += [_table(content) for content in looks.tables(result) if content.rows]
    return f"<div>{''.join(parts)}</div>"


MOST_ROWS = 50
"""Rows of a table in a notebook."""


def _table(content: Table) -> str:
    def cells(tag: str, texts: Iterable[str]) -> str:
        found = []
        for column, text in zip(content.columns, texts, strict=True):
            style = f' style="text-align:{"right" if column.numeric else "left"}"'
            found.append(f"<{tag}{style}>{markup.escape(text)}</{tag}>")
        return f"<tr>{''.join(found)}</tr>"

    head = cells("th", (column.header for column in content.columns))
    body = "".join(cells("td", row) for row in content.rows[:MOST_ROWS])
    rest = len(content.rows) - MOST_ROWS
    caption = f"<caption>{markup.escape(content.title)}</caption>" if content.title else ""
    more = f"<p>{count(rest, 'more row')}: to_pandas() has them</p>" if rest > 0 else ""
    return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{more}"


def frame(result: Shown) -> Any:
    """The rows as a `pandas.DataFrame`."""
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("to_pandas needs pandas", hint="pip install pandas") from None
    return pd.DataFrame(list(LOOKS[type(result)].rows(result)))
