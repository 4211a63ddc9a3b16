"""Spectral front ends: a Fourier transform as a layer, its squares, and what compresses them.

Audio models often hold their front end: convolutions (or matrix products) whose kernels are sines,
squares, their sum, mel bands, a logarithm. A loud sample and one 40 dB softer differ there by a
factor of 10 000, and behind the logarithm by little: 8 bits in between lose the soft one. So what
leads only to squares that are compressed is best left in float, whatever its weights are.
"""

from __future__ import annotations

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import ScaleRule, degree, operator_of
from onnxq.refusal import Refusal

REASON = Refusal("its values are squared and then compressed, as by the logarithm of a spectrum")

COMPRESSED = 0.5
"""Powers below this one compress; the root of a square alone is as large as what was squared."""

MOST_LAYERS = 2
"""Weighted nodes in a row between a square and its compression: mel bands are one."""

_PASSING = frozenset({ScaleRule.LINEAR, ScaleRule.HOMOGENEOUS, ScaleRule.CLIP, ScaleRule.TIE,
                      ScaleRule.PRODUCT, ScaleRule.MOVE})  # fmt: skip


def spectral_front_ends(graph: Graph) -> dict[str, Refusal]:
    """The nodes of spectral front ends, and why each is better left in float.

    Between a square and a compression (Log, or a power below a square root) all nodes belong to
    one; before the squares all whose values lead nowhere else.
    """
    inside: dict[int, Node] = {}
    for node in graph.nodes:
        power = degree(graph, node)
        if power is not None and power < COMPRESSED:
            inside |= _between(graph, node)
    inside |= _before(graph, inside)
    return {inside[index].name: REASON for index in sorted(inside)}


def _between(graph: Graph, compression: Node) -> dict[int, Node]:
    """The squares that lead to a compression, and the nodes between.

    None where some way back leads to no square.
    """
    found: dict[int, Node] = {}
    squared = False
    pending = [(compression.input(0), 0)]
    while pending:
        name, layers = pending.pop()
        node = graph.producers.get(name)
        if node is None or layers > MOST_LAYERS:
            if graph.is_constant(name):
                continue
            return {}
        if node.index in found:
            continue
        found[node.index] = node
        if (degree(graph, node) or 0) >= 1:
            squared = True
            continue
        row = operator_of(node)
        rooted = degree(graph, node) == 0.5
        if row is None or not (rooted or (row.scale in _PASSING and not row.subtracts)):
            return {}
        layers += row.scale is ScaleRule.LINEAR
        pending += [(name, layers) for name in node.inputs if name]
    return found if squared else {}


def _before(graph: Graph, inside: dict[int, Node]) -> dict[int, Node]:
    """The nodes before those that only they read, as far as a front end can reach.

    Powers are among them: magnitudes, roots of sums of squares, are squared again for decibels.
    """
    found: dict[int, Node] = {}
    for node in reversed(graph.nodes):
        row = operator_of(node)
        if node.index in inside or row is None:
            continue
        if row.scale not in _PASSING and (degree(graph, node) or 0) < COMPRESSED:
            continue
        readers = [use.node.index for name in node.outputs for use in graph.consumers(name)]
        exposed = any(map(graph.is_exposed, node.outputs))
        if readers and not exposed and all(i in inside or i in found for i in readers):
            found[node.index] = node
    return found
