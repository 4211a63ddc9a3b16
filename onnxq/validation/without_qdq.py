"""A QDQ model without its Q/DQ: the same graph with its rounded weights and nothing else rounded.

It shows the graph as its float original was, whatever Q/DQ hide: which activation follows a
convolution, where the weights are. Running it tells what the weights' rounding alone does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import DEQUANTIZE, DYNAMIC_QUANTIZE, QUANTIZE
from onnxq.model.session import open_session, run

Array = NDArray[Any]


_QUANTIZERS = frozenset({QUANTIZE, DYNAMIC_QUANTIZE})


def is_qdq(node: Node) -> bool:
    """Whether the node quantizes or dequantizes."""
    return node.op_type in {*_QUANTIZERS, DEQUANTIZE}


def without_qdq(model: Model) -> Model:
    """Remove the Q/DQ pairs of activations and replace those of weights by the rounded weight.

    Args:
        model: normalized, so that constants are initializers and nodes have names.

    Returns:
        Readers of an output read it still, and not what is quantized to it: cut at that tensor,
        this model takes the same inputs as the quantized one.
    """
    graph = Graph(model)
    constant = _constant_nodes(graph)
    values = _evaluate(model, constant)
    stands_for: dict[str, str] = {}
    shown: dict[str, str] = {}
    for node in graph.nodes:
        pair = _pair(graph, node)
        if pair is not None and node.index not in constant:
            source = pair.input(0)
            found = shown if graph.is_exposed(node.output) else stands_for
            found[node.output] = stands_for.get(source, source)
    proto = ModelProto()
    proto.CopyFrom(model.message)
    del proto.graph.node[:]
    for node, original in zip(graph.nodes, model.message.graph.node, strict=True):
        if node.index in constant:
            continue
        if node.output in stands_for:
            continue
        if node.output in shown:
            same = onnx.helper.make_node("Identity", [shown[node.output]], [node.output], node.name)
            proto.graph.node.append(same)
            continue
        copy = proto.graph.node.add()
        copy.CopyFrom(original)
        for position, name in enumerate(copy.input):
            copy.input[position] = stands_for.get(name, name)
    _drop_unread_quantizers(proto)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()
    )
    return infer_shapes(Model.adopt(proto, model.source))


def _pair(graph: Graph, node: Node) -> Node | None:
    """The QuantizeLinear that feeds this DequantizeLinear; None where the two are no pair."""
    if node.op_type != DEQUANTIZE:
        return None
    producer = graph.producers.get(node.input(0))
    return producer if producer is not None and producer.op_type in _QUANTIZERS else None


def _constant_nodes(graph: Graph) -> set[int]:
    """Indices of the Q/DQ that work on constants alone."""
    known: set[str] = set()
    found: set[int] = set()
    for node in graph.nodes:
        if is_qdq(node) and all(
            not name or name in known or graph.is_constant(name) for name in node.inputs
        ):
            known.update(node.results)
            found.add(node.index)
    return found


def _evaluate(model: Model, indices: set[int]) -> dict[str, Array]:
    """What the nodes of these indices give, computed by ONNX Runtime."""
    if not indices:
        return {}
    part = ModelProto(ir_version=model.message.ir_version)
    part.opset_import.extend(model.message.opset_import)
    part.graph.name = "constants"
    part.graph.node.extend(model.message.graph.node[index] for index in sorted(indices))
    read = {name for node in part.graph.node for name in node.input}
    part.graph.initializer.extend(t for t in model.message.graph.initializer if t.name in read)
    names = [name for node in part.graph.node for name in node.output]
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, run(open_session(part, optimize=False), names, {}), strict=True))


def _drop_unread_quantizers(proto: ModelProto) -> None:
    graph = Graph(Model.adopt(proto))
    unread = [
        node.index
        for node in graph.nodes
        if node.op_type in _QUANTIZERS and not any(map(graph.is_read, node.outputs))
    ]
    for index in reversed(unread):
        del proto.graph.node[index]
