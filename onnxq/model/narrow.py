"""The float remainder of a QDQ model in float16, with Casts where float32 has to stay.

Which operators take float16, and at which inputs, is in ONNX's operator schemas. Scales keep their
value: a QuantizeLinear or DequantizeLinear whose scales are no float16 numbers stays in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from onnxq.model import external
from onnxq.model.graph import Graph, Node, names_in_subgraphs
from onnxq.model.model import Model
from onnxq.model.operators import is_dequantize, is_quantize, operator_of
from onnxq.model.widen import TYPE_ATTRIBUTES, cast, free_name
from onnxq.refusal import Refusal

OPSET = 19
"""The first whose QuantizeLinear and DequantizeLinear know float16."""

LARGEST = 65504.0 / 2
"""Largest magnitude seen that may become float16: other samples may be twice as large."""

FLOAT, HALF = "tensor(float)", "tensor(float16)"


@dataclass(frozen=True)
class Kept:
    """A node that stays in float32, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class Narrowing:
    """What `narrow` did.

    Attributes:
        nodes: how many nodes compute in, or convert from or to, float16 now.
        kept: nodes that stay in float32.
    """

    nodes: int
    kept: tuple[Kept, ...]


def narrow(model: Model, largest: Mapping[str, float]) -> tuple[Model, Narrowing]:
    """Turn float32 into float16 wherever the operators and the values allow it.

    Inputs and outputs keep their types.

    Args:
        model: of operator set 19 or newer; its main graph in topological order.
        largest: activation → its largest magnitude. What is missing here stays in float32.
    """
    graph = Graph(model)
    float32 = [node for node in graph.nodes if any(map(graph.is_float, _tensors(node)))]
    refusals = {node.name: _refusal(graph, node, largest) for node in float32}
    half = _choose(graph, {name for name, refusal in refusals.items() if refusal is None})
    proto = ModelProto()
    proto.CopyFrom(model.message)
    _Writer(graph, half, proto.graph).write()
    kept = tuple(Kept(name, each.reason) for name, each in refusals.items() if each)
    return Model.adopt(proto, model.source), Narrowing(len(half), kept)


def _tensors(node: Node) -> list[str]:
    return [name for name in (*node.inputs, *node.outputs) if name]


def _refusal(graph: Graph, node: Node, largest: Mapping[str, float]) -> Refusal | None:
    """Why a node with float32 tensors has to keep them; None where float16 will do."""
    types = _types(graph, node)
    if types is None:
        return Refusal(f"{node.op_type} has no schema")
    attributes = graph.model.message.graph.node[node.index].attribute
    row = operator_of(node)
    if row is not None and row.float32_kernel and _is_between_q_and_dq(graph, node):
        return Refusal(f"ONNX Runtime makes it a {row.float32_kernel}, whose scales are float32")
    if any(a.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS} for a in attributes):
        return Refusal("it has a body of its own")
    if any(
        a.name in TYPE_ATTRIBUTES or a.type in {AttributeProto.TENSOR, AttributeProto.SPARSE_TENSOR}
        for a in attributes
    ):
        return Refusal("it names the type it computes")
    found = (
        _refusal_of_value(graph, node, name, allowed, largest)
        for name, allowed in types.items()
        if graph.is_float(name) and allowed != {FLOAT}
    )
    return next((refusal for refusal in found if refusal), None)


def _is_between_q_and_dq(graph: Graph, node: Node) -> bool:
    """Whether all it reads is dequantized, and a reader quantizes what it writes.

    In float32 there it needs no Casts.
    """
    makers = [graph.producers.get(name) for name in node.inputs]
    readers = [use.node for name in node.outputs for use in graph.consumers(name)]
    return all(m is not None and is_dequantize(m) for m in makers) and any(
        is_quantize(reader) for reader in readers
    )


def _refusal_of_value(
    graph: Graph, node: Node, name: str, allowed: set[str], largest: Mapping[str, float]
) -> Refusal | None:
    """Why a tensor of the node cannot be float16."""
    if HALF not in allowed:
        return Refusal(f"{node.op_type} has no float16 form")
    value = graph.constant(name)
    if value is not None:
        fits = _fits(np.asarray(value), exact=_is_scale(node, name))
        return None if fits else Refusal(f"{name} is no float16")
    if name not in largest:
        return Refusal(f"the range of {name} is not known")
    if largest[name] > LARGEST:
        return Refusal(f"{name} reaches {largest[name]:.4g}, float16 ends at 65504")
    return None


def _fits(values: np.ndarray, *, exact: bool) -> bool:
    if exact:
        with np.errstate(over="ignore"):
            return bool((values.astype(np.float16).astype(np.float32) == values).all())
    return bool(np.abs(values).max(initial=0.0) <= LARGEST)


def _is_scale(node: Node, name: str) -> bool:
    return (is_quantize(node) or is_dequantize(node)) and name == node.input(1)


def _types(graph: Graph, node: Node) -> dict[str, set[str]] | None:
    """Tensor of the node → the types ONNX allows there; None for an operator it does not know."""
    if not onnx.defs.has(node.op_type, graph.model.opset, node.domain):
        return None
    schema = onnx.defs.get_schema(node.op_type, graph.model.opset, node.domain)
    found: dict[str, set[str]] = {}
    for names, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for position, name in enumerate(names):
            formal = formals[min(position, len(formals) - 1)]
            if name:
                found[name] = found.get(name, set(formal.types)) & set(formal.types)
    return found


def _choose(graph: Graph, able: set[str]) -> frozenset[str]:
    """Nodes to compute in float16: what only converts follows its neighbors."""
    chosen = set(able)
    for node in graph.nodes:
        computed = [name for name in node.results if graph.is_float(name)]
        read = [
            name for name in node.inputs
            if name and graph.is_float(name) and graph.constant(name) is None
        ]  # fmt: skip
        if node.name not in able:
            continue
        if not computed:
            makers = [graph.producers.get(name) for name in read]
            follow = any(maker is not None and maker.name in chosen for maker in makers)
        elif not read:
            readers = [use.node.name for name in computed for use in graph.consumers(name)]
            follow = any(reader in able for reader in readers)
        else:
            follow = True
        if not follow:
            chosen.discard(node.name)
    return frozenset(chosen)


class _Writer:
    """Rewrites one graph: each float32 tensor exists in float16, in float32, or in both."""

    def __init__(self, graph: Graph, half: frozenset[str], target: GraphProto) -> None:
        self._graph, self._half, self._target = graph, half, target
        self._taken = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
        # What others read by this name: bodies of If and Loop, and the caller.
        self._fixed = {output.name for output in target.output} | {
            name for node in target.node for name in names_in_subgraphs(node)
        }
        self._source = graph.model.message.graph.node
        self._copies: dict[tuple[str, bool], str] = {}
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {t.name: t for t in target.initializer}

    def write(self) -> None:
        for node in self._graph.nodes:
            self._write_node(node)
        used = {name for node in self._nodes for name in node.input} | self._fixed
        del self._target.node[:]
        self._target.node.extend(self._nodes)
        kept = [t for name, t in self._constants.items() if name in used]
        del self._target.initializer[:]
        self._target.initializer.extend(kept)
        for info in self._target.value_info:
            if self._copies.get((info.name, True)) == info.name:
                info.type.tensor_type.elem_type = TensorProto.FLOAT16

    def _write_node(self, node: Node) -> None:
        types = _types(self._graph, node) or {}
        proto = NodeProto()
        proto.CopyFrom(self._source[node.index])
        for position, name in enumerate(node.inputs):
            if name and self._graph.is_float(name):
                proto.input[position] = self._copy(name, self._is_half(node, types, name))
        after: list[NodeProto] = []
        for position, name in enumerate(node.outputs):
            if name and self._graph.is_float(name) and self._is_half(node, types, name):
                written = self._free(name) if name in self._fixed else name
                proto.output[position] = written
                self._copies[name, True] = written
                if written != name:
                    after.append(cast(written, name, TensorProto.FLOAT))
                    self._copies[name, False] = name
        self._nodes.extend([proto, *after])

    def _is_half(self, node: Node, types: Mapping[str, set[str]], name: str) -> bool:
        return node.name in self._half and HALF in types.get(name, ())

    def _copy(self, name: str, half: bool) -> str:
        """The tensor in the type asked for, cast to it the first time."""
        if (name, half) in self._copies:
            return self._copies[name, half]
        if not half and (name, True) not in self._copies:
            return name
        copy = self._free(name, "float16" if half else "float32")
        self._copies[name, half] = copy
        if half:  # what is narrowed here is float32 by its own name, for later readers too
            self._copies[name, False] = name
        if half and name in self._constants and self._graph.constant(name) is not None:
            values = external.values_of(self._constants[name]).astype(np.float16)
            self._constants[copy] = numpy_helper.from_array(values, copy)
        else:
            source = name if half else self._copies[name, True]
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self._nodes.append(cast(source, copy, to))
        return copy

    def _free(self, name: str, kind: str = "float16") -> str:
        found = free_name(f"{name}.{kind}", self._taken)
        self._taken.add(found)
        return found
