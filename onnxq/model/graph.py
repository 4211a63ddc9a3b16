"""A read-only index of a model's main graph: nodes, tensors, who produces and who uses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from onnxq.errors import ModelError
from onnxq.model import external
from onnxq.model.model import Dimension, Model, shape_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One operation. `inputs` and `outputs` keep "" for what is optional and absent."""

    index: int
    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def input(self, position: int) -> str:
        """The input's tensor name, "" where the node has none there."""
        return self.inputs[position] if position < len(self.inputs) else ""

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    @property
    def results(self) -> tuple[str, ...]:
        """The outputs that are there: "" is no tensor, and would tie all that lack one."""
        return tuple(name for name in self.outputs if name)


@dataclass(frozen=True)
class Use:
    """A place where a tensor is read: input number `position` of node `node`."""

    node: Node
    position: int


class Place(NamedTuple):
    """The same by name, a value that plans and records are keyed by."""

    node: str
    position: int


class Graph:
    """The index. Build it once for each model; every stage reads it and none changes it."""

    def __init__(self, model: Model) -> None:
        proto = model.message.graph
        self.model = model
        self.nodes: tuple[Node, ...] = tuple(
            _node(index, node) for index, node in enumerate(proto.node)
        )
        self.inputs: tuple[str, ...] = tuple(spec.name for spec in model.inputs)
        self.outputs: tuple[str, ...] = tuple(output.name for output in proto.output)
        self._initializers = {tensor.name: tensor for tensor in proto.initializer}
        self._values: dict[str, Array] = {}
        self.producers: Mapping[str, Node] = MappingProxyType(
            {name: node for node in self.nodes for name in node.results}
        )
        self._captured = frozenset(name for node in proto.node for name in names_in_subgraphs(node))

    @cached_property
    def uses(self) -> Mapping[str, tuple[Use, ...]]:
        """Every read of a tensor by a node of the main graph."""
        found: dict[str, list[Use]] = {}
        for node in self.nodes:
            for position, name in enumerate(node.inputs):
                if name:
                    found.setdefault(name, []).append(Use(node, position))
        return MappingProxyType({name: tuple(uses) for name, uses in found.items()})

    def consumers(self, name: str) -> tuple[Use, ...]:
        return self.uses.get(name, ())

    def is_exposed(self, name: str) -> bool:
        """Whether a caller or a subgraph reads the tensor, besides the main graph's nodes."""
        return name in self.outputs or self.is_captured(name)

    def is_captured(self, name: str) -> bool:
        """Whether a subgraph reads the tensor: the body of an If, Loop or Scan."""
        return name in self._captured

    def is_read(self, name: str) -> bool:
        """Whether anything at all reads the tensor."""
        return name in self.uses or self.is_exposed(name)

    def is_constant(self, name: str) -> bool:
        """Whether the tensor is an initializer that no caller can override."""
        return name in self._initializers and name not in self._overridable

    @cached_property
    def _overridable(self) -> frozenset[str]:
        return frozenset(i.name for i in self.model.message.graph.input)

    def constant(self, name: str) -> Array | None:
        """The value of a constant, read-only; None where the tensor is not one."""
        if not name or not self.is_constant(name):
            return None
        if name not in self._values:
            tensor = self._initializers[name]
            value = external.values_of(tensor).view()
            value.flags.writeable = False
            if external.is_parked(tensor):
                # Mapped anew each time: pages that were looked at count as this process's memory.
                return value
            self._values[name] = value
        return self._values[name]

    def value(self, name: str) -> Array:
        """The value of what an earlier stage found to be a constant.

        Raises:
            ModelError: it is none.
        """
        found = self.constant(name)
        if found is None:
            raise ModelError(f"{name!r} is not a constant")
        return found

    @property
    def constants(self) -> tuple[str, ...]:
        return tuple(name for name in self._initializers if self.is_constant(name))

    @cached_property
    def _infos(self) -> Mapping[str, onnx.ValueInfoProto]:
        proto = self.model.message.graph
        return {i.name: i for i in (*proto.value_info, *proto.input, *proto.output)}

    def shape(self, name: str) -> tuple[Dimension, ...] | None:
        """The inferred shape; None where even the rank is unknown."""
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        info = self._infos.get(name)
        return None if info is None else shape_of(info)

    def rank(self, name: str) -> int | None:
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def is_tensor(self, name: str) -> bool:
        """False for what is known to be a sequence, a map or an optional value."""
        info = self._infos.get(name)
        return info is None or _may_be_tensor(info)

    def elem_type(self, name: str) -> int:
        """The ONNX element type number; 0 where unknown."""
        if name in self._initializers:
            return int(self._initializers[name].data_type)
        info = self._infos.get(name)
        return 0 if info is None else int(info.type.tensor_type.elem_type)

    def is_float(self, name: str) -> bool:
        """Whether the tensor is float32, the only type onnxq quantizes."""
        return self.elem_type(name) == onnx.TensorProto.FLOAT

    def why_not_float(self, name: str) -> str:
        """Says of a tensor that is not known to be float32 what it is."""
        kind = self.elem_type(name)
        if not kind:
            return f"the type of {name!r} is unknown"
        return f"{name!r} is {onnx.helper.tensor_dtype_to_np_dtype(kind)}, not float32"

    @cached_property
    def activations(self) -> tuple[str, ...]:
        """Float tensors computed from the inputs, in the order they appear."""
        names = [*self.inputs, *(name for node in self.nodes for name in node.results)]
        return tuple(name for name in names if self.is_float(name))

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by name; in a normalized model every node has a name of its own."""
        return MappingProxyType({node.name: node for node in self.nodes})

    def node_named(self, name: str) -> Node | None:
        return self.by_name.get(name)


def known_as_other(model: Model) -> frozenset[str]:
    """What is no tensor, but a sequence, a map or an optional value, as far as that is known."""
    proto = model.message.graph
    infos = (*proto.value_info, *proto.input, *proto.output)
    return frozenset(info.name for info in infos if not _may_be_tensor(info))


def _may_be_tensor(info: onnx.ValueInfoProto) -> bool:
    return info.type.WhichOneof("value") in {None, "tensor_type"}


def _node(index: int, proto: NodeProto) -> Node:
    attributes = {
        attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in proto.attribute
    }
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    return Node(
        index, proto.name, proto.op_type, domain, tuple(proto.input), tuple(proto.output),
        MappingProxyType(attributes),
    )  # fmt: skip


def nodes_in(body: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, each followed by those in the bodies of an If, Loop or Scan."""
    for node in body:
        yield node
        for inner in bodies_of(node):
            yield from nodes_in(inner.node)


def bodies_of(node: NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan; none of another node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs_in(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those in the bodies of its nodes."""
    yield graph
    for node in graph.node:
        for body in bodies_of(node):
            yield from graphs_in(body)


def names_read_by(node: NodeProto) -> set[str]:
    """What a node reads, in the bodies of its If, Loop or Scan too."""
    return {name for name in node.input if name} | names_in_subgraphs(node)


def names_in_subgraphs(node: NodeProto) -> set[str]:
    """Tensor names that the bodies of If, Loop and Scan read."""
    names: set[str] = set()
    for body in bodies_of(node):
        for inner in body.node:
            names.update(name for name in inner.input if name)
            names |= names_in_subgraphs(inner)
        names.update(output.name for output in body.output)
    return names
