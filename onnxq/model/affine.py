"""Constants behind a weighted operator go into it: y = γ·(W·x + b) + β is one with W' = γ·W.

What a batch norm does to each channel, or a Mul, Div, Add or Sub by a constant, the weight and bias
before it can do: W' = γ·W and b' = γ·b + β, one kernel less in float and in integers. Between the
two, nodes may add, drop or reorder axes: Keras writes the bias of a Conv1D behind a Squeeze.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import (
    OffsetRule,
    Operator,
    QuantizedRule,
    Rearrangement,
    ScaleRule,
    operator_of,
    weight_layout,
)
from onnxq.model.rewrite import constant, edit, variable
from onnxq.model.shapes import run_nodes
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal

Array = NDArray[Any]


@dataclass(frozen=True)
class Affine:
    """A node that computes gain · x + shift of its input number `position`.

    Attributes:
        gain, shift: float64, of a shape that broadcasts to x.
        batch_norm: both lie along axis 1, (channels,), whatever the rank of x.
    """

    position: int
    gain: Array
    shift: Array
    batch_norm: bool = False


ONE, ZERO = np.ones(()), np.zeros(())


def affine_of(graph: Graph, node: Node) -> Affine | None:
    """What the node does where it is affine with constant factors; None where it is not."""
    row = operator_of(node)
    if row is None:
        return None
    if row.scale is ScaleRule.BATCH_NORM:
        return _batch_norm(graph, node)
    if len(node.inputs) != 2 or row.data_inputs is not None:
        return None
    values = [graph.constant(name) for name in node.inputs]
    position = 0 if values[0] is None else 1
    value = values[1 - position]
    if values[position] is not None or value is None or not graph.is_float(node.output):
        return None
    terms = _terms(row, position, value.astype(np.float64))
    return None if terms is None else Affine(position, *terms)


def _terms(row: Operator, position: int, value: Array) -> tuple[Array, Array] | None:
    if row.scale is ScaleRule.PRODUCT:
        if not row.divides:
            return value, ZERO
        return (1 / value, ZERO) if position == 0 and np.all(value != 0) else None
    if row.subtracts:
        return (ONE, -value) if position == 0 else (-ONE, value)
    return (ONE, value) if row.offset is OffsetRule.ADDS else None


def _batch_norm(graph: Graph, node: Node) -> Affine | None:
    parameters = [graph.constant(name) for name in node.inputs[1:5]]
    if any(p is None for p in parameters) or node.attributes.get("training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    gain = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return Affine(0, gain, beta - mean * gain, batch_norm=True)


@dataclass(frozen=True)
class Folded:
    """Nodes that are gone → the weighted node that does their work."""

    batch_norms: dict[str, str]
    factors: dict[str, str]
    biases: dict[str, str]


@dataclass(frozen=True)
class _Fold:
    """One affine node that its weighted node takes up; `path` lies between them.

    Attributes:
        weight, bias: the new ones; None where there is the old one, or none.
    """

    weighted: Node
    path: tuple[Node, ...]
    affine: Node
    op_type: str
    weight: Array | None
    bias: Array | None

    @property
    def kind(self) -> str:
        row = operator_of(self.affine)
        if row is not None and row.scale is ScaleRule.BATCH_NORM:
            return "batch norm"
        return "bias" if self.weight is None else "factor"


def fold_affine(model: Model, *, only_usual: bool = False) -> tuple[Model, Folded]:
    """Fold until none is left: of two in a row the second follows the weighted node only then.

    Args:
        only_usual: fold batch norms, and give a bias to nodes without one; nothing else.
    """
    done: list[_Fold] = []
    while folds := list(_folds(Graph(model), only_usual=only_usual)):
        model = _apply(model, folds)
        done += folds

    def hosts(kind: str) -> dict[str, str]:
        return {fold.affine.name: fold.weighted.name for fold in done if fold.kind == kind}

    return model, Folded(hosts("batch norm"), hosts("factor"), hosts("bias"))


def _folds(graph: Graph, *, only_usual: bool) -> Iterator[_Fold]:
    taken: set[str] = set()
    for node in graph.nodes:
        fold = _fold_of(graph, node, only_usual=only_usual)
        if fold is not None and fold.weighted.name not in taken:
            taken.add(fold.weighted.name)
            yield fold


def _fold_of(graph: Graph, node: Node, *, only_usual: bool) -> _Fold | None:
    affine = affine_of(graph, node)
    path = None if affine is None else _path(graph, node.input(affine.position))
    if affine is None or path is None or (only_usual and len(path) > 1):
        return None
    weighted, *between = path
    layout, row = weight_layout(graph, weighted), operator_of(weighted)
    if isinstance(layout, Refusal) or row is None or row.quantized is not QuantizedRule.WEIGHTED:
        return None
    if only_usual and not affine.batch_norm and (layout.bias or np.any(affine.gain != 1)):
        return None
    terms = _terms_by_channel(graph, affine, layout, path)
    bias = graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
    old = None if bias is None else layout.bias_vector(bias)
    weight = graph.constant(layout.weight)
    if terms is None or old is None or weight is None:
        return None
    gain, shift = terms
    op_type = biased_type(graph, weighted, row, layout) if np.any(shift) else weighted.op_type
    if not op_type:
        return None
    scales = affine.batch_norm or bool(np.any(gain != 1))
    with np.errstate(over="ignore"):  # what becomes infinite is not folded
        scaled = _scaled(weight, gain, layout) if scales else None
        moved = (old * gain + shift).astype(np.float32)
    if not all(np.all(np.isfinite(new)) for new in (scaled, moved) if new is not None):
        return None
    needed = affine.batch_norm or bool(layout.bias) or bool(np.any(shift))
    return _Fold(weighted, tuple(between), node, op_type, scaled, moved if needed else None)


def _scaled(weight: Array, gain: Array, layout: WeightLayout) -> Array:
    folded = layout.to_output_major(weight.astype(np.float64)) * gain[:, None, None]
    return layout.from_output_major(folded).astype(np.float32)


def _path(graph: Graph, name: str) -> list[Node] | None:
    """The weighted node that alone leads to this tensor, and the nodes that move axes between."""
    found: list[Node] = []
    while True:
        node = graph.producers.get(name)
        if node is None or len(graph.consumers(name)) > 1 or graph.is_exposed(name):
            return None
        row = operator_of(node)
        found.append(node)
        if row is None or row.rearranges is not Rearrangement.AXES:
            return found[::-1]
        name = node.input(0)


def biased_type(graph: Graph, node: Node, row: Operator, layout: WeightLayout) -> str:
    """The operator that computes the node and a bias; "" for none."""
    if layout.takes_bias:
        return node.op_type
    matrices = graph.rank(node.input(layout.data)) == len(layout.shape) == 2
    return row.with_bias if matrices else ""


def _terms_by_channel(
    graph: Graph, affine: Affine, layout: WeightLayout, path: list[Node]
) -> tuple[Array, Array] | None:
    """Gain and shift as (outputs,); None where they are not alike all over a channel."""
    count = layout.outputs
    if affine.batch_norm and len(path) == 1:
        # Its rank may be unknown; a channel axis of its own it has.
        same = layout.output_axis == 1 and layout.takes_bias
        return (affine.gain, affine.shift) if same and affine.gain.shape == (count,) else None
    rank = graph.rank(path[0].output)
    if rank is None or not -rank <= layout.output_axis < rank:
        return None
    sizes = [1] * rank
    sizes[layout.output_axis] = count
    channels: Array = np.arange(count).reshape(sizes)
    for node in path[1:]:
        moved = run_nodes(graph, [node], {node.input(0): channels, **_parameters(graph, node)},
                          [node.output])  # fmt: skip
        # A Squeeze of whatever has size 1 dropped what only seems to.
        if moved is None or moved[0].size != count or moved[0].ndim != graph.rank(node.output):
            return None
        channels = moved[0]
    if affine.batch_norm:
        if channels.ndim < 2 or channels.shape[1] != affine.gain.size:
            return None
        wide = (-1,) + (1,) * (channels.ndim - 2)
        gain, shift = affine.gain.reshape(wide), affine.shift.reshape(wide)
    else:
        gain, shift = affine.gain, affine.shift
    if any(np.ndim(t) > channels.ndim or not _fits(np.shape(t), channels) for t in (gain, shift)):
        return None
    order = np.argsort(channels.ravel())
    gain, shift = (np.broadcast_to(t, channels.shape).ravel()[order] for t in (gain, shift))
    return gain, shift


def _fits(shape: tuple[int, ...], channels: Array) -> bool:
    try:
        return np.broadcast_shapes(shape, channels.shape) == channels.shape
    except ValueError:
        return False


def _parameters(graph: Graph, node: Node) -> dict[str, Array]:
    found = {name: graph.constant(name) for name in node.inputs[1:] if name}
    return {name: value for name, value in found.items() if value is not None}


def _apply(model: Model, folds: list[_Fold]) -> Model:
    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for fold in folds:
            weighted, affine = nodes[fold.weighted.name], nodes[fold.affine.name]
            name, weight = fold.weighted.name, weighted.inputs[1]
            suffix = "joined" if fold.weight is None else "folded"
            if fold.weight is not None:
                weight = constant(f"{name}.weight_folded", fold.weight)
            weighted.op = fold.op_type
            weighted.inputs = [weighted.inputs[0], weight]
            if fold.bias is not None:
                weighted.inputs.append(constant(f"{name}.bias_{suffix}", fold.bias))
                # Without a bias its factor was idle; now it would scale this one.
                weighted.attrs.pop("beta", None)
            last = [weighted, *(nodes[node.name] for node in fold.path)]
            for before, after in itertools.pairwise(last):
                # What the tensors between them hold is no longer what their names stand for.
                old = before.outputs[0]
                before.outputs = [variable(f"{old.name}.folded", old.dtype, old.shape)]
                after.inputs[0] = before.outputs[0]
            last[-1].outputs = list(affine.outputs)
            affine.outputs = []

    edited = edit(model, change)
    # A new tensor between two nodes has no shape yet.
    return infer_shapes(edited) if any(fold.path for fold in folds) else edited
