"""What quantization did, or would do: in a few lines, as tables and as a document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxq.quantization.plan import Float, QuantizationPlan, Quantized
from onnxq.report import equalization as equalization_report
from onnxq.report.table import Table, count, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnxq.model.model import Model
    from onnxq.quantization.quantize import QuantizationResult


def summary(result: QuantizationResult) -> Iterator[str]:
    """The lines every reader needs."""
    plan = result.plan
    statuses = [each for each in plan.nodes.values() if isinstance(each, Quantized)]
    fused = sum(1 for each in statuses if each.fused_into)
    folded = len(result.normalization.folded_batch_norms)
    yield (
        f"target {plan.target.name}: {len(statuses) - fused:,} of "
        f"{count(len(plan.nodes), 'node')} in int8, {fused:,} more fused into them; "
        f"{count(folded, 'batch norm')} folded"
    )
    if result.equalization is not None:
        yield from equalization_report.summary(result.equalization)
        if result.equalization.clips:
            mode = result.equalization.options.relu6
            yield f"saturating Clips: {mode} ({result.relu6_reason})"
    if result.roundings:
        adaptive = sum(record.adaptive for record in result.roundings)
        layers = count(len(result.roundings), "layer")
        yield f"rounded the weights of {adaptive:,} of {layers} adaptively"
    if result.corrections:
        accepted = sum(record.accepted for record in result.corrections)
        yield f"corrected the biases of {accepted:,} of {count(len(result.corrections), 'layer')}"
    if not math.isnan(result.int8_sqnr):
        yield f"int8 against float: {result.int8_sqnr:.1f} dB SQNR on held-out samples"


def describe(status: Quantized | Float) -> tuple[str, str]:
    """What happens to a node, and why."""
    if isinstance(status, Float):
        return "float", status.reason
    if status.fused_into:
        return "fused", f"into {status.fused_into}"
    return "int8", ""


def plan_table(plan: QuantizationPlan, operators: Mapping[str, str]) -> Table:
    """Every node."""
    return table(
        "Node | Operator | Becomes | Reason",
        [(name, operators.get(name, ""), *describe(each)) for name, each in plan.nodes.items()],
        title="Plan",
    )


def float_table(plan: QuantizationPlan, operators: Mapping[str, str]) -> Table:
    """The nodes that stay in float."""
    return table(
        "Node | Operator | Reason",
        [
            (name, operators.get(name, ""), status.reason)
            for name, status in plan.nodes.items()
            if isinstance(status, Float)
        ],
        title="Left in float",
    )


def document(
    model: Model, result: QuantizationResult, operators: Mapping[str, str], output: Path | None
) -> dict[str, Any]:
    """The document of `onnxq quantize --json`; `output` is null for a dry run."""
    plan = result.plan
    nodes = []
    for name, status in plan.nodes.items():
        becomes, reason = describe(status)
        nodes.append({
            "node": name, "operator": operators.get(name, ""), "becomes": becomes, "reason": reason,
        })  # fmt: skip
    equalization = result.equalization
    return {
        "model": model.source,
        "output": output,
        "target": plan.target.name,
        "options": plan.options,
        "normalization": result.normalization,
        "equalization": equalization and equalization_report.record_document(equalization),
        "relu6_reason": result.relu6_reason,
        "float_sqnr_db": result.float_sqnr,
        "int8_sqnr_db": result.int8_sqnr,
        "roundings": result.roundings,
        "bias_corrections": result.corrections,
        "nodes": nodes,
    }
