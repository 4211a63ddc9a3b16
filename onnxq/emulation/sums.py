"""Plan sums of products: weighted nodes, and MatMuls of two activations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.emulation.bounds import exact_parts, product_reach, reach
from onnxq.emulation.layers import Accumulation, WeightPart
from onnxq.emulation.operands import operand, weight
from onnxq.emulation.rounding import requantization_or_none
from onnxq.emulation.saturation import pair_sums
from onnxq.formats.accumulators import accumulator_of, digits_of
from onnxq.formats.parameters import centered
from onnxq.formats.table import SUMS
from onnxq.model.graph import Node
from onnxq.model.operators import Operator, weight_layout
from onnxq.model.qdq import QdqGraph, Quantization, standing_for
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal

Array = NDArray[Any]

SAME_SCALE = 1e-5
"""Relative difference up to which an integer bias counts as being in steps of the sum."""


def plan_sum(
    graph: QdqGraph, node: Node, row: Operator, *, saturate: bool = False
) -> Accumulation | Refusal:
    """Plan one node of a row that accumulates; `saturate` as in `plan_emulation`."""
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return _contraction(graph, node) if row.contracts else layout
    data = operand(graph, node.input(layout.data))
    if isinstance(data, Refusal):
        return data
    stored = weight(graph, layout.weight)
    if isinstance(stored, Refusal):
        return stored
    axis = stored.parameters.axis
    if axis is not None and axis % len(layout.shape) != layout.channel_axis:
        return Refusal(f"its weight has scales along axis {axis}, which is not its outputs'")
    factors = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if factors[0] != 1 or (layout.bias and factors[1] != 1):
        return Refusal("it multiplies its product or its bias by a factor")
    return _weighted(graph, node, layout, data, stored, saturate=saturate)


def _weighted(
    graph: QdqGraph,
    node: Node,
    layout: WeightLayout,
    data: Quantization,
    stored: Quantization,
    *,
    saturate: bool,
) -> Accumulation | Refusal:
    integers = layout.to_output_major(centered(graph.value(stored.stored), stored.parameters))
    flat = integers.reshape(layout.outputs, -1)
    step = np.asarray(data.parameters.scale * stored.parameters.scale, np.float32)
    if step.ndim:
        # A ConvTranspose's channel serves one output of every group.
        step = _trailing(layout, np.tile(step, layout.outputs // step.size))
    value = graph.constant(layout.bias) if layout.bias else None
    if layout.bias and value is None:
        return Refusal("its bias is computed at run time")
    bias = _bias_in_steps(graph, layout, step)
    float_bias = value if bias is None else None
    interval = data.parameters.interval
    pairs = None
    if saturate and not stored.parameters.zero_point.any():
        zero = -interval[0]
        pairs = pair_sums(layout, integers, data.format, stored.format, zero)
    return Accumulation(
        (data,), tuple(parts_of(layout, integers, interval)), step,
        None if bias is None else _trailing(layout, bias),
        None if float_bias is None else _trailing(layout, float_bias.astype(np.float32)),
        reach(flat, interval, bias), accumulator_of(data.format, stored.format),
        requantization_or_none(graph, node) if float_bias is None else None,
        pairs,
    )  # fmt: skip


def parts_of(
    layout: WeightLayout, integers: Array, interval: tuple[int, int]
) -> Iterator[WeightPart]:
    """The weight for each digit of the data, cut so that float32 holds the sums of each part.

    Args:
        integers: the whole weight, (outputs, inputs per group, taps).
        interval: of the data.
    """
    outputs, inputs, taps = integers.shape
    flat = integers.reshape(outputs, -1)
    for digit in digits_of(interval):
        for start, stop in exact_parts(flat, digit.interval):
            first, last = 0, inputs
            if layout.groups == 1:
                first, last = start // taps, -(-stop // taps)
            piece = np.zeros((outputs, (last - first) * taps), np.float32)
            piece[:, start - first * taps : stop - first * taps] = flat[:, start:stop]
            whole = (first, last) == (0, inputs)
            part = layout if whole else layout.of_inputs(last - first)
            yield WeightPart(
                part.from_output_major(piece.reshape(outputs, last - first, taps)),
                None if whole else (first, last), layout.input_axis, digit,
            )  # fmt: skip


def _trailing(layout: WeightLayout, values: Array) -> Array:
    """A value for each output, shaped to broadcast along the last axes of the node's output."""
    spatial = 0 if layout.output_last else len(layout.shape) - 2
    return values.reshape(-1, *[1] * spatial) if spatial else values


def _bias_in_steps(
    graph: QdqGraph, layout: WeightLayout, step: NDArray[np.float32]
) -> NDArray[np.int32] | None:
    """The stored bias (outputs,), if its format and steps are those of the sum."""
    found = standing_for(graph, layout.bias) if layout.bias else None
    if found is None or isinstance(found, Refusal):
        return None
    integers, parameters = graph.constant(found.stored), found.parameters
    if integers is None or parameters.format != SUMS or parameters.zero_point.any():
        return None
    vector = layout.bias_vector(integers)
    ratio = parameters.scale / step.ravel().astype(np.float64)
    if vector is None or not (np.abs(ratio - 1) <= SAME_SCALE).all():
        return None
    return np.asarray(vector.astype(np.int32))


def _contraction(graph: QdqGraph, node: Node) -> Accumulation | Refusal:
    """A MatMul of two activations."""
    first, second = (operand(graph, node.input(position)) for position in (0, 1))
    if isinstance(first, Refusal):
        return first
    if isinstance(second, Refusal):
        return second
    rows, columns = graph.shape(node.input(0)), graph.shape(node.input(1))
    sizes = [rows[-1] if rows else None, columns[-2:][0] if columns else None]
    terms = next((float(size) for size in sizes if isinstance(size, int)), math.inf)
    step = np.asarray(first.parameters.scale * second.parameters.scale, np.float32)
    return Accumulation(
        (first, second), (), step, None, None,
        product_reach(terms, first.parameters.interval, second.parameters.interval),
        accumulator_of(first.format, second.format), requantization_or_none(graph, node),
    )  # fmt: skip
