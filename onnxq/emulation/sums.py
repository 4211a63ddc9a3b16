"""Plan sums of products: weighted nodes, and MatMuls of two activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.emulation.bounds import exact_parts, product_reach, reach
from onnxq.emulation.layers import Accumulation, WeightPart
from onnxq.emulation.qdq import NotInteger, QdqGraph, Quantization
from onnxq.emulation.rounding import requantization_or_none
from onnxq.model.graph import Node
from onnxq.model.operators import operator_of, weight_layout
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal

Array = NDArray[Any]

SAME_SCALE = 1e-5
"""Relative difference up to which an int32 bias counts as being in steps of the sum."""


def plan_sum(graph: QdqGraph, node: Node) -> Accumulation:
    """Plan one node; raises `NotInteger`."""
    row = operator_of(node)
    assert row is not None  # noqa: S101 - it has a form
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        if row.contracts:
            return _contraction(graph, node)
        raise NotInteger(layout.reason)
    data, weight = graph.operand(node.input(layout.data)), graph.standing_for(layout.weight)
    if not weight.is_8_bit:
        raise NotInteger(f"its weight is {weight.parameters.dtype}, not 8-bit")
    axis = weight.parameters.axis
    if axis is not None and axis % len(layout.shape) != layout.channel_axis:
        raise NotInteger(f"its weight has scales along axis {axis}, which is not its outputs'")
    factors = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if factors[0] != 1 or (layout.bias and factors[1] != 1):
        raise NotInteger("it multiplies its product or its bias by a factor")
    return _weighted(graph, node, layout, data, weight)


def _weighted(
    graph: QdqGraph, node: Node, layout: WeightLayout, data: Quantization, weight: Quantization
) -> Accumulation:
    stored = graph.constant(weight.integers)
    assert stored is not None  # noqa: S101 - its layout is known
    zero = weight.parameters.zero_point.astype(np.int16)
    shape = [1] * stored.ndim
    shape[layout.channel_axis] = zero.size
    integers = layout.to_output_major(stored.astype(np.int16) - zero.reshape(shape))
    flat = integers.reshape(layout.outputs, -1)
    step = np.asarray(data.parameters.scale * weight.parameters.scale, np.float32)
    if step.ndim:
        # A ConvTranspose's channel serves one output of every group.
        step = _trailing(layout, np.tile(step, layout.outputs // step.size))
    bias, float_bias = _biases(graph, layout, step)
    parts = tuple(_part(layout, integers, run) for run in exact_parts(flat, data.interval))
    return Accumulation(
        (data,), parts, step, bias, float_bias,
        reach(flat, data.interval, None if bias is None else bias.ravel()),
        requantization_or_none(graph, node) if float_bias is None else None,
    )  # fmt: skip


def _part(layout: WeightLayout, integers: Array, terms: tuple[int, int]) -> WeightPart:
    """The terms of a run, and of the inputs only those they read.

    Args:
        layout: of the whole weight.
        integers: the whole weight, (outputs, inputs per group, taps).
        terms: start and stop among inputs × taps.
    """
    outputs, inputs, taps = integers.shape
    first, last = 0, inputs
    if layout.groups == 1:
        first, last = terms[0] // taps, -(-terms[1] // taps)
    piece = np.zeros((outputs, (last - first) * taps), np.float32)
    inside = slice(terms[0] - first * taps, terms[1] - first * taps)
    piece[:, inside] = integers.reshape(outputs, -1)[:, slice(*terms)]
    whole = (first, last) == (0, inputs)
    stored = layout if whole else layout.of_inputs(last - first)
    return WeightPart(
        stored.from_output_major(piece.reshape(outputs, last - first, taps)),
        None if whole else (first, last), layout.input_axis,
    )  # fmt: skip


def _biases(
    graph: QdqGraph, layout: WeightLayout, step: NDArray[np.float32]
) -> tuple[NDArray[np.int32] | None, NDArray[np.float32] | None]:
    """The bias as part of the sum, or as a float; at most one of them."""
    if not layout.bias:
        return None, None
    value = graph.constant(layout.bias)
    if value is None:
        raise NotInteger("its bias is computed at run time")
    vector = _bias_in_steps(graph, layout, step)
    if vector is not None:
        return _trailing(layout, vector), None
    return None, _trailing(layout, value.astype(np.float32))


def _trailing(layout: WeightLayout, values: Array) -> Array:
    """A value for each output, shaped to broadcast along the last axes of the node's output."""
    spatial = 0 if layout.output_last else len(layout.shape) - 2
    return values.reshape(-1, *[1] * spatial) if spatial else values


def _bias_in_steps(
    graph: QdqGraph, layout: WeightLayout, step: NDArray[np.float32]
) -> NDArray[np.int32] | None:
    """The int32 bias, if its steps are those of the sum."""
    try:
        found = graph.standing_for(layout.bias)
    except NotInteger:
        return None
    integers, zero = graph.constant(found.integers), found.parameters.zero_point
    if integers is None or zero.dtype != np.int32 or zero.any():
        return None
    vector = layout.bias_vector(integers)
    ratio = found.parameters.scale / step.ravel().astype(np.float64)
    if vector is None or not (np.abs(ratio - 1) <= SAME_SCALE).all():
        return None
    return vector.astype(np.int32)


def _contraction(graph: QdqGraph, node: Node) -> Accumulation:
    """A MatMul of two activations."""
    first, second = (graph.operand(node.input(position)) for position in (0, 1))
    rows, columns = graph.shape(node.input(0)), graph.shape(node.input(1))
    sizes = [rows[-1] if rows else None, columns[-2:][0] if columns else None]
    terms = next((float(size) for size in sizes if isinstance(size, int)), math.inf)
    step = np.asarray(first.parameters.scale * second.parameters.scale, np.float32)
    return Accumulation(
        (first, second), (), step, None, None,
        product_reach(terms, first.interval, second.interval),
        requantization_or_none(graph, node),
    )  # fmt: skip
