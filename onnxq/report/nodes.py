"""What becomes of each node of a plan, as words and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.model.status import Float, Quantized
from onnxq.report.table import Table, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.model.narrow import Narrowing
    from onnxq.quantization.plan import QuantizationPlan


def wider_scheme(plan: QuantizationPlan) -> str:
    """What is said of nodes that compute with the wider scheme; "" where there is none."""
    return f"in {plan.scheme.wider}" if plan.scheme.wider is not None else ""


def describe(status: Quantized | Float, plan: QuantizationPlan) -> tuple[str, str]:
    """What happens to a node, and why; or in which scheme, where that is not the plan's."""
    if isinstance(status, Float):
        return "float", status.reason
    if status.fused_into:
        return "fused", f"into {status.fused_into}"
    return "quantized", wider_scheme(plan) if status.scheme == plan.scheme.wider else ""


def plan_table(plan: QuantizationPlan, operators: Mapping[str, str]) -> Table:
    """Every node."""
    return table(
        "Node | Operator | Becomes | Reason",
        [
            (name, operators.get(name, ""), *describe(each, plan))
            for name, each in plan.nodes.items()
        ],
        title="Plan",
    )


def narrowing_table(narrowing: Narrowing) -> Table:
    """Nodes that stay in float32 although float16 was asked for, and why."""
    return table(
        "Node | Reason",
        [(each.node, each.reason) for each in narrowing.kept],
        title="Kept in float32",
    )
