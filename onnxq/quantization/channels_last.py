"""Layers left in float because of what their runtime would make of an operator beside them.

ONNX Runtime's CPU provider runs integer convolutions with channels along the last axis. It turns
their operands and results, and moves each turn, and each Transpose of the model, behind the
operators that follow, up to where two undo each other. So it also turns a Resize for which it has
no such kernel, and then the model does not run (1.32). A convolution in float is not turned, and
nothing moves past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import (
    Rearrangement,
    data_of,
    is_weighted,
    needs_channels_first,
    operator_of,
)
from onnxq.model.status import Float, Quantized
from onnxq.refusal import Refusal
from onnxq.targets import Target

IMAGES = 4
"""Axes of the tensors behind which it turns a Resize."""


def beside_channels_first(
    graph: Graph, target: Target, nodes: Mapping[str, Quantized | Float]
) -> dict[str, Float]:
    """The layers that the target would run with channels last, beside what has to be first.

    Those in front of it, where a turn comes from; and those behind, if one of the model's own does.
    """
    found: dict[str, Float] = {}
    for node in graph.nodes if target.channels_last else ():
        if not needs_channels_first(graph, node):
            continue
        before = _up_to_layers(node, partial(_producers, graph))
        turned = any(_is_turn(graph, each) for each in before)
        behind = _up_to_layers(node, partial(_readers, graph)) if turned else []
        for where, near in (("behind", before), ("in front of", behind)):
            reason = Refusal(
                f"ONNX Runtime would run {node.op_type} {node.name!r} {where} it with channels "
                "last, which it cannot"
            )
            for each in near:
                last = each.op_type in target.channels_last
                if last and isinstance(nodes[each.name], Quantized):
                    found.setdefault(each.name, Float(reason))
    return found


def _up_to_layers(node: Node, following: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """The nodes on all ways from a node, with the first layer that has a weight on each."""
    found: dict[int, Node] = {}
    stack = [*following(node)]
    while stack:
        each = stack.pop()
        if each.index in found:
            continue
        found[each.index] = each
        if not is_weighted(each):
            stack.extend(following(each))
    return list(found.values())


def _producers(graph: Graph, node: Node) -> Iterable[Node]:
    # Of an operator without a row anything may be data.
    for name in data_of(graph, node) or filter(None, node.inputs):
        if _may_be_image(graph, name) and name in graph.producers:
            yield graph.producers[name]


def _readers(graph: Graph, node: Node) -> Iterable[Node]:
    for name in node.results:
        if _may_be_image(graph, name):
            yield from (use.node for use in graph.consumers(name))


def _may_be_image(graph: Graph, name: str) -> bool:
    return graph.rank(name) in {IMAGES, None}


def _is_turn(graph: Graph, node: Node) -> bool:
    """Whether it reorders the axes of an image."""
    row = operator_of(node)
    axes = row is not None and row.rearranges is Rearrangement.AXES
    return axes and _may_be_image(graph, node.input(0))
