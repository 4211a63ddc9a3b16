"""The graph as the page draws it: nodes, edges with their shapes, inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxq.model.graph import Graph
from onnxq.model.model import Dimension

INPUT, OUTPUT = "input", "output"
"""What stands for an operator at the ends of the graph."""

LONGEST = 12
"""Characters of a size's name that are shown."""


@dataclass(frozen=True)
class Edge:
    """A tensor on its way between two nodes, by their numbers; its shape as text."""

    source: int
    target: int
    shape: str


@dataclass(frozen=True)
class Picture:
    """A graph.

    Attributes:
        nodes: name and operator, in the order of the graph; behind them the model's inputs and
            outputs.
        edges: each pair of nodes once.
    """

    nodes: tuple[tuple[str, str], ...]
    edges: tuple[Edge, ...]


def picture_of(graph: Graph) -> Picture:
    """What is computed from the model's inputs; constants are left out."""
    nodes = [(node.name, node.op_type) for node in graph.nodes]
    makers = {name: node.index for node in graph.nodes for name in node.results}
    for name in graph.inputs:
        makers[name] = len(nodes)
        nodes.append((name, INPUT))
    edges = dict.fromkeys(_inside(graph, makers))
    for name in graph.outputs:
        if name in makers:
            edges[makers[name], len(nodes), name] = None
        nodes.append((name, OUTPUT))
    seen: dict[tuple[int, int], str] = {}
    for source, target, name in edges:
        seen.setdefault((source, target), shape_text(graph.shape(name)))
    return Picture(tuple(nodes), tuple(Edge(*ends, shape) for ends, shape in seen.items()))


def _inside(graph: Graph, makers: dict[str, int]) -> Iterator[tuple[int, int, str]]:
    for node in graph.nodes:
        for name in node.inputs:
            if name in makers:
                yield makers[name], node.index, name


def shape_text(shape: Sequence[Dimension] | None) -> str:
    """Such as "N×64×56×56"; "" where nothing is known."""
    if shape is None:
        return ""
    return "×".join(_size(size) for size in shape) or "scalar"


def _size(size: Dimension) -> str:
    """A size; "?" for what exporters call those they do not know, and for formulas."""
    text = str(size)
    known = size is not None and len(text) <= LONGEST and re.fullmatch(r"\w+", text)
    return text if known and not text.startswith("unk_") else "?"
