"""What `quantize` would do to a float model: a line, a table, a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.commands.inspect import Planned
from onnxq.commands.plan import NOTE
from onnxq.report.account import layers_text, share_text
from onnxq.report.nodes import describe, plan_table
from onnxq.report.reasons import by_reason, why_float

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.refusal import Refusal
    from onnxq.report.table import Table


def lines(planned: Planned | Refusal | None) -> Iterator[str]:
    """What would become quantized."""
    if isinstance(planned, Planned):
        plan, account = planned.plan, planned.account
        parts = (layers_text(account, plan.scheme), share_text(account))
        would = ", ".join(filter(None, parts))
        yield f"onnxq quantize --target {plan.target.name} --scheme {plan.scheme}: {would}"


def note(planned: Planned | Refusal | None) -> str:
    """What a reader must know; "" for nothing."""
    if planned is None:
        return ""
    if isinstance(planned, Planned):
        return f"planned without data: {NOTE}"
    return f"no plan: {planned.reason}"


def tables(planned: Planned, *, whole: bool) -> Iterator[Table]:
    """Every node where `whole`; else what would stay in float, by reasons."""
    plan = planned.plan
    if whole:
        yield plan_table(plan, {node.name: node.op_type for node in planned.graph.nodes})
    else:
        yield by_reason(planned.graph, why_float(plan))


def document(planned: Planned | Refusal | None) -> dict[str, Any] | None:
    """`plan` in the document of `onnxq inspect --json`."""
    if not isinstance(planned, Planned):
        return None
    plan, account = planned.plan, planned.account
    operators = {node.name: node.op_type for node in planned.graph.nodes}
    return {
        "target": plan.target.name,
        "scheme": plan.scheme,
        "layers": account.layers,
        "quantized_layers": account.quantized_layers,
        "multiply_adds": account.multiply_adds,
        "integer_multiply_adds": account.integer_multiply_adds,
        "nodes": [
            {"node": name, "operator": operators.get(name, ""), "becomes": becomes, "reason": why}
            for name, status in plan.nodes.items()
            for becomes, why in [describe(status, plan)]
        ],
    }
