"""Which nodes of a QDQ model ONNX Runtime's CPU provider runs in integers, and why others not.

Counted in the graph it really runs, after its optimizations but those of the memory layout, which
rename nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from onnxq.emulation.agreement import INTEGER_KERNELS
from onnxq.emulation.layers import Fused
from onnxq.emulation.plan import plan_emulation
from onnxq.model.graph import Node
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.operators import IntegerForm, QuantizedRule, is_quantize, operator_of
from onnxq.model.qdq import QdqGraph
from onnxq.model.session import open_session, with_graph
from onnxq.model.status import Float

_COMPUTING = frozenset({QuantizedRule.WEIGHTED, QuantizedRule.OWN})


@dataclass(frozen=True)
class Kernel:
    """What ONNX Runtime makes of a node that has an integer kernel.

    Attributes:
        kernel: the operator it runs; "" where the node went into another.
        integer: whether that is one on integers.
        reason: why not; "" where it is.
    """

    node: str
    op_type: str
    kernel: str
    integer: bool
    reason: str


def kernels(model: Model) -> tuple[Kernel, ...]:
    """The nodes that could run in integers (weighted, pooling, Add, …), in order.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    source, _ = normalize(model)
    graph = QdqGraph(source)
    _, optimized = with_graph(partial(open_session, source, layout=False))
    ran = {node.name: node.op_type for node in optimized.graph.node}
    plan = plan_emulation(graph)
    found = []
    for node in graph.nodes:
        row, status = operator_of(node), plan.get(node.name)
        if row is None or row.quantized not in _COMPUTING or row.integer_form is IntegerForm.NONE:
            continue
        if status is None or isinstance(status, Fused):
            continue
        kernel = ran.get(node.name, "")
        integer = kernel.startswith(INTEGER_KERNELS)
        reason = ""
        if not integer:
            reason = status.reason if isinstance(status, Float) else _reason(graph, node)
        found.append(Kernel(node.name, node.op_type, kernel, integer, reason))
    return tuple(found)


def _reason(graph: QdqGraph, node: Node) -> str:
    """Why ONNX Runtime did not take a node that the emulator computes in integers."""
    uses = graph.consumers(node.output)
    if graph.is_exposed(node.output) or not all(is_quantize(use.node) for use in uses):
        return f"its result is not quantized, as {node.op_type}'s integer kernel needs"
    return "ONNX Runtime has no integer kernel for these types and attributes"
