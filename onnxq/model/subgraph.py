"""Cut a piece out of a model, to run it by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import ModelProto

from onnxq.model.graph import Graph, Node, names_read_by


def names_read(graph: Graph, node: Node) -> set[str]:
    """What a node reads, in the bodies of its If, Loop or Scan too."""
    return names_read_by(graph.model.message.graph.node[node.index])


def subgraph_model(
    graph: Graph,
    nodes: Iterable[Node],
    inputs: Mapping[str, tuple[int, Sequence[int | None]]],
    outputs: list[str],
) -> ModelProto:
    """A model of some nodes.

    Args:
        graph: of the whole model.
        nodes: in topological order.
        inputs: tensor → (ONNX element type, size of each axis or None), for what a caller will
            feed. ONNX Runtime infers wrong shapes behind an Attention whose sizes are open (1.31).
        outputs: what it gives back.
    """
    proto, nodes = graph.model.message, list(nodes)
    read = set().union(*(names_read(graph, node) for node in nodes))
    part = ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    part.graph.name = "part"
    part.graph.node.extend(proto.graph.node[node.index] for node in nodes)
    part.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, number, sizes)
        for name, (number, sizes) in inputs.items()
    )
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    part.graph.initializer.extend(
        t for t in proto.graph.initializer if t.name in read and t.name not in inputs
    )
    return part
