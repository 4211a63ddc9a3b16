"""Channel factors: a Mul by one number a channel where layers have no scales of their own to give.

What a norm makes for a residual, what a GELU makes, what the caller gives: its scales are pinned,
so an outlier channel takes the steps of all the others (SmoothQuant, Xiao et al., 2023, puts the
factor into the norm, where all who read it can undo it). A Mul in front of the layers alone gives
any such input a class of its own: its factors are scales like others, exact as powers of two, and
undone in the columns of the weights. A weight with one scale for all gets as much behind it: a Mul
that undoes factors of its output channels. Either runs one more kernel, so it must pay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxq.calibration.derived import Derived
from onnxq.calibration.statistics import Calibration
from onnxq.equalization.sites import LinearSite, ScaleClasses
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import ScaleRule, operator_of
from onnxq.model.rewrite import constant, edit, node, variable
from onnxq.model.widen import free_name

SUFFIX = ".channel_factors"
"""What is added to a tensor's name for the node, and its output, that scales its channels."""


@dataclass(frozen=True)
class Factor:
    """A Mul by one number a channel, between a tensor and those who read the product instead.

    Attributes:
        tensor: what is multiplied.
        name: of the node and of what it makes.
        readers: (node, input position): the layers in front of which it stands; all readers where
            it stands behind a layer.
        axis: of the tensor, along which there is one for each channel.
        shape: of the factors, broadcastable to the tensor.
        freed: the tensor whose scales it frees: what it makes, or the result of the layer that it
            stands behind.
    """

    tensor: str
    name: str
    readers: tuple[tuple[str, int], ...]
    axis: int
    shape: tuple[int, ...]
    freed: str


def plan_factors(
    graph: Graph, classes: ScaleClasses, one_weight_scale: Collection[str] = ()
) -> tuple[Factor, ...]:
    """One for each tensor and channel axis that layers read with scales that are not free.

    Args:
        one_weight_scale: operators behind which one stands too, as their weights have one scale.
    """
    taken = {name for each in graph.nodes for name in (each.name, *each.outputs)}
    # Those behind layers come first: what reads such a tensor is then put behind its product.
    behind = [
        _behind(graph, site, taken)
        for site in classes.linears
        if site.node.op_type in one_weight_scale
    ]
    return (*(each for each in behind if each is not None), *_in_front(graph, classes, taken))


def _behind(graph: Graph, site: LinearSite, taken: set[str]) -> Factor | None:
    tensor, layout = _with_bias(graph, site.node), site.layout
    rank = graph.rank(tensor)
    if (
        rank is None
        or layout.outputs < 2
        or not graph.consumers(tensor)
        or graph.is_exposed(tensor)
    ):
        return None
    axis = layout.output_axis % rank
    name = _named(tensor, taken)
    readers = tuple((use.node.name, use.position) for use in graph.consumers(tensor))
    shape = (layout.outputs,) + (1,) * (rank - 1 - axis)
    return Factor(tensor, name, readers, axis, shape, site.node.output)


def _with_bias(graph: Graph, layer: Node) -> str:
    """What a layer gives, with the bias that is added to it where ONNX Runtime makes one of both.

    It does so with matrices, and with more axes where all sizes are known (MatMulAddFusion); else
    the bias is better fused with what follows. Only what sums in the old order keeps its bits.
    """
    tensor, shape = layer.output, graph.shape(layer.output)
    uses = graph.consumers(tensor)
    if len(uses) != 1 or graph.is_exposed(tensor) or shape is None:
        return tensor
    if len(shape) != 2 and not all(isinstance(size, int) for size in shape):
        return tensor
    reader = uses[0].node
    row, others = operator_of(reader), [name for name in reader.inputs if name != tensor]
    added = row is not None and row.scale is ScaleRule.TIE and len(others) == 1
    return reader.output if added and graph.constant(others[0]) is not None else tensor


def _in_front(graph: Graph, classes: ScaleClasses, taken: set[str]) -> list[Factor]:
    sites: dict[tuple[str, int, tuple[int, ...]], list[LinearSite]] = {}
    for site in classes.linears:
        tensor, layout = site.node.input(site.layout.data), site.layout
        rank = graph.rank(tensor)
        if rank is None or layout.inputs < 2 or np.all(site.input_ids):
            continue
        axis = layout.input_axis % rank
        shape = (layout.inputs,) + (1,) * (rank - 1 - axis)
        sites.setdefault((tensor, axis, shape), []).append(site)
    factors = []
    for (tensor, axis, shape), found in sites.items():
        readers = tuple((site.node.name, site.layout.data) for site in found)
        name = _named(tensor, taken)
        factors.append(Factor(tensor, name, readers, axis, shape, name))
    return factors


def _named(tensor: str, taken: set[str]) -> str:
    name = free_name(f"{tensor}{SUFFIX}", taken)
    taken.add(name)
    return name


def counted_in(calibration: Calibration, factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """Those whose tensors the calibration counted channel by channel: the others' new ranges would
    not be known.
    """
    tensors = calibration.tensors
    return tuple(f for f in factors if f.tensor in tensors and tensors[f.tensor].axis == f.axis)


def with_ones(model: Model, factors: Sequence[Factor]) -> Model:
    """The model with the factors in place, all 1: it computes what it did."""

    def change(graph: Any) -> None:
        nodes = {each.name: each for each in graph.nodes}
        for factor in factors:
            name, position = factor.readers[0]
            product = variable(factor.name, np.float32)
            ones = constant(f"{factor.name}.1", np.ones(factor.shape, np.float32))
            data = nodes[name].inputs[position]
            graph.nodes.append(node("Mul", factor.name, [data, ones], [product]))
            for reader, where in factor.readers:
                nodes[reader].inputs[where] = product

    return infer_shapes(edit(model, change)) if factors else model


def without_ones(model: Model, factors: Sequence[Factor]) -> tuple[Model, tuple[Factor, ...]]:
    """The model without the factors that are all 1, and those that are left."""
    graph = Graph(model)
    idle = {f.name for f in factors if _is_one(graph, f)}
    left = tuple(factor for factor in factors if factor.name not in idle)
    if not idle:
        return model, left

    def change(gs_graph: Any) -> None:
        nodes = {each.name: each for each in gs_graph.nodes}
        for factor in factors:
            if factor.name in idle:
                source, product = nodes[factor.name].inputs[0], nodes[factor.name].outputs[0]
                for reader in list(product.outputs):
                    for position, read in enumerate(reader.inputs):
                        if read is product:
                            reader.inputs[position] = source

    return edit(model, change), left


def _is_one(graph: Graph, factor: Factor) -> bool:
    found = graph.node_named(factor.name)
    value = None if found is None else graph.constant(found.input(1))
    return value is not None and bool(np.all(value == 1))


def with_products(calibration: Calibration, factors: Sequence[Factor]) -> Calibration:
    """The calibration, in which what factors of 1 make is what they are made of.

    Args:
        factors: of tensors that it knows, see `counted_in`.
    """
    before = calibration.tensors
    source = {name: name for name in before} | {f.name: f.tensor for f in factors}
    return replace(calibration, tensors=Derived(source, lambda name: before[source[name]]))
