"""Which tensors of a quantized model are those of the float model, and what lies between them.

A tensor is paired with the float model's tensor of the same name. What the quantized model
computes between paired tensors, with Q/DQ, is a *layer*: the rounding of its inputs, its weights
and the operator with the activation fused to it. So the rounding of a tensor counts for the layer
that reads it, as leaving that layer in float removes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.model.channel_scales import relation
from onnxq.model.dynamic import with_dequantized
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.modernize import LOWEST_OPSET
from onnxq.model.normalize import normalize
from onnxq.model.operators import (
    DEQUANTIZE,
    QUANTIZE,
    QuantizedRule,
    ScaleRule,
    clip_bounds,
    is_weighted,
    kernel_output,
    operator_of,
)
from onnxq.refusal import Refusal
from onnxq.validation.without_qdq import is_qdq, without_qdq

Array = NDArray[Any]

PASSES_ON = Refusal("its output only passes on quantized values or is dropped")


@dataclass(frozen=True)
class Layer:
    """What the quantized model computes between paired tensors.

    Attributes:
        name, op_type: of the node that gives the layer its name, in the quantized model.
        output: the paired tensor it computes.
        nodes: its nodes in the quantized model, Q/DQ among them, in topological order.
    """

    name: str
    op_type: str
    output: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Unmatched:
    """A quantized layer that cannot be compared by itself, and why."""

    name: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Pairing:
    """Two models and what they have in common.

    Attributes:
        exact: the float model.
        quantized: the quantized model, normalized.
        stripped: it without Q/DQ.
        tensors: paired tensors that nodes compute, in the order of the quantized model.
        layers: what of it is quantized, in the same order.
        unmatched: quantized nodes with a weight that are no layer of their own.
        factors: tensor → s, its channels' scale in the quantized model against the float one.
        offsets: tensor → o, what is subtracted from it in the quantized model once it is scaled.
        bounds: tensor → interval that the float model limits it to and the quantized model does
            not, as it leaves that to the quantizer behind.
    """

    exact: Model
    quantized: Model
    stripped: Model
    tensors: tuple[str, ...]
    layers: tuple[Layer, ...]
    unmatched: tuple[Unmatched, ...]
    factors: Mapping[str, NDArray[np.float32]]
    offsets: Mapping[str, NDArray[np.float32]]
    bounds: Mapping[str, tuple[float, float]]

    def to_quantized(self, tensor: str, values: Array) -> Array:
        """The float model's values on the scale of the quantized model's channels."""
        factor, offset = self.factors.get(tensor), self.offsets.get(tensor)
        if factor is not None:
            values = (values * factor).astype(np.float32)
        return values if offset is None else (values - offset).astype(np.float32)

    def contradiction(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """The tensor of these that a recorded scale or offset does not fit; "" for none."""
        for recorded in (self.factors, self.offsets):
            for name, values in recorded.items():
                try:
                    np.broadcast_to(values, shapes.get(name, values.shape))
                except ValueError:
                    return name
        return ""

    def to_exact(self, tensor: str, values: Array) -> Array:
        """The quantized model's values on the float model's scale, behind the same activation."""
        factor, bounds = self.factors.get(tensor), self.bounds.get(tensor)
        if (offset := self.offsets.get(tensor)) is not None:
            values = values + offset
        if factor is not None:
            values = values / factor
        return values if bounds is None else np.clip(values, *bounds)


def pair(
    float_model: Model, quantized: Model, *, refused: Mapping[str, Refusal] | None = None
) -> Pairing:
    """Pair the tensors of the two models.

    Args:
        refused: tensor → why it is not to be paired although its name is in both.

    Raises:
        ModelError: a model cannot be normalized, or the two have no float tensor in common.
    """
    refused = refused or {}
    normalized, changes = normalize(float_model)
    # As given, where that is float32: other tools' models have the names of the file, not ours.
    other = changes.widened or changes.narrowed
    as_given = float_model.opset >= LOWEST_OPSET and not other
    exact = infer_shapes(float_model) if as_given else normalized
    quantized = with_dequantized(normalize(quantized)[0])
    stripped = without_qdq(quantized)
    graphs = _Graphs(Graph(exact), Graph(quantized), Graph(stripped))
    tensors = {
        name
        for name in graphs.stripped.activations
        if name not in refused and _difference(graphs, name) is None and _is_boundary(graphs, name)
    }
    layers = []
    covered: dict[str, str] = {}
    for name in sorted(tensors - set(graphs.quantized.inputs), key=_place(graphs.quantized)):
        nodes = _segment(graphs.quantized, name, tensors)
        if not any(node.op_type == DEQUANTIZE for node in nodes):
            continue
        main = _main_node(graphs, nodes)
        layers.append(Layer(main.name, main.op_type, name, tuple(node.name for node in nodes)))
        covered |= {node.name: main.name for node in nodes if node.name not in covered}
    exponents, offsets = relation(float_model, quantized)
    computed = tensors - set(graphs.quantized.inputs)
    if not computed:
        raise ModelError(
            f"{quantized.name} and {float_model.name} compute no float32 tensor of the same name",
            hint="without --layers they can be compared",
        )
    return Pairing(
        exact, quantized, stripped, tuple(sorted(computed, key=_place(graphs.quantized))),
        tuple(layers), _unmatched(graphs, layers, covered, refused),
        {name: np.exp2(values).astype(np.float32)
         for name, values in exponents.items() if name in tensors},
        {name: values.astype(np.float32) for name, values in offsets.items() if name in tensors},
        _bounds(Graph(normalized), graphs.stripped, tensors),
    )  # fmt: skip


@dataclass(frozen=True)
class _Graphs:
    exact: Graph
    quantized: Graph
    stripped: Graph


def _place(graph: Graph) -> Any:
    return lambda tensor: graph.producers[tensor].index


def _difference(graphs: _Graphs, name: str) -> Refusal | None:
    """Why the tensor has no counterpart in the float model; None where it has one."""
    if name not in graphs.exact.producers and name not in graphs.exact.inputs:
        return Refusal(f"the float model has no tensor {name!r}")
    if name not in graphs.quantized.producers and name not in graphs.quantized.inputs:
        return Refusal(f"{name!r} is no tensor of the quantized model")
    if not graphs.exact.is_float(name):
        return Refusal(f"{name!r} is not known to be float32 in the float model")
    return None


def _is_boundary(graphs: _Graphs, name: str) -> bool:
    """Whether layers end here: not before a fused activation, nor amid pass-throughs."""
    stripped = graphs.stripped
    uses, producer = stripped.consumers(name), stripped.producers.get(name)
    if stripped.is_exposed(name) or producer is None:
        return True
    row = operator_of(uses[0].node) if len(uses) == 1 else None
    if row is not None and row.fuses:
        return False
    row = operator_of(producer)
    passes = row is not None and row.quantized is QuantizedRule.SHARED
    readers = graphs.quantized.consumers(name)
    return not (passes and readers and all(use.node.op_type == QUANTIZE for use in readers))


def _segment(graph: Graph, tensor: str, paired: set[str]) -> list[Node]:
    """The nodes between a paired tensor and those before it, in topological order."""
    found: dict[int, Node] = {}
    stack = [tensor]
    while stack:
        producer = graph.producers.get(stack.pop())
        if producer is None or producer.index in found:
            continue
        found[producer.index] = producer
        row = operator_of(producer)
        if row is None or row.scale is not ScaleRule.OBSERVE:  # a Shape reads no values
            stack.extend(name for name in producer.inputs if name and name not in paired)
    return [found[index] for index in sorted(found)]


def _is_weighted(graph: Graph, node: Node) -> bool:
    return is_weighted(node) and graph.is_constant(node.input(1))


def _main_node(graphs: _Graphs, nodes: list[Node]) -> Node:
    """The last weighted node, else the last that is no activation fused to another."""
    computing = [node for node in nodes if not is_qdq(node)]
    weighted = [
        node
        for node in computing
        if (same := graphs.stripped.node_named(node.name)) and _is_weighted(graphs.stripped, same)
    ]
    if weighted or not computing:
        return (weighted or nodes)[-1]
    rows = [(node, operator_of(node)) for node in computing]
    return next((n for n, row in reversed(rows) if row is None or not row.fuses), computing[-1])


def _unmatched(
    graphs: _Graphs, layers: list[Layer], covered: Mapping[str, str], refused: Mapping[str, Refusal]
) -> tuple[Unmatched, ...]:
    names = {layer.name for layer in layers}
    found = []
    for node in graphs.quantized.nodes:
        if node.name in names or not _is_quantized(graphs, node):
            continue
        written = kernel_output(graphs.stripped, graphs.stripped.by_name[node.name])
        why = refused.get(written) or _difference(graphs, written) or PASSES_ON
        where = covered.get(node.name)
        where = f"; it counts within {where!r}" if where else ""
        found.append(Unmatched(node.name, node.op_type, why.reason + where))
    return tuple(found)


def _is_quantized(graphs: _Graphs, node: Node) -> bool:
    """Whether the node has a quantized weight, or computes on integers in the operator's form."""
    graph, same = graphs.quantized, graphs.stripped.by_name.get(node.name)
    if is_qdq(node) or same is None:
        return False
    if operator_of(node) is None:
        constants = [graph.constant(name) for name in node.inputs]
        return any(value is not None and value.dtype.itemsize == 1 for value in constants)
    producer = graph.producers.get(node.input(1))
    dequantized = producer is not None and producer.op_type == DEQUANTIZE
    return dequantized and _is_weighted(graphs.stripped, same)


def _bounds(exact: Graph, stripped: Graph, tensors: set[str]) -> dict[str, tuple[float, float]]:
    """What the activations before a tensor limit it to, where the quantized model has none.

    ONNX Runtime's quantizer drops a Relu or Clip that the quantizer behind does anyway.
    """
    found = {}
    for name in sorted(tensors):
        here = stripped.producers.get(name)
        row = operator_of(here) if here else None
        if row is None or row.fuses:
            continue
        low, high = -math.inf, math.inf
        producer = exact.producers.get(name)
        while producer is not None and (row := operator_of(producer)) and row.fuses:
            clip = row.scale is ScaleRule.CLIP
            bounds = clip_bounds(exact, producer) if clip else (0.0, math.inf)
            if bounds is not None:
                low, high = max(low, bounds[0]), min(high, bounds[1])
            producer = exact.producers.get(producer.input(0))
        if (low, high) != (-math.inf, math.inf):
            found[name] = (low, high)
    return found
