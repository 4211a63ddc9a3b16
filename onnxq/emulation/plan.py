"""The plan of the integer machine: what each node of a QDQ model computes, and why some stay float.

docs/emulation.md defines the machine; `onnxq.emulation.write` builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from onnxq.emulation.averages import plan_average
from onnxq.emulation.bounds import product_reach
from onnxq.emulation.layers import AsWritten, Fused, Integer, Product, Status
from onnxq.emulation.qdq import NotInteger, QdqGraph
from onnxq.emulation.rounding import requantization
from onnxq.emulation.sums import plan_sum
from onnxq.model.graph import Node
from onnxq.model.operators import IntegerForm, is_dequantize, is_quantize, operator_of
from onnxq.quantization.plan import Float

_REAL = frozenset(
    {
        onnx.TensorProto.UNDEFINED,
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
)
"""Element types of real values; of the first nothing is known."""


def plan_emulation(graph: QdqGraph) -> Mapping[str, Status]:
    """What becomes of each node, Q and DQ aside.

    Args:
        graph: of a normalized QDQ model with inferred shapes.
    """
    plan: dict[str, Status] = {}
    for node in graph.nodes:
        if node.name in plan or is_quantize(node) or is_dequantize(node):
            continue
        try:
            status = _status(graph, node)
        except NotInteger as reason:
            status = Float(str(reason))
        plan[node.name] = status
        plan |= {name: Fused(node.name) for name in _fused(status)}
    return plan


def _fused(status: Status) -> tuple[str, ...]:
    if isinstance(status, AsWritten):
        return status.fused
    if isinstance(status, Integer) and status.requantization is not None:
        return status.requantization.fused
    return ()


def _status(graph: QdqGraph, node: Node) -> Status:
    row = operator_of(node)
    if row is None:
        raise NotInteger(f"{node.op_type} has no row in the operator table")
    if not any(graph.elem_type(name) in _REAL for name in node.outputs if name):
        raise NotInteger("its result is not a float tensor")
    if row.integer_form is IntegerForm.NONE:
        raise NotInteger(f"{node.op_type} has no integer form")
    return _PLANNERS[row.integer_form](graph, node)


def _plan_product(graph: QdqGraph, node: Node) -> Product:
    first, second = (graph.operand(node.input(position)) for position in (0, 1))
    reached = product_reach(1, first.interval, second.interval)
    return Product((first, second), reached, requantization(graph, node))


def _plan_as_written(graph: QdqGraph, node: Node) -> AsWritten:
    row = operator_of(node)
    assert row is not None  # noqa: S101 - _status saw to it
    for name in row.data_of(node):
        if graph.constant(name) is None:
            graph.operand(name)
    outputs = [name for name in node.outputs if name and graph.elem_type(name) in _REAL]
    if len(outputs) > 1:
        for name in outputs:
            graph.quantizer(name)
        return AsWritten(row.integer_form)
    return AsWritten(row.integer_form, requantization(graph, node).fused)


_PLANNERS: Mapping[IntegerForm, Callable[[QdqGraph, Node], Integer | AsWritten]] = {
    IntegerForm.ACCUMULATE: plan_sum,
    IntegerForm.PRODUCT: _plan_product,
    IntegerForm.AVERAGE: plan_average,
    IntegerForm.VALUE: _plan_as_written,
    IntegerForm.MOVE: _plan_as_written,
}
