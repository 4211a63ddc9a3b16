"""How results show themselves in a shell, a notebook and pandas: see `onnxq.shown`."""

from __future__ import annotations

import html as markup
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.calibration.statistics import Calibration
from onnxq.commands.bench import Timing
from onnxq.commands.equalize import EqualizationResult
from onnxq.commands.inspect import Inspection, Planned
from onnxq.commands.tune import Tuning
from onnxq.commands.validate import Validation
from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.quantization.details import details as details_of
from onnxq.quantization.request import QuantizationResult
from onnxq.report import (
    account,
    details,
    equalization,
    latency,
    layers,
    plan,
    quantization,
    raised,
    tuning,
    validation,
)
from onnxq.report import nodes as node_texts
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
        for becomes, reason in [node_texts.describe(status, each.plan)]
    ]


def _quantization_lines(each: QuantizationResult) -> Iterable[str]:
    yield from account.lines(each)
    yield from quantization.summary(each, whole=False)


def _quantization_tables(each: QuantizationResult) -> Iterable[Table]:
    yield account.float_table(each)
    nodes = Graph(each.prepared.model).nodes
    yield node_texts.plan_table(each.plan, {node.name: node.op_type for node in nodes})
    if each.mixed is not None:
        yield raised.mixed_table(each.mixed)
    if each.search is not None:
        yield raised.search_table(each.search)


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


def _timing_tables(each: Timing) -> Iterable[Table]:
    names = [row.model for row in each.rows]
    yield latency.latency_table(each, names)
    yield latency.operator_table(each, names, whole=True)


def _timing_rows(each: Timing) -> list[Row]:
    return [
        {"model": row.model, "provider": row.provider, "size_bytes": row.size,
         "wall_ms": row.wall.median, "cpu_ms": row.cpu.median, "ratio": row.ratio.median}
        for row in each.rows
    ]  # fmt: skip


def _tuning_tables(each: Tuning) -> Iterable[Table]:
    yield tuning.tuning_table(each)
    yield tuning.failed_table(each)


def _model_tables(each: Model) -> Iterable[Table]:
    operators = Counter(node.op_type for node in each.message.graph.node).most_common()
    yield table(
        "Operator | >Nodes",
        [(name, f"{number:,}") for name, number in operators],
        title="Operators",
    )


def _model_rows(each: Model) -> list[Row]:
    return [
        {"node": node.name, "operator": node.op_type, "inputs": list(node.input),
         "outputs": list(node.output)}
        for node in each.message.graph.node
    ]  # fmt: skip


def _inspection_tables(each: Inspection) -> Iterable[Table]:
    if isinstance(each.planned, Planned):
        yield from plan.tables(each.planned, whole=True)
    else:
        yield from details.tables(each.details)


def _inspection_rows(each: Inspection) -> list[Row]:
    if isinstance(each.planned, Planned):
        found = plan.document(each.planned) or {}
        return list(found["nodes"])
    return [
        {"layer": row.layer, "parameter": row.parameter, "format": row.format, "shape": row.shape}
        for row in each.details.learnables
    ]


def _inspection_lines(each: Inspection) -> Iterable[str]:
    found, said = each.details, list(plan.lines(each.planned))
    if found.is_quantized:
        target = found.target or "unknown, another tool wrote it"
        said.append(f"target: {target}; {count(len(found.layers), 'quantized layer')}")
    if each.findings is not None:
        said.append(details.lint_summary(each.findings, each.rules_of))
    if each.kernels is not None:
        said.append(details.kernel_summary(each.kernels))
    return said or ["float"]


LOOKS: Mapping[type[Shown], _Looks] = {
    Calibration: _Looks(_calibration_lines, _calibration_tables, _calibration_rows),
    EqualizationResult: _Looks(
        lambda each: equalization.summary(each.equalization),
        lambda each: equalization.tables(each.equalization),
        _equalization_rows,
    ),
    QuantizationResult: _Looks(_quantization_lines, _quantization_tables, _quantization_rows),
    Validation: _Looks(_validation_lines, _validation_tables, _validation_rows),
    Tuning: _Looks(tuning.lines, _tuning_tables, tuning.frame_rows),
    Timing: _Looks(latency.lines, _timing_tables, _timing_rows),
    LayerReport: _Looks(
        lambda each: layers.summary(Path(each.model), each),
        lambda each: layers.tables(each, whole=True),
        _layer_rows,
    ),
    Inspection: _Looks(_inspection_lines, _inspection_tables, _inspection_rows),
    Model: _Looks(lambda each: details.summary(each, details_of(each)), _model_tables, _model_rows),
}


# --- the three ways --------------------------------------------------------------------------


def line(result: Shown) -> str:
    """`repr`: the type and what every reader needs."""
    return f"{type(result).__name__}({'; '.join(LOOKS[type(result)].lines(result))})"


STYLE = """
.onnxq {font-family: system-ui, sans-serif; font-size: 13px; line-height: 1.45}
.onnxq .first {font-weight: 600}
.onnxq table {border-collapse: collapse; font-variant-numeric: tabular-nums}
.onnxq th, .onnxq td {padding: .15em .8em .15em 0; border-bottom: 1px solid #8884}
.onnxq td {vertical-align: top}
.onnxq th {position: sticky; top: 0; background: Canvas; color: CanvasText}
.onnxq .rows {max-height: 28em; overflow: auto; margin: .2em 0 .8em}
.onnxq summary {cursor: pointer; font-weight: 600; margin: .4em 0}
"""
"""Follows the page, light or dark; where a notebook is not trusted it is left out."""

OPEN_ROWS = 15
"""Rows up to which a table is shown open."""


def html(result: Shown) -> str:
    """What a notebook shows: the lines, and the tables with all their rows."""
    looks = LOOKS[type(result)]
    first, *rest = map(markup.escape, looks.lines(result))
    parts = [f'<p><span class="first">{first}</span>{"".join(f"<br>{each}" for each in rest)}</p>']
    parts += [_table(content) for content in looks.tables(result) if content.rows]
    return f'<div class="onnxq"><style>{STYLE}</style>{"".join(parts)}</div>'


def _table(content: Table) -> str:
    def cells(tag: str, texts: Iterable[str]) -> str:
        found = []
        for column, text in zip(content.columns, texts, strict=True):
            style = f' style="text-align:{"right" if column.numeric else "left"}"'
            shown = markup.escape(text).replace("\n", "<br>")
            found.append(f"<{tag}{style}>{shown}</{tag}>")
        return f"<tr>{''.join(found)}</tr>"

    head = cells("th", (column.header for column in content.columns))
    body = "".join(cells("td", row) for row in content.rows)
    title = markup.escape(content.title or "Table")
    opened = " open" * (len(content.rows) <= OPEN_ROWS)
    return (
        f"<details{opened}><summary>{title} ({count(len(content.rows), 'row')})</summary>"
        f'<div class="rows"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
        "</details>"
    )


def frame(result: Shown) -> Any:
    """The rows as a `pandas.DataFrame`."""
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("to_pandas needs pandas", hint="pip install pandas") from None
    return pd.DataFrame(list(LOOKS[type(result)].rows(result)))
