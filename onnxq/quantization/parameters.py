"""Scales and zero points of what a plan quantizes: activations, weights and biases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.ranges import Range, distribution, estimate
from onnxq.calibration.statistics import TensorStatistics
from onnxq.formats.fit import coarser, derived, fit_magnitude, fit_range
from onnxq.formats.granularity import PER_TENSOR, PerChannel
from onnxq.formats.parameters import Parameters
from onnxq.formats.scheme import Scheme, Spec
from onnxq.formats.table import SUMS
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.operators import QuantizedRule, operator_of
from onnxq.model.status import Float
from onnxq.model.weights import WeightLayout
from onnxq.quantization.placement import Placed
from onnxq.quantization.plan import Derived, Own, QuantizationOptions, Shared
from onnxq.targets import Target

Gains = Mapping[str, NDArray[np.float64]]
Activations = Mapping[str, Own | Shared]

LARGEST_BIAS = (SUMS.grid.highest + 1) / 2
"""Steps of a bias; the other half of its range is for the correction to come."""


# --- activations -----------------------------------------------------------------------------


def activation_parameters(
    graph: Graph,
    placed: Placed,
    tensors: Mapping[str, TensorStatistics],
    target: Target,
    scheme: Scheme,
    options: QuantizationOptions,
    gains: Gains,
    fixed: Mapping[str, Range],
) -> Activations:
    """Tensor → how it is quantized: with a range of its own, or with one that it shares.

    Args:
        tensors: what is known of their values.
        gains, fixed: as in `plan_quantization`.
    """
    if scheme.activation is None:
        return {}
    members: dict[str, list[str]] = {}
    for name, leader in _shared_groups(graph, placed).items():
        members.setdefault(leader, []).append(name)
    result: dict[str, Own | Shared] = {}
    for names in members.values():
        known = [name for name in names if name in tensors]
        settled = [fixed[name] for name in names if name in fixed]
        parts = [(tensors[name], gains.get(name)) for name in known]
        low, high = _union(settled) if settled else _range(parts, scheme.activation, options)
        parameters = fit_range(low, high, scheme.activation, options.scales)
        result[known[0]] = Own(parameters)
        result |= {name: Shared(parameters, known[0]) for name in names if name != known[0]}
    return _widen_pooled(graph, result, target, options)


def _union(ranges: list[Range]) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _range(
    parts: list[tuple[TensorStatistics, NDArray[np.float64] | None]],
    spec: Spec,
    options: QuantizationOptions,
) -> Range:
    return estimate(
        distribution(parts), options.ranges, levels=spec.levels, symmetric=spec.symmetric
    )


def _shared_groups(graph: Graph, placed: Placed) -> Mapping[str, str]:
    """Tensor → the tensor that stands for those it shares a scale with."""
    leader = {name: name for name in placed.tensors}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        row = operator_of(node)
        if row is None or row.quantized is not QuantizedRule.SHARED:
            continue
        if isinstance(placed.nodes[node.name], Float):
            continue
        linked = [n for n in (*node.outputs, *row.data_of(node)) if n in leader]
        for name in linked[1:]:
            leader[find(name)] = find(linked[0])
    return {name: find(name) for name in sorted(leader)}


def _widen_pooled(
    graph: Graph, activations: Activations, target: Target, options: QuantizationOptions
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
        wider = coarser(pooled.parameters, ratio, options.scales)
        leader = pooled.shares_with if isinstance(pooled, Shared) else node.output
        for name, entry in activations.items():
            if name == leader:
                result[name] = Own(wider)
            elif isinstance(entry, Shared) and entry.shares_with == leader:
                result[name] = Shared(wider, leader)
    return result


# --- weights and biases ----------------------------------------------------------------------


def weight_parameters(
    graph: Graph,
    node: Node,
    layout: WeightLayout,
    target: Target,
    scheme: Scheme,
    options: QuantizationOptions,
    activations: Activations,
) -> Parameters:
    """Scales of one weight, from its largest magnitudes.

    Args:
        activations: of the inputs. The weight scale is wide enough for the bias to fit the format
            of sums in steps of input scale × weight scale, for every target: where the model keeps
            a float bias, ONNX Runtime's optimizer makes that of it and saturates.
    """
    spec = scheme.weight
    if spec is None:
        raise ValueError(f"{scheme} leaves weights in float")
    weight = np.abs(np.asarray(graph.constant(layout.weight), np.float64))
    others = tuple(a for a in range(weight.ndim) if a != layout.channel_axis)
    magnitude = weight.max(axis=others, initial=0.0)
    source, bias = activations.get(node.input(layout.data)), graph.constant(layout.bias)
    vector = None if bias is None else layout.bias_vector(bias)
    if source is not None and vector is not None:
        scale = np.abs(vector) / (LARGEST_BIAS * float(source.parameters.scale))
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
    activations: Activations,
    weights: Mapping[Place, Parameters],
) -> Derived | None:
    """How the bias of a weighted node is stored; None where it stays in float.

    That is also so of a node that has none yet: correction may give it one.
    """
    if scheme.bias is None or not layout.takes_bias:
        return None
    bias = graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
    data = node.input(layout.data)
    if bias is None or layout.bias_vector(bias) is None or data not in activations:
        return None
    place = Place(node.name, layout.weight_position)
    weight = weights[place].scale
    # A ConvTranspose's channel serves one output of every group.
    each = np.tile(weight, layout.outputs // weight.size) if weight.ndim else weight
    scale = np.asarray(activations[data].parameters.scale * each, np.float32)
    granularity = PerChannel(0) if scale.ndim else PER_TENSOR
    return Derived(derived(scheme.bias, scale, granularity), data, place)
