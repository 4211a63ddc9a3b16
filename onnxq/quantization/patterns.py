"""Which nodes the user chose by regular expressions on their names, or by their operators."""

from __future__ import annotations

import re
from collections.abc import Iterable

from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.quantization.plan import QuantizationOptions
from onnxq.refusal import Refusal
from onnxq.suggest import suggest


def check_patterns(graph: Graph, options: QuantizationOptions) -> None:
    """Refuse, before the long work, expressions that say nothing about this model.

    Args:
        graph: of the normalized model.

    Raises:
        UsageError: a regular expression is invalid or matches no node; no node has an operator.
    """
    operators = {node.op_type for node in graph.nodes}
    for operator in options.exclude_operators:
        if operator not in operators:
            hint = suggest(operator, sorted(operators), of="the model's operators")
            raise UsageError(f"--exclude-op {operator!r} matches no node", hint=hint)
    names = [node.name for node in graph.nodes]
    for option, patterns in (("--include", options.include), ("--exclude", options.exclude)):
        for pattern in patterns:
            try:
                found = any(re.search(pattern, name) for name in names)
            except re.error as error:
                raise UsageError(
                    f"{option} {pattern!r} is no regular expression: {error}"
                ) from None
            if not found:
                near = suggest(re.sub(r"[\\^$]", "", pattern), names)
                raise UsageError(
                    f"{option} {pattern!r} matches no node",
                    hint=near or "onnxq quantize --dry-run lists their names",
                )


def left_out(graph: Graph, options: QuantizationOptions) -> dict[str, Refusal]:
    """Node name → why the user left it out, of those that are."""

    def matches(name: str, patterns: Iterable[str]) -> bool:
        return any(re.search(pattern, name) for pattern in patterns)

    refusals = {}
    for node in graph.nodes:
        if node.op_type in options.exclude_operators:
            refusals[node.name] = Refusal(f"--exclude-op {node.op_type}")
        elif matches(node.name, options.exclude):
            refusals[node.name] = Refusal("--exclude matches it")
        elif options.include and not matches(node.name, options.include):
            refusals[node.name] = Refusal("no --include matches it")
    return refusals
