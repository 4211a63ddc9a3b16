"""What stays in float, by reasons: a row each, with the operators that it holds for."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from onnxq.model.arithmetic import computes_in_float
from onnxq.model.status import Float
from onnxq.report.table import Table, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnxq.model.graph import Graph
    from onnxq.quantization.plan import QuantizationPlan

OPERATORS = 6
"""Operators that a row names."""

EXACT = "shapes, integers and moves: no arithmetic on floats (-v lists them)"
"""Said of nodes whose reasons nobody needs."""


def why_float(plan: QuantizationPlan) -> dict[str, str]:
    """Node → why it stays in float."""
    found = plan.nodes.items()
    return {name: each.reason for name, each in found if isinstance(each, Float)}


def by_reason(graph: Graph, reasons: Mapping[str, str]) -> Table:
    """The reasons, the most frequent first.

    Args:
        reasons: node → why it stays in float; what is not in the graph counts as arithmetic.
    """
    groups: dict[str, list[_Left]] = defaultdict(list)
    hidden = 0
    for name, reason in reasons.items():
        node = graph.by_name.get(name)
        if node is not None and not computes_in_float(graph, node):
            hidden += 1
            continue
        left = _Left(name, "" if node is None else node.op_type, reason)
        groups[in_general(reason, left.op_type)].append(left)
    rows = [_row(*each) for each in sorted(groups.items(), key=lambda each: -len(each[1]))]
    if hidden:
        rows.append((f"{hidden:,}", "", EXACT))
    return table(">Nodes | Which | Reason", rows, title="Left in float")


class _Left(NamedTuple):
    """A node that stays in float."""

    name: str
    op_type: str
    reason: str


def _row(reason: str, nodes: list[_Left]) -> tuple[str, str, str]:
    """A reason that holds for one node, or all alike, is told as it is."""
    first, *others = nodes
    alike = len({each.reason for each in nodes}) == 1
    operators = counted(each.op_type for each in nodes if each.op_type)
    which = operators if others else f"{first.op_type} {first.name}".strip()
    return f"{len(nodes):,}", which, first.reason if alike else reason


def counted(operators: Iterable[str]) -> str:
    """Such as "Add ×32, Mul ×16, Softmax"."""
    found = Counter(operators).most_common()
    named = [f"{op} ×{times:,}" if times > 1 else op for op, times in found[:OPERATORS]]
    return ", ".join([*named, *[f"{len(found) - OPERATORS} more"] * (len(found) > OPERATORS)])


def in_general(reason: str, op_type: str) -> str:
    """A reason that holds for others too: without names of tensors, nodes and the operator."""
    unnamed = re.sub(r"'[^']*'", "…", reason)
    return re.sub(rf"\b{re.escape(op_type)}\b", "it", unnamed) if op_type else unnamed
