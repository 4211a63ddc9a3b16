"""A model that computes, beside its values, the gradients of its tensors.

Only operators of inference are written, so ONNX Runtime runs it as any other model: of a
convolution, for example, a transposed one carries the gradient back. What a gradient is the
gradient of, the caller decides as it runs: the sum of outputs times *seeds*, which are inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import ModelProto

from onnxq.gradients.rules import RULES
from onnxq.gradients.writer import Unwritable, Writer
from onnxq.model.backward import Backward, backward_of
from onnxq.model.graph import Graph, Node, names_read_by
from onnxq.model.model import Model
from onnxq.model.rewrite import lowest_ir_version
from onnxq.refusal import Refusal

SEED = "@seed"
"""What follows a leaf's name in that of its seed."""

ADDS_WHERE_IT_SCATTERS = 16
"""Opset that scattered sums need. It is raised for nothing else: a RoiAlign means another thing
from there on."""

NO_PATH = Refusal("no float output depends on it")


@dataclass(frozen=True)
class BackwardModel:
    """The model, and how to call it.

    Attributes:
        model: inputs are those of the float model and the seeds.
        seeds: leaf → the input for its seed, of the leaf's shape.
        gradients: wanted tensor → output for its gradient.
        refused: wanted tensor → why it has none.
    """

    model: Model
    seeds: Mapping[str, str]
    gradients: Mapping[str, str]
    refused: Mapping[str, Refusal]


def backward_model(graph: Graph, wanted: Iterable[str], leaves: Collection[str]) -> BackwardModel:
    """Write the gradients of Σ leaf · seed into a copy of a float model.

    Its outputs are the wanted tensors that have a gradient, in their order, and then these
    gradients. A tensor has one where every path from it to a leaf does: behind an operator without
    a rule all that leads to it is refused, since a part of a gradient tells nothing.

    Args:
        graph: of a normalized model.
        leaves: float tensors whose errors count.
    """
    names = list(dict.fromkeys(wanted))
    pass_ = _Pass(graph, names, leaves)
    pass_.run()
    gradients = {name: total for name in names if (total := pass_.total(name))}
    refused = {name: pass_.refused.get(name, NO_PATH) for name in names if name not in gradients}
    seeds = {leaf: leaf + SEED for leaf in leaves}
    proto = _joined(graph, pass_.writer, seeds, gradients)
    return BackwardModel(Model.adopt(proto, graph.model.source), seeds, gradients, refused)


class _Pass:
    """One walk from the outputs to the inputs."""

    def __init__(self, graph: Graph, wanted: Collection[str], leaves: Collection[str]) -> None:
        self.graph, self.writer = graph, Writer(graph)
        self.refused: dict[str, Refusal] = {}
        self._parts: dict[str, list[str]] = {}
        self._read = [sorted(names_read_by(p)) for p in graph.model.message.graph.node]
        self._needed = self._behind(wanted)
        self._live = self._before(leaves)
        for leaf in leaves:
            self._parts[leaf] = [leaf + SEED]

    def _behind(self, wanted: Collection[str]) -> set[str]:
        """The wanted tensors, and what is computed from them."""
        found = set(wanted)
        for node in self.graph.nodes:
            if not found.isdisjoint(self._read[node.index]):
                found.update(node.results)
        return found

    def _before(self, leaves: Collection[str]) -> set[str]:
        """The leaves, and what they are computed from."""
        found = set(leaves)
        for node in reversed(self.graph.nodes):
            if not found.isdisjoint(node.results):
                found.update(self._read[node.index])
        return found

    def run(self) -> None:
        for node in reversed(self.graph.nodes):
            names = {
                name for name in self._read[node.index]
                if name in self._needed and self.graph.is_float(name)
            }  # fmt: skip
            if names and any(name in self._live for name in node.outputs):
                self._visit(node, names)

    def _visit(self, node: Node, names: set[str]) -> None:
        """Hand on what a node's outputs got to its inputs."""
        cut = next((self.refused[name] for name in node.outputs if name in self.refused), None)
        live = [name for name in node.outputs if name in self._live]
        rule, gradients = backward_of(node), [self.total(name) for name in node.outputs]
        compares = rule in {Backward.ZERO, Backward.SELECT} or all(map(self._is_truth, live))
        if cut is None and compares and not any(gradients):
            return  # nothing follows from a small change
        known = rule is Backward.SELECT or all(map(self.graph.is_float, live))
        if cut is None and (rule in {Backward.NONE, Backward.ZERO} or not known):
            cut = Refusal(f"no gradient is known of {node.op_type} ({node.name}) behind it")
        if cut is None and any(gradients):
            places = frozenset(i for i, name in enumerate(node.inputs) if name in names)
            try:
                found = RULES[rule](self.writer, node, gradients, places)
            except Unwritable as reason:
                cut = Refusal(f"no gradient is known of {node.op_type} ({node.name}): {reason}")
            else:
                for place, gradient in found.items():
                    self._parts.setdefault(node.inputs[place], []).append(gradient)
        if cut is not None:
            for name in names:
                self.refused.setdefault(name, cut)

    def _is_truth(self, name: str) -> bool:
        return self.graph.elem_type(name) == onnx.TensorProto.BOOL

    def total(self, name: str) -> str:
        """The gradient of a tensor, all of whose readers were visited; "" where it has none."""
        parts = self._parts.get(name, [])
        if name in self.refused or not parts:
            return ""
        if len(parts) > 1:
            self._parts[name] = parts = [self.writer.op("Sum", *parts)]
        return parts[0]


def _joined(
    graph: Graph, writer: Writer, seeds: Mapping[str, str], gradients: Mapping[str, str]
) -> ModelProto:
    """The nodes of both directions, as far as the outputs need them."""
    source = graph.model.message
    # What an Add hands on is the gradient of both of its operands.
    outputs = list(dict.fromkeys([*gradients, *gradients.values()]))
    proto = ModelProto(ir_version=source.ir_version)
    proto.opset_import.extend(source.opset_import)
    proto.functions.extend(source.functions)
    nodes = list(_needed([*source.graph.node, *writer.nodes], outputs))[::-1]
    adds = any(attribute.name == "reduction" for node in nodes for attribute in node.attribute)
    for entry in proto.opset_import:
        if entry.domain in {"", "ai.onnx"} and adds:
            entry.version = max(entry.version, ADDS_WHERE_IT_SCATTERS)
    proto.ir_version = max(proto.ir_version, lowest_ir_version(proto))
    read = {name for node in nodes for name in names_read_by(node)} | {*outputs}
    body = proto.graph
    body.name = "gradients"
    body.node.extend(nodes)
    tensors = [*source.graph.initializer, *writer.constants]
    body.initializer.extend(tensor for tensor in tensors if tensor.name in read)
    body.input.extend(source.graph.input)
    body.input.extend(
        onnx.helper.make_tensor_value_info(seed, onnx.TensorProto.FLOAT, graph.shape(leaf))
        for leaf, seed in seeds.items()
    )
    body.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs
    )
    return proto


def _needed(nodes: Sequence[onnx.NodeProto], targets: Iterable[str]) -> Iterator[onnx.NodeProto]:
    """The nodes that compute the targets, the last one first."""
    wanted = set(targets)
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted |= names_read_by(node)
            yield node
