"""Which nodes compute with float numbers, and which handle shapes and integers or move values."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import TensorProto

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import ScaleRule, operator_of

_EXACT = frozenset(
    {
        TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
        TensorProto.STRING,
    }
)  # fmt: skip


def computes_in_float(graph: Graph, node: Node) -> bool:
    """Whether a node does arithmetic on float numbers, or takes them from a float table.

    What is of an unknown type counts as float.
    """
    row = operator_of(node)
    if row is None:
        return _has_float(graph, node.inputs) and _has_float(graph, node.outputs)
    data = row.data_of(node)
    if not (_has_float(graph, data) and _has_float(graph, node.outputs)):
        return False
    moves = row.keeps_elements or row.scale is ScaleRule.MOVE
    return not moves or any(graph.is_constant(name) for name in data)


def _has_float(graph: Graph, names: Iterable[str]) -> bool:
    return any(graph.elem_type(name) not in _EXACT for name in names if name)
