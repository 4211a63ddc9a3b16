"""The one rounding at the end of an integer kernel, with the activations fused into it."""

from __future__ import annotations

import math

import numpy as np

from onnxq.emulation.layers import Requantization
from onnxq.emulation.operands import result
from onnxq.formats.parameters import Parameters
from onnxq.model.graph import Node
from onnxq.model.operators import activation_bounds, fused_activations
from onnxq.model.qdq import QdqGraph
from onnxq.refusal import Refusal


def requantization(graph: QdqGraph, node: Node) -> Requantization | Refusal:
    """The rounding behind the node and the activations fused into it."""
    fused = fused_activations(graph, node)
    found = result(graph, fused[-1].output if fused else node.output)
    if isinstance(found, Refusal):
        return found
    quantizer, to = found
    low, high = (float(end) for end in _ends(to.parameters))
    for activation in fused:
        bounds = activation_bounds(graph, activation)
        if bounds is None:
            return Refusal("the bounds of its activation are computed at run time")
        # Rounding keeps the order, so limits may be rounded instead of values.
        first, second = (_rounded(limit, to.parameters) for limit in bounds)
        low, high = (min(max(end, first), second) for end in (low, high))
    return Requantization(quantizer.name, to, int(low), int(high), tuple(a.name for a in fused))


def _ends(parameters: Parameters) -> tuple[int, int]:
    return int(parameters.format.grid.lowest), int(parameters.format.grid.highest)


def _rounded(value: float, parameters: Parameters) -> float:
    """A real limit as an integer of the format, saturated."""
    lowest, highest = _ends(parameters)
    if not math.isfinite(value):
        return float(lowest if value < 0 else highest)
    steps = float(np.rint(np.float32(value) / parameters.scale))
    return min(max(steps + int(parameters.zero_point), float(lowest)), float(highest))


def requantization_or_none(graph: QdqGraph, node: Node) -> Requantization | None:
    """The same; None where the result stays a float."""
    found = requantization(graph, node)
    return None if isinstance(found, Refusal) else found
