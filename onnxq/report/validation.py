"""The verdict of a validation: tables, one line for each gate, a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.report import layers
from onnxq.report.table import Table, decibels, number, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.commands.validate import Validation
    from onnxq.validation.compare import Row
    from onnxq.validation.gates import Gate


def metric_table(result: Validation, paths: Sequence[Path]) -> Table:
    """One row for each model and execution, the float model first.

    Args:
        result: the validation.
        paths: the model file of each row.
    """
    units = result.rows[0].units
    heads = [f">{name} ({unit})" if unit else f">{name}" for name, unit in units.items()]
    return table(
        " | ".join(["Model", "Execution", ">Size (MB)", *heads]),
        [
            (
                str(path),
                row.execution,
                number(row.size / 1e6, 3),
                *(cell(row, name) for name in units),
            )
            for row, path in zip(result.rows, paths, strict=True)
        ],
    )


def cell(row: Row, metric: str) -> str:
    """A metric's value, without its unit."""
    value, unit = row.values[metric], row.units[metric]
    if unit == "dB":
        return decibels(value)
    return f"{value:.2f}" if unit == "%" else number(value, 6)


def gate_table(result: Validation) -> Table:
    """What was demanded and what was found."""
    return table(
        "Gate | Model | Execution | >Limit | >Found | Verdict",
        [
            (gate.name, gate.model, gate.execution, gate_with_unit(gate.limit, gate),
             gate_with_unit(gate.value, gate), "passed" if gate.passed else "failed")
            for gate in result.gates
        ],
        title="Gates",
    )  # fmt: skip


def verdict(gate: Gate) -> str:
    """A failed gate in one line."""
    relation = "above" if gate.name == "max-drop" else "below"
    limit, found = (gate_with_unit(value, gate) for value in (gate.limit, gate.value))
    return (
        f"failed: --{gate.name} {limit}: {gate.model} ({gate.execution}) is at {found}, "
        f"{relation} the limit"
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
                    name: {"value": value, "unit": row.units[name]}
                    for name, value in row.values.items()
                },
            }
            for row, path in zip(result.rows, paths, strict=True)
        ],
        "gates": result.gates,
        "layers": [
            layers.document(path, each)
            for path, each in zip(quantized, result.layers, strict=False)
        ],
    }  # fmt: skip
