"""What layers would give whose input is clipped: computed beside what they give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onnxq.calibration.ranges import Range
from onnxq.model.biases import bias_site
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import CLIP, weight_layout
from onnxq.refusal import Refusal, granted

CLIPPED = "@clipped"
"""What follows a tensor's name in that of what it would be behind a clipped one."""


def with_layers_beside(model: Model, clipped: Mapping[str, Range]) -> Model:
    """The float model with a second copy of each layer that reads one of these tensors.

    The copy reads the tensor clipped to its range; where the bias is added by a node of its own,
    that has a copy too. Nothing else reads their outputs, which have the names of the first ones'
    and `CLIPPED`.
    """
    graph = Graph(model)
    layers = [(node, name) for node in graph.nodes if (name := _data(graph, node)) in clipped]
    if not layers:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.message)
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
        proto.graph.node.append(_beside(model, node, name))
        adds = _bias_added_by(graph, node)
        if adds is not None:
            proto.graph.node.append(_beside(model, adds, node.output))
    return Model.adopt(proto, model.source)


def _beside(model: Model, node: Node, name: str) -> NodeProto:
    """A copy of a node that reads another tensor in place of this one."""
    copy = NodeProto()
    copy.CopyFrom(model.message.graph.node[node.index])
    copy.name = node.name + CLIPPED
    copy.input[:] = [each + CLIPPED if each == name else each for each in node.inputs]
    copy.output[:] = [each and each + CLIPPED for each in node.outputs]
    return copy


def _bias_added_by(graph: Graph, node: Node) -> Node | None:
    """The node that adds a layer's bias; None where that is the layer's own, or there is none."""
    site = bias_site(graph, node, granted(weight_layout(graph, node)))
    if isinstance(site, Refusal) or site.output == node.output:
        return None
    return graph.by_name[site.node]


def _data(graph: Graph, node: Node) -> str:
    """The input that a layer multiplies with its weight; "" of other nodes."""
    layout = weight_layout(graph, node)
    return "" if isinstance(layout, Refusal) else node.input(layout.data)
