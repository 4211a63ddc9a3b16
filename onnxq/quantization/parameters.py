"""Scales and zero points of what a plan quantizes: activations, weights and biases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.fit import coarser, derived, fit_blocks, fit_magnitude, fit_range
from onnxq.formats.granularity import PER_TENSOR, Blocks, PerChannel
from onnxq.formats.parameters import Parameters
from onnxq.formats.scheme import Representable, Scheme
from onnxq.formats.table import SUMS
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.operators import QuantizedRule, operator_of
from onnxq.model.weights import WeightLayout
from onnxq.quantization.placement import Placed
from onnxq.quantization.plan import Converted, Derived, Own, QuantizationOptions, Shared
from onnxq.quantization.ranges import Ranges
from onnxq.quantization.shares import filled, shared_groups
from onnxq.targets import Target

Activations = Mapping[str, Own | Shared]
Conversions = Mapping[str, Converted]

LARGEST_BIAS = (SUMS.grid.highest + 1) / 2
"""Steps of a bias; the other half of its range is for the correction to come."""


# --- activations -----------------------------------------------------------------------------


def activation_parameters(
    graph: Graph,
    placed: Placed,
    ranges: Ranges,
    target: Target,
    options: QuantizationOptions,
) -> Activations:
    """Tensor → how it is quantized: with a range of its own, or with one that it shares."""
    result: dict[str, Own | Shared] = {}
    for names in dict.fromkeys(shared_groups(graph, placed).values()):
        leader = next(name for name in names if name in ranges.tensors)
        bounds = filled(graph, placed, names, ranges.spec, fixed_steps=target.fixed_steps)
        low, high = bounds or ranges.of(names)
        parameters = fit_range(low, high, ranges.spec, options.scales)
        result[leader] = Own(parameters)
        result |= {name: Shared(parameters, leader) for name in names if name != leader}
    return _widen_pooled(graph, result, target, ranges.spec.scales(options.scales))


def _widen_pooled(
    graph: Graph, activations: Activations, target: Target, scales: Representable
) -> Activations:
    """Coarsen outputs of pooling that are too far below the step of what is pooled."""
    result = dict(activations)
    for node in graph.nodes:
        row = operator_of(node)
        source, pooled = result.get(node.input(0)), result.get(node.output)
        if row is None or row.quantized is not QuantizedRule.OWN or not source or not pooled:
            continue
        if not row.mixed_axes(graph, node, graph.rank(node.input(0)) or 0):
            continue
        ratio = (
            float(source.parameters.scale)
            / target.largest_pooling_ratio
            / float(pooled.parameters.scale)
        )
        if ratio <= 1:
            continue
        wider = coarser(pooled.parameters, ratio, scales)
        leader = pooled.shares_with if isinstance(pooled, Shared) else node.output
        for name, entry in activations.items():
            if name == leader:
                result[name] = Own(wider)
            elif isinstance(entry, Shared) and entry.shares_with == leader:
                result[name] = Shared(wider, leader)
    return result


def read_by(
    node: Node, position: int, activations: Activations, conversions: Conversions
) -> Parameters | None:
    """What a node reads an input as; None in float."""
    name = node.input(position)
    other = conversions.get(name)
    if other is not None and Place(node.name, position) in other.readers:
        return other.parameters
    return activations[name].parameters if name in activations else None


# --- weights and biases ----------------------------------------------------------------------


def weight_parameters(
    graph: Graph,
    node: Node,
    layout: WeightLayout,
    target: Target,
    scheme: Scheme,
    options: QuantizationOptions,
    source: Parameters | None,
) -> Parameters:
    """Scales of one weight, from its largest magnitudes.

    Args:
        source: of the input; None in float. The weight scale is wide enough for the bias to fit the
            format of sums in steps of input scale × weight scale, for every target: where the model
            keeps a float bias, ONNX Runtime's optimizer makes that of it and saturates.
    """
    spec = scheme.weight
    if spec is None:
        raise ValueError(f"{scheme} leaves weights in float")
    values = graph.value(layout.weight)
    if scheme.block and (axis := layout.block_axis) is not None:
        return fit_blocks(values, spec, Blocks(axis, scheme.block), options.scales)
    weight = np.abs(np.asarray(values, np.float64))
    others = tuple(a for a in range(weight.ndim) if a != layout.channel_axis)
    magnitude = weight.max(axis=others, initial=0.0)
    bias = graph.constant(layout.bias)
    vector = None if bias is None else layout.bias_vector(bias)
    if source is not None and vector is not None:
        scale = np.abs(vector) / (LARGEST_BIAS * float(source.scale))
        # A ConvTranspose's channel serves one output of every group.
        needed = spec.steps * scale.reshape(-1, len(magnitude)).max(axis=0)
        magnitude = np.where(magnitude > 0, np.maximum(magnitude, needed), 0.0)
    by_channel = layout.per_channel and node.op_type not in target.one_weight_scale
    if options.per_channel and by_channel:
        return fit_magnitude(magnitude, spec, PerChannel(layout.channel_axis), options.scales)
    largest = magnitude.max(keepdims=True, initial=0.0)
    return fit_magnitude(largest, spec, PER_TENSOR, options.scales)


def bias_parameters(
    graph: Graph,
    node: Node,
    layout: WeightLayout,
    scheme: Scheme,
    source: Parameters | None,
    weights: Mapping[Place, Parameters],
) -> Derived | None:
    """How the bias of a weighted node is stored; None where it stays in float.

    That is also so of a node that has none yet: correction may give it one.
    """
    if scheme.bias is None or not layout.takes_bias:
        return None
    bias = graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
    if bias is None or layout.bias_vector(bias) is None or source is None:
        return None
    place = Place(node.name, layout.weight_position)
    weight = weights[place].scale
    # A ConvTranspose's channel serves one output of every group.
    each = np.tile(weight, layout.outputs // weight.size) if weight.ndim else weight
    scale = np.asarray(source.scale * each, np.float32)
    granularity = PerChannel(0) if scale.ndim else PER_TENSOR
    return Derived(derived(scheme.bias, scale, granularity), node.input(layout.data), place)


def bias_as_numbers(bias: NDArray[np.float32]) -> Parameters:
    """Steps so fine, a power of two, that the bias of a float layer loses nothing that counts."""
    largest = float(np.abs(bias).max(initial=0.0)) or 1.0
    scale = np.exp2(np.ceil(np.log2(largest / LARGEST_BIAS)))
    return derived(SUMS, np.array(scale, np.float32), PER_TENSOR)
