"""The layers of a quantized model, ranked: lines, tables, a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.report.table import Table, count, decibels, in_decibels, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnxq.validation.layers import LayerReport

SHOWN = 20
"""Layers listed where not all are asked for."""


def summary(path: Path, report: LayerReport) -> Iterator[str]:
    """What the layers add up to."""
    if not report.layers:
        yield f"{path}: no quantized layer could be measured by itself"
        return
    yield (
        f"{path}: {in_decibels(report.together)} SQNR on {count(report.probes, 'sample')}; "
        f"the errors of {count(len(report.layers), 'layer')} add up to "
        f"{in_decibels(report.sum_of_parts)}"
    )
    if any(layer.estimated for layer in report.layers):
        yield (
            f"{path}: the worst layers were run on all of these, "
            f"the others (~) estimated on {count(report.first_look, 'sample')}"
        )


def tables(report: LayerReport, *, whole: bool) -> Iterator[Table]:
    """The ranking, all of it or the top, and what could not be ranked."""
    shown = report.layers if whole else report.layers[:SHOWN]
    rest = report.layers[len(shown) :]
    rows = [
        (layer.name, layer.op_type, f"{layer.share:.1f}",
         ("~" if layer.estimated else "") + decibels(layer.alone),
         decibels(layer.own), decibels(layer.standing), layer.causes.note)
        for layer in shown
    ]  # fmt: skip
    if rest:
        share = sum(layer.share for layer in rest)
        rows.append((f"{len(rest):,} more (-v)", "", f"{share:.1f}", "", "", "", ""))
    yield table(
        "Layer | Operator | >Share (%) | >Alone (dB) | >Own error (dB) | >As it stands (dB) "
        "| Error from",
        rows,
        title="Share of the output error",
    )
    yield table(
        "Layer | Operator | Reason",
        [(each.name, each.op_type, each.reason) for each in report.unmatched],
        title="Not measured by itself",
    )


def document(path: Path, report: LayerReport) -> dict[str, Any]:
    """One element of `layers` in the document of `onnxq validate --json`."""
    return {
        "model": path,
        "samples": report.samples,
        "probes": report.probes,
        "first_look": report.first_look,
        "together_db": report.together,
        "sum_of_parts_db": report.sum_of_parts,
        "warning": report.warning,
        "ranking": [
            {
                "layer": layer.name, "operator": layer.op_type, "output": layer.output,
                "share_percent": layer.share, "alone_db": layer.alone, "own_db": layer.own,
                "estimated": layer.estimated,
                "standing_db": layer.standing, "cause": layer.causes.note,
                "weights_percent": layer.causes.weights,
                "clipped_percent": layer.causes.clipped,
                "clipping_percent": layer.causes.clipping,
                "input_levels_percent": layer.causes.input_levels,
                "weight_levels_percent": layer.causes.weight_levels,
            }
            for layer in report.layers
        ],
        "unmatched": [
            {"layer": each.name, "operator": each.op_type, "reason": each.reason}
            for each in report.unmatched
        ],
    }  # fmt: skip
