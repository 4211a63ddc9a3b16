"""What protobuf lets pass and every reader of a model relies on: text, element types, sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
)

from onnxq.model import elements, split_files
from onnxq.model.graph import graphs_in
from onnxq.refusal import Refusal

MOST_ELEMENTS = 1 << 48
"""More would fit the address space of no machine, and overflow numpy's sizes."""

FOREIGN = "onnxq.foreign"
"""Domain under which the checker, which looks into no other, passes over an operator."""

NO_TEXT = "a name or text in it is not UTF-8"


def check_structure(proto: ModelProto) -> Refusal | None:
    """What is wrong with the model, one line; None where nothing is."""
    if not _is_text(proto):
        return Refusal(NO_TEXT)
    for graph in graphs_in(proto.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if _elem_type(info) not in elements.KNOWN:
                return Refusal(f"{info.name!r} has the unknown element type {_elem_type(info)}")
            sizes = [size.dim_value for size in info.type.tensor_type.shape.dim]
            if math.prod(size for size in sizes if size > 0) > MOST_ELEMENTS:
                return Refusal(f"{info.name!r} has a shape that no memory can hold")
    for tensor in (t for graph in graphs_in(proto.graph) for t in _tensors(graph)):
        wrong = _check_tensor(tensor)
        if wrong is not None:
            return Refusal(f"tensor {tensor.name!r} {wrong}")
    return None


def check_validity(proto: ModelProto, source: ModelProto | None = None) -> None:
    """ONNX's own checker, but for what ONNX Runtime takes although ONNX does not.

    That are outputs without a shape, and operators of its own in the default domain.

    Args:
        source: the model that this one was made from: it has all such operators already.

    Raises:
        onnx.checker.ValidationError, ValueError: what the checker raises.
    """
    unshaped = [
        index
        for index, output in enumerate(proto.graph.output)
        if output.type.HasField("tensor_type") and not output.type.tensor_type.HasField("shape")
    ]
    nodes = enumerate(proto.graph.node)
    before = None if source is None else {node.op_type for node in source.graph.node}
    foreign = [
        i for i, node in nodes
        if not has_schema(proto, node) and (before is None or node.op_type in before)
    ]  # fmt: skip
    # It makes copies, and asks nothing of weights that `check_structure` does not.
    checked = split_files.without_weights(proto)
    for index in unshaped:
        checked.graph.output[index].type.tensor_type.shape.SetInParent()
    for index in foreign:
        checked.graph.node[index].domain = FOREIGN
    if foreign:
        checked.opset_import.add(domain=FOREIGN, version=1)
    onnx.checker.check_model(checked)


def has_schema(proto: ModelProto, node: NodeProto) -> bool:
    """Whether ONNX knows the operator; of another domain, or a function, it need not."""
    if node.domain not in {"", "ai.onnx"}:
        return True
    if any(f.name == node.op_type and f.domain == node.domain for f in proto.functions):
        return True
    opset = next((o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), 1)
    try:
        onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return True


def _elem_type(info: ValueInfoProto) -> int:
    return int(info.type.tensor_type.elem_type)


def _attributes(graph: GraphProto) -> Iterator[AttributeProto]:
    return (attribute for node in graph.node for attribute in node.attribute)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for attribute in _attributes(graph):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _check_tensor(tensor: TensorProto) -> Refusal | None:
    """What is wrong with a tensor whose values are in the model; None where nothing is."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return None  # its size was compared with the file's
    if tensor.data_type not in elements.KNOWN:
        return Refusal(f"has the unknown element type {tensor.data_type}")
    if any(size < 0 for size in tensor.dims):
        return Refusal("has a negative size")
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data") and tensor.data_type in elements.STORED:
        expected, found = elements.raw_size(tensor.data_type, count), len(tensor.raw_data)
        unit = "bytes"
    else:
        expected, found = elements.field_size(tensor.data_type, count), _stored(tensor)
        unit = "values"
    return (
        None
        if expected == found
        else Refusal(f"has {found} {unit} where its shape takes {expected}")
    )


def _stored(tensor: TensorProto) -> int:
    fields: tuple[Sequence[Any], ...] = (
        tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data,
        tensor.uint64_data, tensor.string_data,
    )  # fmt: skip
    return sum(map(len, fields))


def _is_text(message: Message) -> bool:
    """Whether every string in it is UTF-8: protobuf hands over the bytes of those that are not.

    That is its C implementation; the one in Python refuses them when it parses.
    """
    if isinstance(message, TensorProto):
        # Its values are bytes and numbers, gigabytes of them.
        entries = [text for entry in message.external_data for text in (entry.key, entry.value)]
        return all(isinstance(text, str) for text in (message.name, message.doc_string, *entries))
    for field, value in message.ListFields():
        items = value if hasattr(value, "append") else [value]
        if field.message_type is not None:
            if not all(map(_is_text, items)):
                return False
        elif field.type == FieldDescriptor.TYPE_STRING and not all(
            isinstance(text, str) for text in items
        ):
            return False
    return True
