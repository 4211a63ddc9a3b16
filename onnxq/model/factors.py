"""Factors of a weighted operator that its weight can hold: its own, and constants before it.

Integer kernels take a bias in steps of input scale × weight scale and know neither the alpha nor
the beta of a Gemm. A Mul or Div by one number, as the HardSwish of many exporters ends in one, is a
kernel that the weight of the next layer makes needless: W·(c·x) = (c·W)·x, and where a constant is
added in between, W·(c·x + b) = (c·W)·(x + b/c).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.affine import affine_of
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import QuantizedRule, ScaleRule, operator_of, weight_layout
from onnxq.model.rewrite import constant, edit, variable
from onnxq.refusal import Refusal

Array = NDArray[Any]

SAFE = 2.0**20
"""Factors beyond this, or below its inverse, stay: weights could become too large or too small."""

REACH = 5
"""Nodes before a factor among which a function that runtimes know by its constants is looked for:
in x·½·(1 + tanh(a·(x + b·x³))) there are as many between the last factor and the function."""


# --- alpha and beta --------------------------------------------------------------------------


def fold_gemm_factors(model: Model) -> Model:
    """Multiply alpha into the weight and beta into the bias, and make the bias a vector."""
    graph = Graph(model)
    values: dict[tuple[str, int], Array] = {}
    for node in graph.nodes:
        row = operator_of(node)
        if row is not None and row.scale is ScaleRule.LINEAR:
            values |= _without_factors(graph, node)
    if not values:
        return model

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for (name, position), value in values.items():
            nodes[name].inputs[position] = constant(f"{name}.{position}.folded", value)
            nodes[name].attrs.pop("alpha" if position == 1 else "beta", None)

    return edit(model, change)


def _without_factors(graph: Graph, node: Node) -> dict[tuple[str, int], Array]:
    """(node, input position) → the constant that needs no factor, for those that have one."""
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return {}
    values: dict[tuple[str, int], Array] = {}
    weight, bias = graph.constant(layout.weight), graph.constant(layout.bias)
    alpha, beta = (node.attributes.get(key, 1.0) for key in ("alpha", "beta"))
    if weight is not None and alpha != 1:
        values[node.name, 1] = (weight * np.float64(alpha)).astype(np.float32)
    if bias is not None:
        vector = layout.bias_vector(bias)
        plain = bias if vector is None else vector
        if beta != 1 or plain.shape != bias.shape:
            values[node.name, 2] = (plain * np.float64(beta)).astype(np.float32)
    return values


# --- constants before it ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Forward:
    """A factor that its readers take up.

    Attributes:
        additions: nodes that add a constant to the product, and the position of the constant.
        weighted: nodes whose weight takes it.
    """

    node: Node
    position: int
    factor: float
    additions: tuple[tuple[Node, int], ...]
    weighted: tuple[Node, ...]


def fold_factors_forward(model: Model) -> tuple[Model, dict[str, str]]:
    """Fold factors into the weights behind them until none is left.

    Returns:
        The model, and factor node → the first weighted node that took it up.
    """
    found: dict[str, str] = {}
    while folds := list(_forwards(Graph(model))):
        model = _apply(model, folds)
        found |= {fold.node.name: fold.weighted[0].name for fold in folds}
    return model, found


def _forwards(graph: Graph) -> Iterator[_Forward]:
    taken: set[str] = set()
    for node in graph.nodes:
        fold = _forward_of(graph, node)
        if fold is None:
            continue
        names = {n.name for n in (*fold.weighted, *(add for add, _ in fold.additions))}
        if not names & taken:
            taken |= names
            yield fold


def _forward_of(graph: Graph, node: Node) -> _Forward | None:
    affine = affine_of(graph, node)
    if affine is None or affine.batch_norm or affine.gain.size != 1 or np.any(affine.shift):
        return None
    factor = float(affine.gain.item())
    rank = graph.rank(node.input(affine.position))
    if factor == 1 or not 1 / SAFE < abs(factor) < SAFE or (rank or 0) < affine.gain.ndim:
        return None
    readers = _readers(graph, node.output)
    if readers is None or _belongs_to_a_function(graph, node.input(affine.position)):
        return None
    additions: list[tuple[Node, int]] = []
    weighted: list[Node] = []
    for reader in readers:
        added = affine_of(graph, reader)
        if _takes_weight(graph, reader, node.output):
            weighted.append(reader)
        elif added is not None and not added.batch_norm and np.all(added.gain == 1):
            behind = _readers(graph, reader.output)
            if behind is None or not all(_takes_weight(graph, b, reader.output) for b in behind):
                return None
            additions.append((reader, 1 - added.position))
            weighted += behind
        else:
            return None
    if not weighted or not all(
        _stays_finite(graph, name, by)
        for name, by in (
            *((node.input(1), factor) for node in weighted),
            *((node.input(position), 1 / factor) for node, position in additions),
        )
    ):
        return None
    return _Forward(node, affine.position, factor, tuple(additions), tuple(weighted))


def _readers(graph: Graph, name: str) -> list[Node] | None:
    """The nodes that read a tensor, each once; None where a caller or a subgraph reads it too."""
    readers = [use.node for use in graph.consumers(name)]
    if graph.is_exposed(name) or len({node.index for node in readers}) != len(readers):
        return None
    return readers


def _takes_weight(graph: Graph, node: Node, name: str) -> bool:
    """Whether the node multiplies this tensor by a constant weight."""
    row, layout = operator_of(node), weight_layout(graph, node)
    if row is None or row.quantized is not QuantizedRule.WEIGHTED or isinstance(layout, Refusal):
        return False
    return node.input(layout.data) == name


def _stays_finite(graph: Graph, name: str, by: float) -> bool:
    return bool(np.abs(graph.value(name)).max(initial=0) * abs(by) < np.finfo(np.float32).max)


def _belongs_to_a_function(graph: Graph, name: str) -> bool:
    """Whether one of the last nodes before is a function that runtimes know by its constants."""
    names = {name}
    for _ in range(REACH):
        nodes = [graph.producers[each] for each in names if each in graph.producers]
        rows = [(node, row) for node in nodes if (row := operator_of(node)) is not None]
        if any(row.surrounded for _, row in rows):
            return True
        names = {
            each
            for node, row in rows
            if row.quantized is not QuantizedRule.WEIGHTED
            for each in node.inputs
        }
    return False


def _apply(model: Model, folds: list[_Forward]) -> Model:
    graph = Graph(model)

    def scaled(name: str, by: float) -> Array:
        return (graph.value(name).astype(np.float64) * by).astype(np.float32)

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for fold in folds:
            product = nodes[fold.node.name]
            instead = {product.outputs[0].name: product.inputs[fold.position]}
            for add, position in fold.additions:
                there = nodes[add.name]
                there.inputs[1 - position] = instead[fold.node.output]
                divided = scaled(add.input(position), 1 / fold.factor)
                there.inputs[position] = constant(f"{add.name}.divided", divided)
                # What it computes is no longer what its name stands for.
                old = there.outputs[0]
                there.outputs = [variable(f"{old.name}.unscaled", old.dtype, old.shape)]
                instead[old.name] = there.outputs[0]
            for weighted in fold.weighted:
                there = nodes[weighted.name]
                weight = scaled(weighted.input(1), fold.factor)
                there.inputs[0] = instead[there.inputs[0].name]
                there.inputs[1] = constant(f"{weighted.name}.scaled", weight)
            product.outputs = []

    edited = edit(model, change)
    return infer_shapes(edited) if any(fold.additions for fold in folds) else edited
