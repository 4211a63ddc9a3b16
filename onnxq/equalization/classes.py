"""Find the scale classes of a graph: which channel scales are free, tied or pinned.

One variable σ = log₂ s for each channel element of each activation. Each operator's row adds
equalities (`onnxq.equalization.scale_rules`), solved by union-find; class 0 is pinned to s = 1 (see
docs/equalization.md). One pass in topological order suffices, since every rule gives its outputs
fresh, inherited or pinned ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnxq.equalization.scale_rules import apply_rule
from onnxq.equalization.sites import ClipSite, ConstantSite, LinearSite, ScaleClasses
from onnxq.equalization.union import DisjointSets
from onnxq.equalization.unknowns import Unknowns
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import ScaleRule, operator_of

_MAKERS = frozenset({ScaleRule.LINEAR, ScaleRule.AFFINE, ScaleRule.BATCH_NORM})


def find_classes(graph: Graph, *, clips_pass: bool = True) -> ScaleClasses:
    """Find the scale classes of a normalized model's main graph.

    Args:
        clips_pass: whether a Clip with finite bounds lets scales through (they are then moved or
            tied by the caller); False makes it a barrier (`--relu6 skip`).
    """
    so_far = Unknowns(graph, clips_pass)
    for name in graph.inputs:
        so_far.pin_output(name)
    for node in graph.nodes:
        row = operator_of(node)
        if row is None:
            _stop(so_far, node, f"{node.op_type} has no row in the operator table")
        elif refusal := apply_rule(so_far, row, node):
            _stop(so_far, node, refusal.reason)
        _pin_exposed(so_far, node)
    return _classes(so_far)


def _stop(so_far: Unknowns, node: Node, reason: str) -> None:
    """Make the node a barrier: every scale around it is 1."""
    for name in node.inputs:
        if so_far.is_activation(name):
            so_far.pin(name)
            so_far.bar(node, name, reason)
    for name in node.outputs:
        so_far.pin_output(name)


def _pin_exposed(so_far: Unknowns, node: Node) -> None:
    graph = so_far.graph
    for name in node.outputs:
        if so_far.is_activation(name) and graph.is_exposed(name):
            so_far.pin(name)
            so_far.bar(
                node, name, "graph output" if name in graph.outputs else "read by a subgraph"
            )


def _classes(so_far: Unknowns) -> ScaleClasses:
    """What was found, with ids reduced to roots."""
    roots, depths = so_far.sets.roots, _depths(so_far.graph)

    def place(site: LinearSite | ConstantSite) -> tuple[int, bool, str]:
        """Position in an order that does not depend on how independent nodes are listed.

        A constant comes behind the layers of its depth: a bias that is added to what one of them
        makes is a small part of that.
        """
        constant = isinstance(site, ConstantSite)
        return depths.get(site.node.output, 0), constant, site.node.name

    makers: list[LinearSite | ConstantSite] = [*so_far.linears, *so_far.constants]
    return ScaleClasses(
        {name: roots(pattern) for name, pattern in so_far.patterns.items()},
        tuple(_rooted(site, so_far.sets) for site in sorted(makers, key=place)),
        tuple(ClipSite(s.node, s.bounds, roots(s.pattern)) for s in so_far.clips),
        tuple(so_far.barriers),
    )


def _rooted(site: LinearSite | ConstantSite, sets: DisjointSets) -> LinearSite | ConstantSite:
    roots = sets.roots
    if isinstance(site, LinearSite):
        return replace(site, input_ids=roots(site.input_ids), output_ids=roots(site.output_ids))
    divisor = None if site.divisor is None else roots(site.divisor)
    return replace(site, pattern=roots(site.pattern), divisor=divisor)


def _depths(graph: Graph) -> Mapping[str, int]:
    """Tensor → most nodes with parameters of their own on a way to it from an input."""
    depths: dict[str, int] = {}
    for node in graph.nodes:
        row = operator_of(node)
        deeper = row is not None and row.scale in _MAKERS
        before = max((depths.get(name, 0) for name in node.inputs), default=0)
        depths.update((name, before + deeper) for name in node.results)
    return depths
