"""Functions of one tensor, value by value, that are written out as several nodes.

A GELU is x·(1 + erf(x/√2))/2, a SiLU x·sigmoid(x), a Mish x·tanh(softplus(x)): each way such a
function is written has an operator with several operands, all of them made from the same tensor by
operators that look at one value at a time. The rows of the operator table say which do.
"""

from __future__ import annotations

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import operator_of

LARGEST = 16
"""Nodes in a unit: the longest known way to write one, a GELU with powers and tanh, has 9."""


def before_join(graph: Graph, node: Node) -> tuple[Node, ...]:
    """The nodes between one tensor and a node that joins several functions of it, value by value.

    The tensor is the last one from which all operands come. () where the operands come from
    different tensors or by other operators, and where nothing stands between.
    """
    row = operator_of(node)
    if row is None or not row.elementwise:
        return ()
    open_ends = _variable(graph, node)
    inside: dict[int, Node] = {}
    while len(open_ends) > 1 and len(inside) < LARGEST:
        made = [graph.producers.get(name) for name in open_ends]
        last = max((each for each in made if each is not None), key=lambda n: n.index, default=None)
        row = None if last is None else operator_of(last)
        if last is None or row is None or not row.elementwise:
            return ()
        inside[last.index] = last
        open_ends = (open_ends - set(last.outputs)) | _variable(graph, last)
    return tuple(inside[index] for index in sorted(inside)) if len(open_ends) == 1 else ()


def _variable(graph: Graph, node: Node) -> set[str]:
    """What the node reads that is no constant."""
    return {name for name in node.inputs if name and graph.constant(name) is None}
