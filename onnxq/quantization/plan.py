"""The plan: for each node and tensor what will be int8, and why the rest stays in float."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.not_finite import non_finite
from onnxq.calibration.ranges import Range, distribution, estimate
from onnxq.calibration.statistics import Calibration
from onnxq.errors import UsageError
from onnxq.formats.parameters import (
    Parameters,
    activation_parameters,
    weight_parameters,
)
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import Int8Rule, kernel_output, operator_of, weight_layout
from onnxq.refusal import Refusal, granted
from onnxq.suggest import suggest
from onnxq.targets import Placement, Target

LARGEST_BIAS = 2.0**30
"""Steps of an int32 bias; the other half of its range is for the correction to come."""


@dataclass(frozen=True)
class QuantizationOptions:
    """What the caller decides.

    Attributes:
        per_channel: int8 weights per output channel, else per tensor.
        ranges: range estimator of the activations.
        power_of_two: all scales are powers of two.
        half: all scales are float16 numbers, as the float remainder will be.
        include, exclude: regular expressions on node names; a node is quantized if it matches
            some `include` (or there is none) and no `exclude`.
    """

    per_channel: bool = True
    ranges: str = "mse"
    power_of_two: bool = False
    half: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Own:
    """A tensor quantized with a range of its own."""

    parameters: Parameters


@dataclass(frozen=True)
class Shared:
    """A tensor that shares the scale and zero point of another."""

    parameters: Parameters
    shares_with: str


@dataclass(frozen=True)
class Float:
    """Stays in float, for a reason."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError("a tensor or node left in float needs a reason")


@dataclass(frozen=True)
class Quantized:
    """A node that computes in int8; `fused_into` names the node whose kernel it becomes part of."""

    fused_into: str = ""


@dataclass(frozen=True)
class QuantizationPlan:
    """Everything `insert` needs.

    Attributes:
        activations: tensor → how it is quantized; tensors that stay in float are absent.
        weights: weighted node → parameters of its weight.
        nodes: every node → quantized or float with the reason.
        readers: (node, input position) that read the dequantized tensor.
    """

    target: Target
    options: QuantizationOptions
    activations: Mapping[str, Own | Shared]
    weights: Mapping[str, Parameters]
    nodes: Mapping[str, Quantized | Float]
    readers: frozenset[tuple[str, int]]


def plan_quantization(
    graph: Graph,
    calibration: Calibration,
    target: Target,
    options: QuantizationOptions,
    gains: Mapping[str, NDArray[np.float64]] | None = None,
    *,
    fixed: Mapping[str, Range] | None = None,
    keep: Mapping[str, str] | None = None,
) -> QuantizationPlan:
    """Decide what becomes int8.

    Args:
        graph: of the normalized (and perhaps equalized) model.
        calibration: of exactly that model.
        gains: tensor → how much an error in each channel matters at its readers (channels,).
        fixed: tensor → the range it must have, and with it all that share its scale.
        keep: node → why it stays in float whatever the options say.
    """
    selected = _selected(graph, options) | dict(keep or {})
    nodes: dict[str, Quantized | Float] = {
        node.name: _eligible(graph, node, target, calibration, selected) for node in graph.nodes
    }
    if target.placement is Placement.INPUTS:
        nodes, readers, tensors = _place_inputs(graph, target, nodes)
    else:
        nodes, readers, tensors = _place_all(graph, target, nodes, set(calibration.tensors))
    groups = _shared_groups(graph, nodes, tensors)
    activations = _activation_parameters(
        calibration, groups, target, options, gains or {}, fixed or {}
    )
    activations = _widen_pooled(graph, activations, options)
    weights = {
        node.name: plan_weight(graph, node, options, activations)
        for node in graph.nodes
        if isinstance(nodes[node.name], Quantized) and _is_weighted(node)
    }
    return QuantizationPlan(target, options, activations, weights, nodes, frozenset(readers))


# --- who may be quantized --------------------------------------------------------------------


def check_patterns(graph: Graph, options: QuantizationOptions) -> None:
    """Refuse, before the long work, expressions that say nothing about this model.

    Args:
        graph: of the normalized model.

    Raises:
        UsageError: a regular expression is invalid or matches no node.
    """
    names = [node.name for node in graph.nodes]
    for option, patterns in (("--include", options.include), ("--exclude", options.exclude)):
        for pattern in patterns:
            try:
                found = any(re.search(pattern, name) for name in names)
            except re.error as error:
                raise UsageError(
                    f"{option} {pattern!r} is no regular expression: {error}"
                ) from None
            if not found:
                near = suggest(re.sub(r"[\\^$]", "", pattern), names)
                raise UsageError(
                    f"{option} {pattern!r} matches no node",
                    hint=near or "onnxq quantize --dry-run lists their names",
                )


def _selected(graph: Graph, options: QuantizationOptions) -> dict[str, str]:
    """Node name → reason why the user left it out, "" for those that stay in."""

    def matches(name: str, patterns: Iterable[str]) -> bool:
        return any(re.search(pattern, name) for pattern in patterns)

    reasons = {}
    for node in graph.nodes:
        included = not options.include or matches(node.name, options.include)
        reasons[node.name] = "" if included else "no --include matches it"
        if matches(node.name, options.exclude):
            reasons[node.name] = "--exclude matches it"
    return reasons


def _is_weighted(node: Node) -> bool:
    row = operator_of(node)
    return row is not None and row.int8 is Int8Rule.WEIGHTED


def _eligible(
    graph: Graph, node: Node, target: Target, calibration: Calibration, selected: Mapping[str, str]
) -> Quantized | Float:
    row = operator_of(node)
    if row is None:
        return Float(f"{node.op_type} has no row in the operator table")
    # A fused activation goes where its host goes, whatever its own name.
    if selected[node.name] and not row.fuses:
        return Float(selected[node.name])
    if row.int8 is Int8Rule.FLOAT:
        return Float(f"{node.op_type} has no int8 form")
    data = [name for name in row.data_of(node) if graph.constant(name) is None]
    missing = [name for name in (*data, *node.outputs[:1]) if not graph.is_float(name)]
    if missing:
        return Float(f"{missing[0]!r} is not float32")
    unseen = [name for name in data if name not in calibration.tensors]
    if row.int8 is not Int8Rule.WEIGHTED:
        spoiled = (non_finite(calibration, name) for name in (*data, *node.outputs[:1]))
        refusal = next(filter(None, spoiled), None)
        return Float(refusal.reason) if refusal else Quantized()
    if node.op_type not in target.weighted:
        return Float(f"target {target.name} has no integer {node.op_type}")
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return Float(layout.reason)
    if unseen:
        return Float(f"its input {unseen[0]!r} was not calibrated")
    return Quantized()


# --- where Q/DQ go ---------------------------------------------------------------------------

_Nodes = dict[str, "Quantized | Float"]
_Readers = set[tuple[str, int]]


def _tensor(graph: Graph, reader: tuple[str, int]) -> str:
    node = graph.by_name[reader[0]]
    return node.inputs[reader[1]]


def _place_inputs(graph: Graph, target: Target, nodes: _Nodes) -> tuple[_Nodes, _Readers, set[str]]:
    """Q/DQ on weighted inputs and residual branches; int8 pass-throughs before them follow."""
    readers: _Readers = set()
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        row = operator_of(node)
        status = nodes[node.name]
        if row is None or isinstance(status, Float):
            continue
        if row.int8 is Int8Rule.WEIGHTED:
            readers.add((node.name, granted(weight_layout(graph, node)).data))
        elif row.int8 is Int8Rule.SHARED and set(node.outputs) & wanted:
            readers |= {
                (node.name, position)
                for position, name in enumerate(node.inputs)
                if name in row.data_of(node) and graph.constant(name) is None
            }
        elif node.op_type in target.residual and (branch := _residual(graph, node, nodes)) >= 0:
            readers.add((node.name, branch))
            nodes[node.name] = Quantized(fused_into=graph.producers[node.inputs[1 - branch]].name)
        elif row.fuses and (host := _host(graph, node, nodes)):
            nodes[node.name] = Quantized(fused_into=host)
        else:
            nodes[node.name] = Float(f"target {target.name} runs {node.op_type} in float")
        wanted |= {_tensor(graph, r) for r in readers if r[0] == node.name}
    return nodes, readers, {_tensor(graph, reader) for reader in readers}


def _host(graph: Graph, node: Node, nodes: Mapping[str, Quantized | Float]) -> str:
    """The quantized weighted node whose kernel runs this activation; "" for none."""
    producer = graph.producers.get(node.input(0))
    if producer is None or not isinstance(nodes[producer.name], Quantized):
        return ""
    alone = len(graph.consumers(node.input(0))) == 1 and not graph.is_exposed(node.input(0))
    return producer.name if alone and _is_weighted(producer) else ""


def _residual(graph: Graph, node: Node, nodes: Mapping[str, Quantized | Float]) -> int:
    """Position of the branch to quantize beside one a weighted node computes; −1 for none."""
    if any(graph.constant(name) is not None for name in node.inputs):
        return -1
    hosts = [
        position
        for position, name in enumerate(node.inputs)
        if (producer := graph.producers.get(name)) is not None
        and _is_weighted(producer)
        and isinstance(nodes[producer.name], Quantized)
        and len(graph.consumers(name)) == 1
        and not graph.is_exposed(name)
    ]
    return 1 - hosts[-1] if hosts else -1


def _place_all(
    graph: Graph, target: Target, nodes: _Nodes, calibrated: set[str]
) -> tuple[_Nodes, _Readers, set[str]]:
    """Q/DQ around everything with an integer kernel."""
    int8 = _decide_all(graph, target, nodes, calibrated)
    readers: _Readers = set()
    for node in graph.nodes:
        status = nodes[node.name]
        row = operator_of(node)
        if row is None or isinstance(status, Float) or status.fused_into:
            continue
        readers |= {
            (node.name, position)
            for position, name in enumerate(node.inputs)
            if name in row.data_of(node) and graph.constant(name) is None
        }
    quantized = {_tensor(graph, reader) for reader in readers} | {
        name for name in int8 if not _may_stay_float(graph, name, target, nodes)
    }
    # Every reader of such a tensor reads its dequantized value, else the kernel keeps two outputs.
    for name in quantized:
        readers |= {(use.node.name, use.position) for use in graph.consumers(name)}
    return nodes, readers, quantized


def _decide_all(graph: Graph, target: Target, nodes: _Nodes, calibrated: set[str]) -> set[str]:
    """Settle which nodes compute in integers; returns the tensors their kernels write."""
    int8: set[str] = set()
    for node in graph.nodes:
        row = operator_of(node)
        status = nodes[node.name]
        if row is None or isinstance(status, Float):
            continue
        data = [n for n in row.data_of(node) if graph.constant(n) is None]
        weighted = row.int8 is Int8Rule.WEIGHTED
        if weighted or (node.op_type in target.own and int8.intersection(data)):
            constants = [n for n in row.data_of(node) if graph.constant(n) is not None]
            result = kernel_output(graph, node)
            if constants and not weighted:
                nodes[node.name] = Float(f"its operand {constants[0]!r} is a constant")
            elif result not in calibrated and not _may_stay_float(graph, result, target, nodes):
                nodes[node.name] = Float(f"its output {result!r} was not calibrated")
            else:
                int8.update(node.outputs)
        elif row.int8 is Int8Rule.SHARED and all(name in int8 for name in data) and data:
            int8.update(node.outputs)
        elif row.fuses and (host := _fusing_host(graph, node, nodes)):
            nodes[node.name] = Quantized(fused_into=host)
            int8.discard(node.input(0))
            int8.update(node.outputs)
        else:
            nodes[node.name] = Float(f"target {target.name} runs {node.op_type} in float here")
    return int8


def _may_stay_float(
    graph: Graph, name: str, target: Target, nodes: Mapping[str, Quantized | Float]
) -> bool:
    """What an integer kernel can write as float, and no other integer kernel reads."""
    producer = graph.producers.get(name)
    if producer is None or producer.op_type not in target.float_output:
        return False
    read = all(isinstance(nodes[use.node.name], Float) for use in graph.consumers(name))
    return name in graph.outputs or read


def _fusing_host(graph: Graph, node: Node, nodes: Mapping[str, Quantized | Float]) -> str:
    """The quantized node whose output range can do this activation's work; "" for none."""
    producer = graph.producers.get(node.input(0))
    if producer is None or not isinstance(nodes[producer.name], Quantized):
        return ""
    row = operator_of(producer)
    if row is None or row.int8 is Int8Rule.SHARED:
        return ""
    alone = len(graph.consumers(node.input(0))) == 1 and not graph.is_exposed(node.input(0))
    return producer.name if alone else ""


# --- ranges ----------------------------------------------------------------------------------


def _shared_groups(
    graph: Graph, nodes: Mapping[str, Quantized | Float], tensors: set[str]
) -> Mapping[str, str]:
    """Tensor → the tensor that stands for those it shares a scale with."""
    leader = {name: name for name in tensors}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        row = operator_of(node)
        if row is None or row.int8 is not Int8Rule.SHARED or isinstance(nodes[node.name], Float):
            continue
        linked = [n for n in (*node.outputs, *row.data_of(node)) if n in leader]
        for name in linked[1:]:
            leader[find(name)] = find(linked[0])
    return {name: find(name) for name in sorted(leader)}


def _activation_parameters(
    calibration: Calibration,
    groups: Mapping[str, str],
    target: Target,
    options: QuantizationOptions,
    gains: Mapping[str, NDArray[np.float64]],
    fixed: Mapping[str, Range],
) -> Mapping[str, Own | Shared]:
    members: dict[str, list[str]] = {}
    for name, leader in groups.items():
        members.setdefault(leader, []).append(name)
    result: dict[str, Own | Shared] = {}
    for names in members.values():
        known = [name for name in names if name in calibration.tensors]
        settled = [fixed[name] for name in names if name in fixed]
        if settled:
            low, high = min(range_[0] for range_ in settled), max(range_[1] for range_ in settled)
        else:
            low, high = estimate(
                distribution([(calibration.tensors[name], gains.get(name)) for name in known]),
                options.ranges, levels=target.levels, symmetric=target.symmetric,
            )  # fmt: skip
        parameters = activation_parameters(
            low, high, dtype=target.activation, symmetric=target.symmetric,
            power_of_two=options.power_of_two, half=options.half,
        )  # fmt: skip
        result[known[0]] = Own(parameters)
        result |= {name: Shared(parameters, known[0]) for name in names if name != known[0]}
    return result


FINEST_MEAN = 255.0
"""Input over output scale above which integer pooling kernels refuse to run."""


def _widen_pooled(
    graph: Graph, activations: Mapping[str, Own | Shared], options: QuantizationOptions
) -> Mapping[str, Own | Shared]:
    """Coarsen outputs of pooling that are far below the step of what is pooled."""
    result = dict(activations)
    for node in graph.nodes:
        row = operator_of(node)
        source, pooled = result.get(node.input(0)), result.get(node.output)
        if row is None or row.int8 is not Int8Rule.OWN or source is None or pooled is None:
            continue
        if not row.mixed_axes(graph, node, graph.rank(node.input(0)) or 0):
            continue
        ratio = float(source.parameters.scale) / FINEST_MEAN / float(pooled.parameters.scale)
        if ratio <= 1:
            continue
        low, high = pooled.parameters.range
        wider = activation_parameters(
            low * ratio, high * ratio, dtype=pooled.parameters.dtype,
            symmetric=not pooled.parameters.zero_point, power_of_two=options.power_of_two,
            half=options.half,
        )  # fmt: skip
        leader = pooled.shares_with if isinstance(pooled, Shared) else node.output
        for name, entry in activations.items():
            if name == leader:
                result[name] = Own(wider)
            elif isinstance(entry, Shared) and entry.shares_with == leader:
                result[name] = Shared(wider, leader)
    return result


def plan_weight(
    graph: Graph,
    node: Node,
    options: QuantizationOptions,
    activations: Mapping[str, Own | Shared],
) -> Parameters:
    """Scales of one weight, from its largest magnitudes.

    Args:
        activations: parameters of the inputs. The weight scale is wide enough for the bias to fit
            int32 in steps of input scale × weight scale, for every target: where the model keeps a
            float bias, ONNX Runtime's optimizer makes that of it and saturates.
    """
    layout = granted(weight_layout(graph, node))
    weight = np.abs(np.asarray(graph.constant(layout.weight), np.float64))
    others = tuple(a for a in range(weight.ndim) if a != layout.channel_axis)
    magnitude = weight.max(axis=others, initial=0.0)
    source, bias = activations.get(node.input(layout.data)), graph.constant(layout.bias)
    vector = None if bias is None else layout.bias_vector(bias)
    if source is not None and vector is not None:
        scale = np.abs(vector) / (LARGEST_BIAS * float(source.parameters.scale))
        # A ConvTranspose's channel serves one output of every group.
        needed = 127 * scale.reshape(-1, len(magnitude)).max(axis=0)
        magnitude = np.where(magnitude > 0, np.maximum(magnitude, needed), 0.0)
    if options.per_channel and layout.per_channel:
        axis = layout.channel_axis
        return weight_parameters(
            magnitude, axis=axis, power_of_two=options.power_of_two, half=options.half
        )
    largest = magnitude.max(keepdims=True, initial=0.0)
    return weight_parameters(
        largest, axis=None, power_of_two=options.power_of_two, half=options.half
    )
