"""The one rounding at the end of an integer kernel, with the activations fused into it."""

from __future__ import annotations

import math

import numpy as np

from onnxq.emulation.layers import Requantization
from onnxq.emulation.qdq import NotInteger, QdqGraph, Quantization
from onnxq.model.graph import Node
from onnxq.model.operators import activation_bounds, fused_activations


def requantization(graph: QdqGraph, node: Node) -> Requantization:
    """The rounding behind the node and the activations fused into it; raises `NotInteger`."""
    fused = fused_activations(graph, node)
    quantizer, to = graph.quantizer(fused[-1].output if fused else node.output)
    info = np.iinfo(to.parameters.zero_point.dtype)
    low, high = float(info.min), float(info.max)
    for activation in fused:
        bounds = activation_bounds(graph, activation)
        if bounds is None:
            raise NotInteger("the bounds of its activation are computed at run time")
        # Rounding keeps the order, so limits may be rounded instead of values.
        first, second = (_rounded(limit, to) for limit in bounds)
        low, high = (min(max(end, first), second) for end in (low, high))
    return Requantization(quantizer.name, to, int(low), int(high), tuple(a.name for a in fused))


def _rounded(value: float, to: Quantization) -> float:
    """A real limit as an integer of the type, saturated."""
    info, zero = np.iinfo(to.parameters.zero_point.dtype), int(to.parameters.zero_point)
    if not math.isfinite(value):
        return float(info.min if value < 0 else info.max)
    steps = float(np.rint(np.float32(value) / to.parameters.scale))
    return min(max(steps + zero, float(info.min)), float(info.max))


def requantization_or_none(graph: QdqGraph, node: Node) -> Requantization | None:
    """The same; None where the result stays a float."""
    try:
        return requantization(graph, node)
    except NotInteger:
        return None
