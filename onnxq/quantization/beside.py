"""What layers would give whose input is clipped: computed beside what they give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onnxq.calibration.ranges import Range
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import CLIP, weight_layout
from onnxq.refusal import Refusal

CLIPPED = "@clipped"
"""What follows a tensor's name in that of what it would be behind a clipped one."""


def with_layers_beside(model: Model, clipped: Mapping[str, Range]) -> Model:
    """The float model with a second copy of each layer that reads one of these tensors.

    The copy reads the tensor clipped to its range. Nothing reads its output, which has the name of
    the layer's and `CLIPPED`.
    """
    graph = Graph(model)
    layers = [(node, name) for node in graph.nodes if (name := _data(graph, node)) in clipped]
    if not layers:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for name in dict.fromkeys(name for _, name in layers):
        ends = [f"{name}{CLIPPED}/{side}" for side in ("low", "high")]
        proto.graph.initializer.extend(
            numpy_helper.from_array(np.array(end, np.float32), label)
            for end, label in zip(clipped[name], ends, strict=True)
        )
        proto.graph.node.append(
            helper.make_node(CLIP, [name, *ends], [name + CLIPPED], name + CLIPPED)
        )
    for node, name in layers:
        copy = NodeProto()
        copy.CopyFrom(model.proto.graph.node[node.index])
        copy.name = node.name + CLIPPED
        copy.input[:] = [each + CLIPPED if each == name else each for each in node.inputs]
        copy.output[:] = [each + CLIPPED for each in node.outputs]
        proto.graph.node.append(copy)
    return Model.adopt(proto, model.source)


def _data(graph: Graph, node: Node) -> str:
    """The input that a layer multiplies with its weight; "" of other nodes."""
    layout = weight_layout(graph, node)
    return "" if isinstance(layout, Refusal) else node.input(layout.data)
