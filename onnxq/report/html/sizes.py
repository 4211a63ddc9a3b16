"""Where the bytes of a model are: by kind, and by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import TensorProto

from onnxq.model import external
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import is_dequantize, is_quantize, operator_of
from onnxq.report.subject import Subject

REST = "graph, names and records"
"""What no tensor takes: nodes, names, metadata; and what onnxq folds away as it reads a model."""

SCALES = "scales and zero points"
"""Numbers that say what the integers stand for."""


@dataclass(frozen=True)
class Sizes:
    """Bytes.

    Attributes:
        whole: of the file.
        kinds: kind → bytes, such as "weights in int8" or "embeddings in float32", the largest
            first.
        layers: node of the float graph → bytes of the constants that it reads.
        stored: the same → element type of the largest of these.
    """

    whole: int
    kinds: Mapping[str, int]
    layers: Mapping[str, int]
    stored: Mapping[str, str]


def sizes_of(subject: Subject) -> Sizes:
    """Add up the constants of a model, each by the first node that computes with it."""
    graph = subject.quantized or subject.graph
    kinds: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    largest: dict[str, tuple[int, str]] = {}
    for tensor in graph.model.message.graph.initializer:
        size = external.byte_size(tensor) or 0
        reader, kind = _reader(graph, tensor.name)
        type_ = _type(tensor.data_type)
        words = f"{kind} in {type_}" if kind != SCALES else SCALES
        kinds[words] += size
        if reader is not None:
            layers[reader.name] += size
            largest[reader.name] = max(largest.get(reader.name, (0, "")), (size, type_))
    rest = subject.model.size - sum(kinds.values())
    stored = {name: type_ for name, (_, type_) in largest.items()}
    found = {kind: size for kind, size in kinds.most_common() if size}
    return Sizes(subject.model.size, {**found, REST: max(rest, 0)}, dict(layers), stored)


def _reader(graph: Graph, name: str) -> tuple[Node | None, str]:
    """The node that computes with a constant, through Q/DQ, and what it is there."""
    kind = ""
    while uses := graph.consumers(name):
        node, position = uses[0].node, uses[0].position
        if not (is_dequantize(node) or is_quantize(node)):
            return node, kind or _kind(graph, node, position, name)
        kind = SCALES if position else kind
        name = node.output
    return None, kind or "other constants"


def _kind(graph: Graph, node: Node, position: int, name: str) -> str:
    row = operator_of(node)
    matrix = (graph.rank(name) or 0) > 1
    if row is not None and row.looks_up and position == 0 and matrix:
        return "embeddings"
    shapes = graph.elem_type(name) == TensorProto.INT64
    return "weights" if matrix and not shapes else "biases and other constants"


def _type(number: int) -> str:
    """An ONNX element type in a word, such as "int8" or "float32"."""
    name = TensorProto.DataType.Name(number).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)
