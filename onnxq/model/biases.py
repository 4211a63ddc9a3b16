"""The bias of a weighted operator: an input of its own, or the constant of the Add behind it.

Exporters write a linear layer as MatMul and Add, since MatMul takes no bias; of matrices it is Gemm
once `onnxq.model.affine` has been here, in more axes both stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import OffsetRule, operator_of
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal

Array = NDArray[Any]


@dataclass(frozen=True)
class BiasSite:
    """Input `position` of node `node`, where a bias is or can be written.

    Attributes:
        value: the bias, 0 where there is none; a number for each output channel, (outputs,), added
            to it reaches that channel.
        output: the tensor in which the bias is contained.
    """

    node: str
    position: int
    value: Array
    output: str


def bias_site(graph: Graph, node: Node, layout: WeightLayout) -> BiasSite | Refusal:
    """Where a weighted node's bias is; or why it cannot be changed."""
    if layout.takes_bias:
        bias = graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
        vector = None if bias is None else layout.bias_vector(bias)
        if vector is None:
            return Refusal("its bias is computed at run time or differs from row to row")
        return BiasSite(node.name, 2, vector, node.output)
    found = _addition(graph, node)
    if found is None or layout.output_axis != -1:
        return Refusal(f"{node.op_type} takes no bias and no constant is added to its output")
    add, position, value = found
    if value.shape[-1:] not in {(), (1,), (layout.outputs,)}:
        return Refusal("what is added to its output has another number of channels")
    return BiasSite(add.name, position, value, add.output)


def _addition(graph: Graph, node: Node) -> tuple[Node, int, Array] | None:
    """The Add of a constant that alone reads the node's output, and the constant."""
    uses = graph.consumers(node.output)
    if len(uses) != 1 or graph.is_exposed(node.output):
        return None
    add, rank = uses[0].node, graph.rank(node.output)
    row = operator_of(add)
    if row is None or row.offset is not OffsetRule.ADDS or len(add.inputs) != 2:
        return None
    position = 1 - uses[0].position
    value = graph.constant(add.inputs[position])
    if value is None or rank is None or graph.rank(add.output) != rank:
        return None
    return add, position, value
