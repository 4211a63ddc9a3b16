"""Multiply-adds: how much of its arithmetic a node does."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnxq.model.footprint import Feeds, Shape, measure_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import is_product, operator_of, weight_layout
from onnxq.model.session import Runtime
from onnxq.model.weights import WeightLayout


def multiply_adds(model: Model, feeds: Feeds) -> dict[str, int]:
    """Node → products that it adds up in one run, of those that multiply by weights or matrices.

    Raises `ModelError` where the model does not run.
    """
    graph = Graph(model)
    counted = [node for node in graph.nodes if _multiplies(graph, node)]
    names = {name for node in counted for name in (*node.inputs, node.output)}
    known = {name: value.shape for name in names if (value := graph.constant(name)) is not None}
    asked = sorted(name for name in names if name and name not in known and name not in feeds)
    (shapes,) = measure_shapes(model, asked, [feeds], Runtime())
    return {node.name: _of_node(graph, node, {**known, **shapes}) for node in counted}


def _multiplies(graph: Graph, node: Node) -> bool:
    row = operator_of(node)
    if row is None:
        return False
    weighted = isinstance(weight_layout(graph, node), WeightLayout)
    return weighted or is_product(graph, node) or bool(row.stores)


def _of_node(graph: Graph, node: Node, shapes: Mapping[str, Shape]) -> int:
    outputs = math.prod(shapes.get(node.output, ()))
    layout = weight_layout(graph, node)
    if isinstance(layout, WeightLayout):
        if layout.transposed:
            per_input = layout.outputs // layout.groups * layout.taps
            return math.prod(shapes[node.input(layout.data)]) * per_input
        # In a stack of matrices each makes outputs of its own.
        return outputs * (layout.inputs if layout.output_last else layout.columns)
    row = operator_of(node)
    if row is not None and row.stores:
        # Each weight once for each step and sample, the first two axes in either order.
        steps = math.prod(shapes[node.input(0)][:2])
        return steps * sum(math.prod(shapes[node.input(position)]) for _, position in row.stores)
    return outputs * shapes[node.input(0)][-1]
