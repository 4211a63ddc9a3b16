"""The verdict of a validation: tables, one line for each gate, a document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxq.report import latency, layers
from onnxq.report.outputs import output_document, output_rows
from onnxq.report.table import Table, count, decibels, decibels_within, number, table
from onnxq.validation.metrics import CLOSENESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnxq.commands.validate import Validation
    from onnxq.validation.compare import Row
    from onnxq.validation.gates import Gate

FEW_EQUAL = 50
"""% of the values of an output of integers below which it is another one."""


def metric_table(result: Validation, paths: Sequence[Path]) -> Table:
    """One row for each model and execution, the float model first.

    Args:
        result: the validation.
        paths: the model file of each row.
    """
    units = result.rows[0].units
    columns = [
        (name, key) for name in units for key in result.rows[0].details.get(name, {name: 0.0})
    ]
    heads = [_head(name if key == name else f"{name} {key}", units[name]) for name, key in columns]
    several = any(len(output.parts) > 1 or len(row.outputs) > 1
                  for row in result.rows for output in row.outputs)  # fmt: skip
    worst = ["Worst output"] if several and any(row.decisive for row in result.rows) else []
    return table(
        " | ".join(["Model", "Execution", ">Size (MB)", *heads, *worst]),
        [
            (
                str(path),
                row.execution,
                number(row.size / 1e6, 3),
                *(_with_error(row, name, key) for name, key in columns),
                *(next(iter(row.decisive.values()), "") for _ in worst),
            )
            for row, path in zip(result.rows, paths, strict=True)
        ],
    )  # fmt: skip


def samples_note(result: Validation) -> str:
    """What the numbers rest on."""
    alone = result.samples == 1 and any(row.errors for row in result.rows)
    notes = (
        count(result.samples, "sample"),
        result.note,
        "which does not tell how far the SQNR of others may be off" if alone else "",
    )
    return ", ".join(filter(None, notes))


def _head(name: str, unit: str) -> str:
    return f">{name} ({unit})" if unit else f">{name}"


def cell(row: Row, metric: str) -> str:
    """A metric's value, without its unit."""
    return shown(row.values[metric], row.units[metric])


def _with_error(row: Row, name: str, key: str) -> str:
    """A metric's value with its standard error, where that is told."""
    value, error = row.details.get(name, row.values).get(key, math.nan), row.errors.get(name)
    return shown(value, row.units[name]) if error is None else decibels_within(value, error)


def shown(value: float, unit: str) -> str:
    """A value without its unit."""
    if unit == "dB":
        return decibels(value)
    return f"{value:.2f}" if unit == "%" and not math.isnan(value) else number(value, 6)


def output_table(result: Validation, paths: Sequence[Path]) -> Table:
    """Each output of each quantized model against the float one's, its groups of slices below it.

    Args:
        result: the validation.
        paths: the model file of each row.
    """
    rows = [
        (str(path), row.execution, *cells)
        for row, path in zip(result.rows, paths, strict=True)
        for output in row.outputs
        for cells in output_rows(output)
    ]
    return table(
        "Model | Execution | Output | >SQNR (dB) | >Cosine | >Largest error | >Equal (%) "
        "| >Other shape (%)",
        rows,
        title="Outputs",
    )


def gate_table(result: Validation) -> Table:
    """What was demanded and what was found."""
    where = any(gate.decisive for gate in result.gates)
    return table(
        "Gate | Model | Execution | >Limit | >Found | Verdict" + (" | Worst output" * where),
        [
            (gate.name, gate.model, gate.execution, gate_with_unit(gate.limit, gate),
             gate_with_unit(gate.value, gate), "passed" if gate.passed else "failed",
             *([gate.decisive] if where else []))
            for gate in result.gates
        ],
        title="Gates",
    )  # fmt: skip


def unseen_by_gates(result: Validation, paths: Sequence[Path]) -> Iterator[str]:
    """Outputs that gates pass over although little of them is as it was: integers and booleans,
    where the first metric, which gates look at, is one of closeness.

    Args:
        result: the validation.
        paths: the model file of each row.
    """
    by_closeness = next(iter(result.rows[0].units)) in CLOSENESS
    if not (result.gates and by_closeness):
        return
    for row, path in zip(result.rows, paths, strict=True):
        for output in row.outputs:
            if not output.is_float and output.equal < FEW_EQUAL:
                yield (
                    f"note: {path} ({row.execution}): {output.name!r} holds no floats, so no gate "
                    f"looks at it: {output.equal:.3g} % of its values are as in float"
                )


def verdict(gate: Gate) -> str:
    """A failed gate in one line."""
    relation = "above" if gate.value > gate.limit else "below"
    limit, found = (gate_with_unit(value, gate) for value in (gate.limit, gate.value))
    where = f" in {gate.decisive}" if gate.decisive else ""
    beyond = "nothing was compared" if math.isnan(gate.value) else f"{relation} the limit"
    return (
        f"failed: --{gate.name} {limit}: {gate.model} ({gate.execution}) is at {found}{where}, "
        f"{beyond}"
    )


def gate_with_unit(value: float, gate: Gate) -> str:
    """A limit, or what was found, with its unit."""
    return f"{number(value)} {gate.unit}".rstrip()


def document(
    result: Validation, paths: Sequence[Path], quantized: Sequence[Path]
) -> dict[str, Any]:
    """The document of `onnxq validate --json`.

    Args:
        result: the validation.
        paths: the model file of each row.
        quantized: the quantized models' files.
    """
    return {
        "passed": result.passed,
        "samples": result.samples,
        "note": result.note,
        "rows": [
            {
                "model": path, "execution": row.execution, "size_bytes": row.size,
                "metrics": {
                    name: _metric(row, name) for name in row.values
                },
                "outputs": [output_document(output) for output in row.outputs],
            }
            for row, path in zip(result.rows, paths, strict=True)
        ],
        "gates": result.gates,
        "kernels": result.kernels,
        "layers": [
            layers.document(path, each)
            for path, each in zip(quantized, result.layers, strict=False)
        ],
        "latency": result.latency and latency.document(result.latency, [paths[0], *quantized]),
    }  # fmt: skip


def _metric(row: Row, name: str) -> dict[str, Any]:
    return {
        "value": row.values[name],
        "unit": row.units[name],
        "output": row.decisive.get(name, ""),
        "standard_error": row.errors.get(name),
        "values": row.details.get(name, {}),
    }
