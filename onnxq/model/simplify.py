"""The same function in fewer and better-known nodes.

Exporters leave nodes that change nothing, limits under other names (Min and Max with a constant are
a Clip), and activations behind a change of axes, where no kernel of the layer before can fuse them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxq.model.affine import Folded, affine_of, fold_affine
from onnxq.model.factors import fold_factors_forward
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import (
    CLIP,
    QuantizedRule,
    Rearrangement,
    activation_bounds,
    limit,
    operator_of,
)
from onnxq.model.rewrite import constant, edit, variable
from onnxq.model.shapes import run_nodes
from onnxq.refusal import Refusal

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
"""Sizes of the axes on which two changes of axes are tried, all different."""


@dataclass(frozen=True)
class Simplified:
    """What became simpler.

    Attributes:
        folded: constants that are part of a weighted node now.
        clips: number of Min and Max nodes that are Clip now.
        merged: activation → the Clip behind it that limits for both.
        moved: activation → weighted node that it follows now.
        copies: number of nodes that changed nothing.
    """

    folded: Folded
    clips: int = 0
    merged: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    copies: int = 0


def fold_usual(model: Model) -> tuple[Model, Simplified]:
    """Fold batch norms and missing biases only: for a model in which Q/DQ have their places."""
    model, folded = fold_affine(model, only_usual=True)
    return model, Simplified(folded)


def simplify(model: Model) -> tuple[Model, Simplified]:
    """All that this module, `affine` and `factors` know."""
    model, copies = drop_copies(model)
    model, clips = write_as_clips(model)
    model, folded = fold_affine(model)
    model, factors = fold_factors_forward(model)
    model, moved = move_activations(model)
    model, merged = merge_limits(model)
    model, more = drop_copies(model)
    folded = replace(folded, factors=folded.factors | factors)
    return model, Simplified(folded, clips, merged, moved, copies + more)


# --- nodes that change nothing ---------------------------------------------------------------


def drop_copies(model: Model) -> tuple[Model, int]:
    """Without the nodes whose output is their input, and how many those were.

    An Identity, a Dropout at inference, a product by one, a sum with zero; and two changes of axes
    in a row of which the second undoes the first.
    """
    count = len(model.message.graph.node)
    while source := _sources(Graph(model)):
        model = _reading(model, source)
    return model, count - len(model.message.graph.node)


def _sources(graph: Graph) -> dict[str, str]:
    """Tensor that equals another → the first that is so."""
    source: dict[str, str] = {}
    for node in graph.nodes:
        same = _same(graph, node)
        if same is not None and graph.consumers(node.output):
            source[node.output] = source.get(same, same)
    return source


def _reading(model: Model, source: dict[str, str]) -> Model:
    def change(gs_graph: Any) -> None:
        tensors = gs_graph.tensors()
        for node in gs_graph.nodes:
            for position, tensor in enumerate(node.inputs):
                if tensor.name in source:
                    node.inputs[position] = tensors[source[tensor.name]]

    return edit(model, change)


def _same(graph: Graph, node: Node) -> str | None:
    """The tensor that the node's output equals; None for none, and where the name is needed."""
    row = operator_of(node)
    if row is None or graph.is_exposed(node.output):
        return None
    if any(name and graph.is_read(name) for name in node.outputs[1:]):
        return None
    if row.copies:
        trains = isinstance(row.mixed_axes(graph, node, 1), Refusal)
        return None if trains or graph.is_constant(node.input(0)) else node.input(0)
    if row.rearranges is Rearrangement.AXES:
        before = graph.producers.get(node.input(0))
        undone = before is not None and _undoes(graph, before, node)
        return before.input(0) if before is not None and undone else None
    affine = affine_of(graph, node)
    if affine is None or affine.batch_norm or not (affine.gain.size == affine.shift.size == 1):
        return None
    rank = graph.rank(node.input(affine.position))
    neutral = affine.gain.item() == 1 and affine.shift.item() == 0
    wide = max(affine.gain.ndim, affine.shift.ndim)
    return node.input(affine.position) if neutral and wide <= (rank or 0) else None


def _undoes(graph: Graph, first: Node, second: Node) -> bool:
    row, shape = operator_of(first), graph.shape(first.input(0))
    if row is None or row.rearranges is not Rearrangement.AXES or shape is None:
        return False
    parameters = [name for node in (first, second) for name in node.inputs[1:] if name]
    values = {name: graph.constant(name) for name in parameters}
    if len(shape) > len(PRIMES) or any(value is None for value in values.values()):
        return False
    sizes = [1 if size == 1 else prime for size, prime in zip(shape, PRIMES, strict=False)]
    places = np.arange(math.prod(sizes)).reshape(sizes)
    feeds = {name: value for name, value in values.items() if value is not None}
    found = run_nodes(graph, [first, second], feeds | {first.input(0): places}, [second.output])
    return found is not None and found[0].shape == places.shape and bool(np.all(found[0] == places))


# --- limits ----------------------------------------------------------------------------------


def merge_limits(model: Model) -> tuple[Model, dict[str, str]]:
    """Of limits in a row let the last do the work of all.

    Returns:
        The model, and Relu or Clip → the Clip behind it that has its bounds too.
    """
    merged: dict[str, str] = {}
    while pairs := list(_pairs(Graph(model))):
        model = _merge(model, pairs)
        merged |= {pair.first.name: pair.second.name for pair in pairs}
    return model, merged


def write_as_clips(model: Model) -> tuple[Model, int]:
    """Write Min and Max with one number as Clip. Returns how many."""
    graph = Graph(model)
    found = {node.name: bound for node in graph.nodes if (bound := limit(graph, node)) is not None}
    if not found:
        return model, 0

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for name, bound in found.items():
            node = nodes[name]
            low, high = (bound.value, math.inf) if bound.lower else (-math.inf, bound.value)
            node.op = CLIP
            node.inputs = [node.inputs[bound.position], *_bounds(name, low, high)]

    return edit(model, change), len(found)


def _bounds(name: str, low: float, high: float) -> list[Any]:
    """The inputs of a Clip behind the first."""
    lowest = variable("") if math.isinf(low) else constant(f"{name}.lowest", np.float32(low))
    if math.isinf(high):
        return [lowest]
    return [lowest, constant(f"{name}.highest", np.float32(high))]


@dataclass(frozen=True)
class _Pair:
    first: Node
    second: Node
    bounds: tuple[float, float]


def _pairs(graph: Graph) -> Iterator[_Pair]:
    """Limits in a row, no node in two pairs."""
    taken: set[str] = set()
    for first in graph.nodes:
        uses = graph.consumers(first.output)
        if len(uses) != 1 or graph.is_exposed(first.output) or uses[0].position != 0:
            continue
        second = uses[0].node
        inner, outer = _limits(graph, first), _limits(graph, second)
        if inner is None or outer is None or {first.name, second.name} & taken:
            continue
        row = operator_of(second)
        if row is None or row.op_type != CLIP or inner[0] > inner[1] or outer[0] > outer[1]:
            continue
        low, high = (min(max(bound, outer[0]), outer[1]) for bound in inner)
        taken |= {first.name, second.name}
        yield _Pair(first, second, (low, high))


def _limits(graph: Graph, node: Node) -> tuple[float, float] | None:
    row = operator_of(node)
    if row is None or not row.fuses or not graph.is_float(node.output):
        return None
    return activation_bounds(graph, node)


def _merge(model: Model, pairs: list[_Pair]) -> Model:
    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for pair in pairs:
            first, second = nodes[pair.first.name], nodes[pair.second.name]
            second.inputs = [first.inputs[0], *_bounds(second.name, *pair.bounds)]
            first.outputs = []

    return edit(model, change)


# --- activations -----------------------------------------------------------------------------


def move_activations(model: Model) -> tuple[Model, dict[str, str]]:
    """Put activations that fuse right behind their weighted node, before its elements move.

    Returns:
        The model, and activation → weighted node.
    """
    graph = Graph(model)
    moves = [move for node in graph.nodes if (move := _move_of(graph, node)) is not None]
    if not moves:
        return model, {}

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for move in moves:
            activation = nodes[move.activation.name]
            path = [nodes[node.name] for node in move.path]
            first = path[0].inputs[0]
            path[-1].outputs = list(activation.outputs)
            activation.inputs[0] = first
            activation.outputs = [variable(f"{first.name}.limited", first.dtype, first.shape)]
            path[0].inputs[0] = activation.outputs[0]
            for before, after in itertools.pairwise(path):
                old = before.outputs[0]
                before.outputs = [variable(f"{old.name}.limited", old.dtype, old.shape)]
                after.inputs[0] = before.outputs[0]

    edited = infer_shapes(edit(model, change))
    again, more = move_activations(edited)
    return again, {move.activation.name: move.weighted.name for move in moves} | more


@dataclass(frozen=True)
class _Move:
    weighted: Node
    path: tuple[Node, ...]
    activation: Node


def _move_of(graph: Graph, activation: Node) -> _Move | None:
    row = operator_of(activation)
    if row is None or not row.fuses or activation_bounds(graph, activation) is None:
        return None
    path: list[Node] = []
    name = activation.input(0)
    while True:
        node = graph.producers.get(name)
        row = operator_of(node) if node is not None else None
        if node is None or row is None:
            return None
        if len(graph.consumers(name)) > 1 or graph.is_exposed(name):
            return None
        if row.rearranges is Rearrangement.NONE:
            break
        path.append(node)
        name = node.input(0)
    weighted = row.quantized is QuantizedRule.WEIGHTED or row.fuses
    return _Move(node, tuple(path[::-1]), activation) if path and weighted else None
