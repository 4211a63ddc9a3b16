"""float16 and bfloat16 models as float32: what is quantized is float32, and the CPU computes it.

Inputs and outputs keep their types, behind a Cast. Every float16 is a float32, so the weights stay
the same; activations are no longer rounded to 11 (or 8) bits in between.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from onnxq.model import external
from onnxq.model.model import Model

NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "output_dtype", "precision"})
"""Attributes that name an element type."""


def widen(model: Model) -> tuple[Model, int]:
    """The model in float32, and how many tensors it had in a narrower type.

    A model without any is returned as it is.
    """
    if not _has_narrow(model.proto.graph):
        return model, 0
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    given = {tensor.name for tensor in graph.initializer}
    inputs = [i for i in graph.input if _type(i) in NARROW and i.name not in given]
    outputs = [o for o in graph.output if _type(o) in NARROW]
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | given
    renamed: dict[str, str] = {}
    for info in (*inputs, *outputs):
        renamed[info.name] = free_name(f"{info.name}.float32", taken)
    before = [cast(i.name, renamed[i.name], TensorProto.FLOAT) for i in inputs]
    after = [cast(renamed[o.name], o.name, _type(o)) for o in outputs]
    kept = {info.name: _type(info) for info in (*inputs, *outputs)}
    count = _widen_graph(graph, renamed)
    for info in (*graph.input, *graph.output):
        if info.name in kept:
            info.type.tensor_type.elem_type = kept[info.name]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return Model.adopt(proto, model.source), count


def _has_narrow(graph: GraphProto) -> bool:
    return (
        any(t.data_type in NARROW for t in graph.initializer)
        or any(_type(i) in NARROW for i in (*graph.input, *graph.output, *graph.value_info))
        or any(
            a.t.data_type in NARROW or (a.name in TYPE_ATTRIBUTES and a.i in NARROW)
            for node in graph.node
            for a in node.attribute
        )
        or any(_has_narrow(body) for node in graph.node for body in _bodies(node))
    )


def _widen_graph(graph: GraphProto, renamed: dict[str, str]) -> int:
    """Widen in place, with tensors renamed; how many tensors were narrow."""
    count = 0
    for tensor in graph.initializer:
        if tensor.data_type in NARROW:
            tensor.CopyFrom(_wide(tensor))
            count += 1
    for info in (*graph.input, *graph.output, *graph.value_info):
        if _type(info) in NARROW:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
            count += 1
    for node in graph.node:
        _widen_node(node, renamed)
        count += sum(_widen_graph(body, renamed) for body in _bodies(node))
    return count


def _widen_node(node: NodeProto, renamed: dict[str, str]) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            names[index] = renamed.get(name, name)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type in NARROW:
            attribute.t.CopyFrom(_wide(attribute.t))
        elif attribute.name in TYPE_ATTRIBUTES and attribute.i in NARROW:
            attribute.i = TensorProto.FLOAT


def _wide(tensor: TensorProto) -> TensorProto:
    values = external.values_of(tensor).astype(np.float32)
    return numpy_helper.from_array(values, tensor.name)


def _bodies(node: NodeProto) -> list[GraphProto]:
    return [
        body
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)
    ]


def _type(info: onnx.ValueInfoProto) -> int:
    return int(info.type.tensor_type.elem_type)


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with as many _ behind it as it takes to be new."""
    while name in taken:
        name += "_"
    return name


def cast(source: str, target: str, to: int) -> NodeProto:
    """The node that casts the tensor `source` to another type and name."""
    return onnx.helper.make_node("Cast", [source], [target], name=f"Cast_{target}", to=to)
