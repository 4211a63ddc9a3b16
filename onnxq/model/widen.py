"""Models of other float types as float32: what is quantized is float32, and the CPU computes it.

Inputs and outputs keep their types, behind a Cast. Every float16 is a float32, so the weights of
`widen` stay the same; activations are no longer rounded to 11 (or 8) bits in between. What
`onnxq.model.doubles` narrows is rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from onnxq.model import external
from onnxq.model.graph import bodies_of
from onnxq.model.model import Model

NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "output_dtype", "precision"})
"""Attributes that name an element type."""


def widen(model: Model) -> tuple[Model, int]:
    """The model in float32, and how many tensors it had in a narrower type.

    A model without any is returned as it is.
    """
    return in_float32(model, NARROW)


def in_float32(model: Model, kinds: Collection[int]) -> tuple[Model, int]:
    """The model with all that has one of these element types in float32, and how many tensors.

    A model without any is returned as it is. Constants that float32 does not reach become its
    largest number.
    """
    if not _has(model.message.graph, kinds):
        return model, 0
    proto = ModelProto()
    proto.CopyFrom(model.message)
    graph = proto.graph
    given = {tensor.name for tensor in graph.initializer}
    inputs = [i for i in graph.input if _type(i) in kinds and i.name not in given]
    fed = {info.name for info in graph.input}
    # An input that is an output too is passed through: there is nothing to cast back.
    outputs = [o for o in graph.output if _type(o) in kinds and o.name not in fed]
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | given | fed
    renamed: dict[str, str] = {}
    for info in (*inputs, *outputs):
        renamed[info.name] = free_name(f"{info.name}.float32", taken)
    before = [cast(i.name, renamed[i.name], TensorProto.FLOAT) for i in inputs]
    after = [cast(renamed[o.name], o.name, _type(o)) for o in outputs]
    kept = {i.name: _type(i) for i in (*inputs, *graph.output) if _type(i) in kinds}
    count = _convert_graph(graph, kinds, renamed)
    for info in (*graph.input, *graph.output):
        if info.name in kept:
            info.type.tensor_type.elem_type = kept[info.name]
    names = {node.name for node in graph.node}
    for node in (*before, *after):
        node.name = free_name(node.name, names)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return Model.adopt(proto, model.source), count


def _has(graph: GraphProto, kinds: Collection[int]) -> bool:
    return (
        any(t.data_type in kinds for t in graph.initializer)
        or any(_type(i) in kinds for i in (*graph.input, *graph.output, *graph.value_info))
        or any(
            a.t.data_type in kinds or (a.name in TYPE_ATTRIBUTES and a.i in kinds)
            for node in graph.node
            for a in node.attribute
        )
        or any(_has(body, kinds) for node in graph.node for body in bodies_of(node))
    )


def _convert_graph(graph: GraphProto, kinds: Collection[int], renamed: dict[str, str]) -> int:
    """Convert in place, with tensors renamed; how many tensors were of these types."""
    count = 0
    for tensor in graph.initializer:
        if tensor.data_type in kinds:
            tensor.CopyFrom(_as_float32(tensor))
            count += 1
    for info in (*graph.input, *graph.output, *graph.value_info):
        for declared in _tensor_types(info.type):
            if declared.elem_type in kinds:
                declared.elem_type = TensorProto.FLOAT
                count += 1
    for node in graph.node:
        _convert_node(node, kinds, renamed)
        count += sum(_convert_graph(body, kinds, renamed) for body in bodies_of(node))
    return count


def _convert_node(node: NodeProto, kinds: Collection[int], renamed: dict[str, str]) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            names[index] = renamed.get(name, name)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type in kinds:
            attribute.t.CopyFrom(_as_float32(attribute.t))
        elif attribute.name in TYPE_ATTRIBUTES and attribute.i in kinds:
            attribute.i = TensorProto.FLOAT


def _as_float32(tensor: TensorProto) -> TensorProto:
    return numpy_helper.from_array(nearest_float32(external.values_of(tensor)), tensor.name)


def nearest_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """The values in float32; finite ones stay finite, such as masks of −1.8e308."""
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    beyond = np.isinf(found) & np.isfinite(values)
    largest = np.finfo(np.float32).max
    return np.where(beyond, np.copysign(largest, found), found) if beyond.any() else found


def _tensor_types(declared: onnx.TypeProto) -> Iterator[onnx.TypeProto.Tensor]:
    """The tensor that is declared, or those of a sequence, a map or an optional value."""
    kind = declared.WhichOneof("value")
    if kind == "tensor_type":
        yield declared.tensor_type
    elif kind in {"sequence_type", "optional_type"}:
        yield from _tensor_types(getattr(declared, kind).elem_type)
    elif kind == "map_type":
        yield from _tensor_types(declared.map_type.value_type)


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
