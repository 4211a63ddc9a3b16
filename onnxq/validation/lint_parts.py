"""What rules look for in a QDQ model."""

from __future__ import annotations

from collections.abc import Iterator

from onnxq.model.graph import Node
from onnxq.model.operators import is_dequantize, weight_layout
from onnxq.model.qdq import QdqGraph, Quantization, quantization_of
from onnxq.model.weights import WeightLayout

Found = Iterator[tuple[Node, str]]
"""Nodes that break a rule, and how."""


def known(graph: QdqGraph) -> Iterator[tuple[Node, Quantization]]:
    """Q and DQ nodes whose parameters are usable, biases aside."""
    biases = {node.index for node, _ in quantized_biases(graph)}
    for node in graph.nodes:
        found = quantization_of(graph, node)
        if isinstance(found, Quantization) and node.index not in biases:
            yield node, found


def weighted(graph: QdqGraph) -> Iterator[tuple[Node, WeightLayout]]:
    for node in graph.nodes:
        layout = weight_layout(graph, node)
        if isinstance(layout, WeightLayout):
            yield node, layout


def quantized_biases(graph: QdqGraph) -> Found:
    for node, layout in weighted(graph):
        producer = graph.producers.get(layout.bias)
        if producer is not None and is_dequantize(producer):
            yield producer, f"the bias of {node.name} is quantized"


def is_dequantized(graph: QdqGraph, name: str) -> bool:
    producer = graph.producers.get(name)
    return producer is not None and is_dequantize(producer)
