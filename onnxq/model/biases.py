"""The bias of a weighted operator: an input of its own, or the constant of the Add behind it.

Exporters write a linear layer as MatMul and Add, since MatMul takes no bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import OffsetRule, Operator, operator_of, weight_layout
from onnxq.model.rewrite import constant, edit
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


# --- joining ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Join:
    weighted: Node
    add: Node
    op_type: str
    bias: Array


def join_biases(model: Model) -> tuple[Model, dict[str, str]]:
    """Give weighted nodes without a bias the constant added behind them: one kernel less.

    A MatMul of matrices becomes the operator that is one with a bias, Gemm; in more axes it stays.

    Returns:
        The model, and Add node → weighted node.
    """
    graph = Graph(model)
    joins = [join for node in graph.nodes if (join := _join_of(graph, node)) is not None]
    if not joins:
        return model, {}

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for join in joins:
            weighted, add = nodes[join.weighted.name], nodes[join.add.name]
            weighted.op = join.op_type
            bias = constant(f"{join.weighted.name}.bias_joined", join.bias)
            weighted.inputs = [*weighted.inputs[:2], bias]
            weighted.outputs = list(add.outputs)
            add.outputs = []
            # Without a bias its factor was idle.
            weighted.attrs.pop("beta", None)

    return edit(model, change), {join.add.name: join.weighted.name for join in joins}


def _join_of(graph: Graph, node: Node) -> _Join | None:
    layout, row = weight_layout(graph, node), operator_of(node)
    if isinstance(layout, Refusal) or row is None or layout.bias:
        return None
    op_type = _biased(graph, node, row, layout)
    found = _addition(graph, node)
    rank = graph.rank(node.output)
    if not op_type or found is None or rank is None:
        return None
    add, _, value = found
    # The bias must be one number for each output channel, and change nothing about the shape.
    sizes = [1] * (rank - value.ndim) + list(value.shape)
    along = sizes.pop(layout.output_axis)
    if along not in {1, layout.outputs} or any(size != 1 for size in sizes):
        return None
    bias = np.broadcast_to(value.ravel(), (layout.outputs,))
    return _Join(node, add, op_type, bias.astype(np.float32))


def _biased(graph: Graph, node: Node, row: Operator, layout: WeightLayout) -> str:
    """The operator that computes the node and a bias; "" for none."""
    if layout.takes_bias:
        return node.op_type
    matrices = graph.rank(node.input(layout.data)) == len(layout.shape) == 2
    return row.with_bias if matrices else ""
