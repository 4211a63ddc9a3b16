"""The calibration table as a table and as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.calibration.findings import find_oddities, too_few_samples
from onnxq.report.table import Table, number, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.calibration.costs import Costs
    from onnxq.calibration.statistics import Calibration
    from onnxq.calibration.table import Row
    from onnxq.model.model import Model


def table_of(rows: Sequence[Row], *, digits: int = 5) -> Table:
    """The table with MATLAB's columns; 9 digits tell every float32 from its neighbours."""
    return table(
        "Optimized Layer Name | Network Layer Name | Learnables / Activations | >MinValue "
        "| >MaxValue",
        [
            (row.optimized_layer, row.network_layer, row.kind, number(row.minimum, digits),
             number(row.maximum, digits))
            for row in rows
        ],
    )  # fmt: skip


def summary(calibration: Calibration, output: Path | None) -> dict[str, Any]:
    """What one calibration is of, without its table."""
    return {
        "output": output,
        "model_fingerprint": calibration.provenance.model,
        "data_fingerprint": calibration.data,
        "preprocessing": calibration.provenance.preprocessing,
        "note": calibration.note,
        "samples": calibration.samples,
        "shards": calibration.shards,
        "tensors": len(calibration.tensors),
        "not_finite": {
            name: tensor.not_finite
            for name, tensor in calibration.tensors.items()
            if tensor.not_finite
        },
        "findings": find_oddities(calibration),
        "too_few_samples": too_few_samples(calibration),
        "gradients": None if calibration.costs is None else _of_costs(calibration.costs),
    }


def _of_costs(costs: Costs) -> dict[str, Any]:
    return {"samples": costs.samples, "tensors": len(costs.tensors), "refused": costs.refused}


def document(
    model: Model, calibration: Calibration, rows: Sequence[Row], output: Path | None
) -> dict[str, Any]:
    """The document of `onnxq calibrate --json`."""
    return {"model": model.source, **summary(calibration, output), "table": rows}
