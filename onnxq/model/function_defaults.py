"""Attributes that calls of model-local functions leave to their defaults, written into the calls.

ONNX's inliner drops them (1.23): the nodes inside would get the defaults of their own operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from onnxq.model.graph import nodes_in

Key = tuple[str, str, str]
Functions = Mapping[Key, FunctionProto]


def with_defaults_given(proto: ModelProto) -> ModelProto:
    """The model, where no call of a function relies on a default; itself if none does.

    A function that hands its own attribute on to one with a default has that default itself then.
    """
    if not any(function.attribute_proto for function in proto.functions):
        return proto
    given = ModelProto()
    given.CopyFrom(proto)
    functions = {(f.domain, f.name, f.overload): f for f in given.functions}
    # A default that is found reaches those who call the function, and so on.
    while any(_hand_on(function, functions) for function in given.functions):
        pass
    bodies = (given.graph.node, *(function.node for function in given.functions))
    for node in chain.from_iterable(map(nodes_in, bodies)):
        there = {attribute.name for attribute in node.attribute}
        node.attribute.extend(each for each in _defaults(node, functions) if each.name not in there)
    return given


def _defaults(node: NodeProto, functions: Functions) -> list[AttributeProto]:
    called = functions.get((node.domain, node.op_type, node.overload))
    return [] if called is None else list(called.attribute_proto)


def _hand_on(function: FunctionProto, functions: Functions) -> bool:
    """Make attributes without a default, which calls inside have one for, attributes with it."""
    found: dict[str, AttributeProto] = {}
    for node in nodes_in(function.node):
        defaults = {each.name: each for each in _defaults(node, functions)}
        for name, taken in _references(node):
            if name in defaults and taken in function.attribute:
                found[taken] = defaults[name]
    for taken, default in found.items():
        function.attribute.remove(taken)
        own = function.attribute_proto.add()
        own.CopyFrom(default)
        own.name = taken
    return bool(found)


def _references(node: NodeProto) -> Iterator[tuple[str, str]]:
    """A node's attributes that are those of the function around it, and their names there."""
    return ((each.name, each.ref_attr_name) for each in node.attribute if each.ref_attr_name)
