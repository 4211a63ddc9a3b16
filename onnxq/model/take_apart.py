"""ONNX Runtime's fused operators become standard ones where both compute the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from onnxq.errors import ModelError
from onnxq.model.files import infer_shapes
from onnxq.model.fused import DOMAIN, FUSED, Parts
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.model.trials import difference, run_trials
from onnxq.refusal import Refusal

Array = NDArray[Any]

EXACT = 1e-5
"""Largest difference, rms over rms, between an operator and its parts."""


@dataclass(frozen=True)
class TakenApart:
    """What became of the operators of the table.

    Attributes:
        differences: node that was taken apart → how far its parts differ from it, rms over rms.
        kept: node → why it is left as it is.
    """

    differences: dict[str, float]
    kept: dict[str, str]


def take_apart(model: Model) -> tuple[Model, TakenApart]:
    """Replace the operators of the table by their parts, where both compute the same.

    The model is run on random inputs; what goes into each operator goes into its parts too.
    """
    graph = Graph(model)
    fused = [n for n in graph.nodes if n.domain == DOMAIN and n.op_type in FUSED]
    if not fused:
        return model, TakenApart({}, {})
    found = {node.name: _parts_of(graph, node) for node in fused}
    names = [
        name
        for node in fused
        for name in (*node.inputs, *node.outputs)
        if name and not graph.is_constant(name)
    ]
    runs = run_trials(model, list(dict.fromkeys(names)))
    differences: dict[str, float] = {}
    kept: dict[str, str] = {}
    replaced: dict[int, Parts] = {}
    for node in fused:
        parts = found[node.name]
        if isinstance(parts, Refusal):
            kept[node.name] = parts.reason
            continue
        if not runs:
            kept[node.name] = "the model does not run on random inputs, which would compare it"
            continue
        apart = _difference(graph, node, parts, runs[0])
        if apart > EXACT:
            kept[node.name] = f"its parts would differ from it by {apart:.1e} of the rms"
            continue
        differences[node.name] = apart
        replaced[node.index] = parts
    return _replace(model, replaced), TakenApart(differences, kept)


def _parts_of(graph: Graph, node: Node) -> Parts | Refusal:
    ranks = graph.rank(node.input(0)), graph.rank(node.input(1))
    parts = Parts(node, graph.model.opset, ranks)
    results = FUSED[node.op_type](parts, node)
    if isinstance(results, Refusal):
        return results
    for position, name in enumerate(node.outputs):
        if position in results:
            _rename(parts.nodes, results[position], name)
        elif name and graph.is_read(name):
            return Refusal(f"its output {name!r} is read")
    return parts


def _rename(nodes: list[NodeProto], old: str, new: str) -> None:
    if not new:
        return
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _difference(graph: Graph, node: Node, parts: Parts, values: dict[str, Array]) -> float:
    """How far the parts differ from the node, rms over rms; infinite where they do not run."""
    constants = {n: v for n in node.inputs if n and (v := graph.constant(n)) is not None}
    feeds = {name: values[name] for name in node.inputs if name in values} | constants
    outputs = [name for part in parts.nodes for name in part.output if name in values]
    body = onnx.helper.make_graph(
        parts.nodes, "parts",
        [onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
         for name, value in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs], parts.constants,
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", graph.model.opset)]
    try:
        session = open_session(
            onnx.helper.make_model(body, opset_imports=opsets, ir_version=8), optimize=False
        )
        results = run(session, outputs, feeds)
    except ModelError:
        return math.inf
    pairs = zip(outputs, results, strict=True)
    return max((difference(values[name], result) for name, result in pairs), default=math.inf)


def _replace(model: Model, replaced: dict[int, Parts]) -> Model:
    if not replaced:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.message)
    nodes: list[NodeProto] = []
    for index, node in enumerate(proto.graph.node):
        if index in replaced:
            nodes += replaced[index].nodes
            proto.graph.initializer.extend(replaced[index].constants)
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return infer_shapes(Model.adopt(proto, model.source))
