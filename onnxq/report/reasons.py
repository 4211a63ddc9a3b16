"""What stays in float, by reasons: a row each, with the operators that it holds for."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from onnxq.model.arithmetic import computes_in_float
from onnxq.report.table import Table, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnxq.model.graph import Graph

OPERATORS = 6
"""Operators that a row names."""

EXACT = "shapes, integers and moves: no arithmetic on floats (-v lists them)"
"""Said of nodes whose reasons nobody needs."""


def by_reason(graph: Graph, reasons: Mapping[str, str]) -> Table:
    """The reasons, the most frequent first.

    Args:
        reasons: node of the graph → why it stays in float.
    """
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    hidden = 0
    for node in graph.nodes:
        if node.name not in reasons:
            continue
        if computes_in_float(graph, node):
            reason = reasons[node.name]
            groups[in_general(reason, node.op_type)].append((node.op_type, reason))
        else:
            hidden += 1
    rows = [_row(*each) for each in sorted(groups.items(), key=lambda each: -len(each[1]))]
    if hidden:
        rows.append((f"{hidden:,}", "", EXACT))
    return table(">Nodes | Operators | Reason", rows, title="Left in float")


def _row(reason: str, nodes: list[tuple[str, str]]) -> tuple[str, str, str]:
    alike = len({each for _, each in nodes}) == 1
    return f"{len(nodes):,}", counted(op for op, _ in nodes), nodes[0][1] if alike else reason


def counted(operators: Iterable[str]) -> str:
    """Such as "Add ×32, Mul ×16, Softmax"."""
    found = Counter(operators).most_common()
    named = [f"{op} ×{times:,}" if times > 1 else op for op, times in found[:OPERATORS]]
    return ", ".join([*named, *[f"{len(found) - OPERATORS} more"] * (len(found) > OPERATORS)])


def in_general(reason: str, op_type: str) -> str:
    """A reason that holds for others too: without names of tensors, nodes and the operator."""
    unnamed = re.sub(r"'[^']*'", "…", reason)
    return re.sub(rf"\b{re.escape(op_type)}\b", "it", unnamed)
