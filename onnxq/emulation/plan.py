"""The plan of the integer machine: what each node of a QDQ model computes, and why some stay float.

docs/emulation.md defines the machine; `onnxq.emulation.write` builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from onnxq.emulation.averages import plan_average
from onnxq.emulation.bounds import product_reach
from onnxq.emulation.integer_products import plan_integer_product
from onnxq.emulation.layers import AsWritten, Fused, Integer, Product, Status
from onnxq.emulation.operands import operand, result
from onnxq.emulation.rounding import requantization
from onnxq.emulation.sums import plan_sum
from onnxq.model.graph import Node
from onnxq.model.operators import (
    IntegerForm,
    Operator,
    is_dequantize,
    is_dynamic_quantize,
    is_integer_product,
    is_quantize,
    operator_of,
    stands_for,
)
from onnxq.model.qdq import QdqGraph
from onnxq.model.status import Float
from onnxq.refusal import Refusal

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


def plan_emulation(graph: QdqGraph, *, saturate: bool = False) -> Mapping[str, Status]:
    """What becomes of each node, Q and DQ aside.

    Args:
        graph: of a normalized QDQ model with inferred shapes.
        saturate: for a machine that adds pairs of products in 16 bits, see `saturation`.
    """
    plan: dict[str, Status] = {}
    for node in graph.nodes:
        if node.name in plan or _only_converts(node):
            continue
        found = _status(graph, node, saturate=saturate)
        status = Float(found) if isinstance(found, Refusal) else found
        plan[node.name] = status
        plan |= {name: Fused(node.name) for name in _fused(status)}
    return plan


def _only_converts(node: Node) -> bool:
    return is_quantize(node) or is_dequantize(node) or is_dynamic_quantize(node)


def _fused(status: Status) -> tuple[str, ...]:
    if isinstance(status, AsWritten):
        return status.fused
    if isinstance(status, Integer) and status.requantization is not None:
        return status.requantization.fused
    return ()


def _status(graph: QdqGraph, node: Node, *, saturate: bool) -> Status | Refusal:
    if is_integer_product(node):
        return plan_integer_product(graph, node, saturate=saturate)
    row = operator_of(node)
    whole = stands_for(node)
    if whole is not None:
        return Refusal(
            f"{node.op_type} is computed by ONNX Runtime's own kernel: the scales of an "
            f"{whole.op_type}'s state follow its steps and threads"
        )
    if row is None:
        return Refusal(f"{node.op_type} has no row in the operator table")
    if not any(graph.elem_type(name) in _REAL for name in node.results):
        return Refusal("its result is not a float tensor")
    if row.integer_form is IntegerForm.NONE:
        return Refusal(f"{node.op_type} has no integer form")
    if row.integer_form is IntegerForm.ACCUMULATE:
        return plan_sum(graph, node, row, saturate=saturate)
    return _PLANNERS[row.integer_form](graph, node, row)


def _plan_product(graph: QdqGraph, node: Node, _row: Operator) -> Product | Refusal:
    first, second = (operand(graph, node.input(position)) for position in (0, 1))
    if isinstance(first, Refusal):
        return first
    if isinstance(second, Refusal):
        return second
    rounding = requantization(graph, node)
    if isinstance(rounding, Refusal):
        return rounding
    reached = product_reach(1, first.parameters.interval, second.parameters.interval)
    return Product((first, second), reached, rounding)


def _plan_as_written(graph: QdqGraph, node: Node, row: Operator) -> AsWritten | Refusal:
    for name in row.data_of(node):
        found = operand(graph, name) if graph.constant(name) is None else None
        if isinstance(found, Refusal):
            return found
    outputs = [name for name in node.results if graph.elem_type(name) in _REAL]
    if len(outputs) > 1:
        refusals = [each for n in outputs if isinstance(each := result(graph, n), Refusal)]
        return refusals[0] if refusals else AsWritten(row.integer_form)
    rounding = requantization(graph, node)
    if isinstance(rounding, Refusal):
        return rounding
    return AsWritten(row.integer_form, rounding.fused, rounding.to.format.name)


_Planner = Callable[[QdqGraph, Node, Operator], "Integer | AsWritten | Refusal"]

_PLANNERS: Mapping[IntegerForm, _Planner] = {
    IntegerForm.PRODUCT: _plan_product,
    IntegerForm.AVERAGE: lambda graph, node, _row: plan_average(graph, node),
    IntegerForm.VALUE: _plan_as_written,
    IntegerForm.MOVE: _plan_as_written,
}
