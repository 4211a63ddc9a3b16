"""Channel factors: a Mul by one number a channel in front of layers whose input cannot be scaled.

What a norm makes for a residual, what a GELU makes, what the caller gives: its scales are pinned,
so an outlier channel takes the steps of all the others (SmoothQuant, Xiao et al., 2023, puts the
factor into the norm, where all who read it can undo it). A Mul in front of the layers alone gives
any such input a class of its own: its factors are scales like others, exact as powers of two, and
undone in the columns of the weights. It runs one more kernel, so it must pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxq.calibration.derived import Derived
from onnxq.calibration.statistics import Calibration
from onnxq.equalization.sites import LinearSite, ScaleClasses
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.rewrite import constant, edit, node, variable
from onnxq.model.widen import free_name

SUFFIX = ".channel_factors"
"""What is added to a tensor's name for the node, and its output, that scales its channels."""


@dataclass(frozen=True)
class Factor:
    """A Mul by one number a channel, between a tensor and the layers that read it.

    Attributes:
        tensor: what is multiplied.
        name: of the node and of what it makes.
        readers: (node, input position) of the layers that read the product instead.
        axis: of the tensor, along which there is one for each channel.
        shape: of the factors, broadcastable to the tensor.
    """

    tensor: str
    name: str
    readers: tuple[tuple[str, int], ...]
    axis: int
    shape: tuple[int, ...]


def plan_factors(graph: Graph, classes: ScaleClasses) -> tuple[Factor, ...]:
    """One for each tensor and channel axis that layers read with scales that are not free."""
    sites: dict[tuple[str, int, tuple[int, ...]], list[LinearSite]] = {}
    for site in classes.linears:
        tensor, layout = site.node.input(site.layout.data), site.layout
        rank = graph.rank(tensor)
        if rank is None or layout.inputs < 2 or np.all(site.input_ids):
            continue
        axis = layout.input_axis % rank
        shape = (layout.inputs,) + (1,) * (rank - 1 - axis)
        sites.setdefault((tensor, axis, shape), []).append(site)
    taken = {name for each in graph.nodes for name in (each.name, *each.outputs)}
    factors = []
    for (tensor, axis, shape), found in sites.items():
        name = free_name(f"{tensor}{SUFFIX}", taken)
        taken.add(name)
        readers = tuple((site.node.name, site.layout.data) for site in found)
        factors.append(Factor(tensor, name, readers, axis, shape))
    return tuple(factors)


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
                for reader, position in factor.readers:
                    nodes[reader].inputs[position] = nodes[factor.name].inputs[0]

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
