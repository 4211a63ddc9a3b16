"""Interval bounds: what an activation can be at most, for every input there is.

Each channel's interval follows from those of its inputs and the weights. Graph inputs are
unbounded, so only what lies behind a Clip, a Sigmoid or another bounded function is bounded at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.sites import LinearSite, ScaleClasses
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import ScaleRule, clip_bounds, operator_of

Floats = NDArray[np.float64]

ROUNDING = 1e-5
"""Share of the largest possible sum that float32 rounding may add to it: far more than it does."""


@dataclass(frozen=True)
class Interval:
    """Lowest and highest value of each channel (channels,), or of all (1,).

    Channels lie along the one axis on which the scales of the tensor vary.
    """

    low: Floats
    high: Floats

    def hull(self) -> Interval:
        """One interval for all channels."""
        return Interval(self.low.min(keepdims=True), self.high.max(keepdims=True))

    def with_zero(self) -> Interval:
        return Interval(np.minimum(self.low, 0.0), np.maximum(self.high, 0.0))

    def limited(self, low: float, high: float) -> Interval:
        return Interval(np.clip(self.low, low, high), np.clip(self.high, low, high))


ANYTHING = Interval(np.full(1, -math.inf), np.full(1, math.inf))


def intervals(graph: Graph, classes: ScaleClasses) -> Mapping[str, Interval]:
    """Interval of each tensor that a node computes, channels along its channel axis."""
    found: dict[str, Interval] = {}
    sites = {site.node.name: site for site in classes.linears}
    for node in graph.nodes:
        interval = _after(graph, classes, node, sites.get(node.name), found)
        if interval is ANYTHING:
            continue
        rank, axis = graph.rank(node.output) or 1, classes.channel_axis(node.output)
        site = sites.get(node.name)
        along = axis if site is None else site.layout.output_axis % rank
        # Where the scales of a tensor vary along another axis than its intervals, one holds all.
        found[node.output] = interval if axis == along else interval.hull()
    return found


def _after(
    graph: Graph,
    classes: ScaleClasses,
    node: Node,
    site: LinearSite | None,
    found: Mapping[str, Interval],
) -> Interval:
    row = operator_of(node)
    if row is None:
        return ANYTHING
    if row.bounds is not None:
        return Interval(np.full(1, row.bounds[0]), np.full(1, row.bounds[1]))
    parts = [found.get(name, ANYTHING) for name in row.data_of(node)]
    if site is not None:
        data = node.input(site.layout.data)
        aligned = classes.channel_axis(data) == site.layout.input_axis % (graph.rank(data) or 1)
        inputs = parts[0].with_zero()
        return _weighted(graph, site, inputs if aligned else inputs.hull())
    if row.scale is ScaleRule.CLIP:
        bounds = clip_bounds(graph, node)
        return ANYTHING if bounds is None else parts[0].limited(*bounds)
    exact = not isinstance(row.mixed_axes(graph, node, graph.rank(node.input(0)) or 0), str)
    if row.averages and exact:
        # A padded border counts as zeros.
        return parts[0].with_zero()
    return ANYTHING


def _weighted(graph: Graph, site: LinearSite, data: Interval) -> Interval:
    """Σ W·x + b over the box of the inputs, zero padding included."""
    layout = site.layout
    weight, bias = graph.constant(layout.weight), graph.constant(layout.bias)
    if weight is None or len(data.low) not in {1, layout.inputs}:
        return ANYTHING
    if not (np.isfinite(data.low).all() and np.isfinite(data.high).all()):
        return ANYTHING
    if bias is not None and bias.size not in {1, layout.outputs}:
        return ANYTHING
    by_output = layout.to_output_major(weight).astype(np.float64)
    positive = np.maximum(by_output, 0).sum(axis=2)
    negative = np.minimum(by_output, 0).sum(axis=2)
    low, high = (
        np.broadcast_to(end, (layout.inputs,))[layout.input_index()]
        for end in (data.low, data.high)
    )
    offset = 0.0 if bias is None else bias.ravel().astype(np.float64)
    room = ROUNDING * (
        ((positive - negative) * np.maximum(np.abs(low), np.abs(high))).sum(axis=1) + np.abs(offset)
    )
    return Interval(
        (positive * low + negative * high).sum(axis=1) + offset - room,
        (positive * high + negative * low).sum(axis=1) + offset + room,
    )
