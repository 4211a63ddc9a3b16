"""Plan averages: sums of integers over windows, divided by how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onnxq.emulation.bounds import product_reach
from onnxq.emulation.layers import Average
from onnxq.emulation.operands import operand
from onnxq.emulation.rounding import requantization
from onnxq.model.graph import Node
from onnxq.model.qdq import QdqGraph
from onnxq.refusal import Refusal

_WINDOW = ("kernel_shape", "strides", "pads", "auto_pad", "dilations")


def plan_average(graph: QdqGraph, node: Node) -> Average | Refusal:
    """Plan one node."""
    data = operand(graph, node.input(0))
    if isinstance(data, Refusal):
        return data
    rounding = requantization(graph, node)
    if isinstance(rounding, Refusal):
        return rounding
    shape, kernel = graph.shape(node.input(0)), node.attributes.get("kernel_shape")
    if shape is None or (kernel and not isinstance(shape[1], int)):
        return Refusal("the number of its channels is known at run time only")
    sizes = [size for size in (kernel or shape[2:]) if isinstance(size, int)]
    terms = math.prod(sizes) if len(sizes) == len(shape) - 2 else math.inf
    reach = product_reach(terms, data.parameters.interval, (0, 1))
    window, same = None, math.isfinite(terms)
    if kernel:
        if not reach.fits_float32:
            return Refusal(f"float32 cannot hold sums over its window of {terms} values")
        found = _window(graph, node)
        if isinstance(found, Refusal):
            return found
        window, pads = found
        same = not pads or bool(node.attributes.get("count_include_pad", 0))
    channels = shape[1] if isinstance(shape[1], int) else 0
    count = int(terms) if same else 0
    return Average(data, window, channels, len(shape), count, reach, rounding)


def _window(graph: QdqGraph, node: Node) -> tuple[Mapping[str, Any], bool] | Refusal:
    """Attributes of the convolution that sums what the pooling node averages; whether it pads."""
    given = node.attributes
    attributes = {key: given[key] for key in _WINDOW if key in given}
    axes = len(given["kernel_shape"])
    pads = list(given.get("pads", [0] * 2 * axes))
    automatic = given.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}
    if given.get("ceil_mode", 0):
        sizes = [s for s in (graph.shape(node.input(0)) or ())[2:] if isinstance(s, int)]
        if automatic or given.get("count_include_pad", 0):
            return Refusal("it counts pads and rounds its size up")
        if len(sizes) != axes:
            return Refusal("it rounds a size up that is known at run time only")
        pads = _pads_for_ceil(given, pads, sizes)
        attributes["pads"] = pads
    return attributes, automatic or any(pads)


def _pads_for_ceil(attributes: Mapping[str, Any], pads: list[int], sizes: list[int]) -> list[int]:
    """Pads with which rounding the size down gives the size that was rounded up.

    Args:
        attributes: of the pooling node.
        pads: its pads, all begins and then all ends.
        sizes: of its input along the pooled axes.
    """
    axes, result = len(sizes), list(pads)
    for axis, size in enumerate(sizes):
        stride, dilation = (attributes.get(k, [1] * axes)[axis] for k in ("strides", "dilations"))
        reached = (attributes["kernel_shape"][axis] - 1) * dilation + 1
        steps = math.ceil((size + pads[axis] + pads[axes + axis] - reached) / stride)
        if steps * stride >= size + pads[axis]:
            steps -= 1  # A window that would begin in the pads behind is none.
        missing = steps * stride + reached - (size + pads[axis] + pads[axes + axis])
        result[axes + axis] += max(missing, 0)
    return result
