"""Protos that run a model in pieces: cut at given tensors, or with an error added to them.

Only the output of a tensor's producer is renamed, so whatever reads the tensor, the bodies of If
and Loop too, reads what is fed instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from onnxq.model.graph import names_read_by
from onnxq.model.model import Model

OWN, RAW, DELTA = "@own", "@raw", "@delta"

LOWEST_IR = 4
"""First IR version in which a graph input can have a default."""


def cut(model: Model, tensors: Iterable[str], wanted: Collection[str] | None = None) -> ModelProto:
    """A model that computes each tensor from the values fed for the ones before it.

    Inputs: the model's own, and the tensors. Outputs: `tensor@own` for each.

    Args:
        wanted: those of the tensors to compute; only what they read is an input then.
    """
    proto, names = _copy(model), list(tensors)
    produced = _rename_outputs(proto.graph.node, names, OWN)
    made = [name for name in produced if wanted is None or name in wanted]
    read = set(produced)
    if wanted is not None:
        nodes = needed_for(proto.graph.node, {name + OWN for name in made})
        read = {name for node in nodes for name in names_read_by(node)}
        kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
        del proto.graph.node[:], proto.graph.initializer[:]
        proto.graph.node.extend(nodes)
        proto.graph.initializer.extend(kept)
    proto.graph.input.extend(_float(name) for name in produced if name in read)
    del proto.graph.output[:]
    proto.graph.output.extend(_float(name + OWN) for name in made)
    return proto


def skeleton(model: Model) -> Model:
    """The model without the values of its weights: enough to see what reads what."""
    whole, proto = model.message, ModelProto()
    proto.ir_version = whole.ir_version
    proto.opset_import.extend(whole.opset_import)
    proto.functions.extend(whole.functions)
    proto.graph.node.extend(whole.graph.node)
    proto.graph.input.extend(whole.graph.input)
    proto.graph.output.extend(whole.graph.output)
    proto.graph.value_info.extend(whole.graph.value_info)
    for tensor in whole.graph.initializer:
        proto.graph.initializer.add(name=tensor.name, data_type=tensor.data_type)
    for sparse in whole.graph.sparse_initializer:
        proto.graph.sparse_initializer.add().values.name = sparse.values.name
    return Model(proto)


def needed_for(nodes: Sequence[NodeProto], targets: Collection[str]) -> list[NodeProto]:
    """The nodes that compute the targets, in order."""
    needed, found = set(targets), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            found.append(node)
            needed |= names_read_by(node)
    return found[::-1]


def with_deltas(model: Model, tensors: Iterable[str]) -> ModelProto:
    """The model with `tensor@delta` added to each tensor: an optional input, 0 by default.

    The tensors are outputs besides the model's own.
    """
    proto, names = _copy(model), list(tensors)
    proto.ir_version = max(proto.ir_version, LOWEST_IR)
    produced = set(_rename_outputs(proto.graph.node, names, RAW))
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        nodes.append(node)
        for output in node.output:
            name = output.removesuffix(RAW)
            if name != output and name in produced:
                nodes.append(onnx.helper.make_node("Add", [output, name + DELTA], [name]))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    nothing = np.zeros((), np.float32)
    present = {output.name for output in proto.graph.output}
    for name in names:
        proto.graph.input.append(_float(name + DELTA))
        proto.graph.initializer.append(numpy_helper.from_array(nothing, name + DELTA))
        if name not in present:
            proto.graph.output.append(_float(name))
    return proto


def _copy(model: Model) -> ModelProto:
    proto = ModelProto()
    proto.CopyFrom(model.message)
    del proto.graph.value_info[:]
    return proto


def _rename_outputs(nodes: Iterable[NodeProto], names: Sequence[str], suffix: str) -> list[str]:
    """Rename the tensors where they are produced; returns those found, in order."""
    wanted = set(names)
    found = []
    for node in nodes:
        for position, name in enumerate(node.output):
            if name in wanted:
                node.output[position] = name + suffix
                found.append(name)
    return found


def _float(name: str) -> ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
