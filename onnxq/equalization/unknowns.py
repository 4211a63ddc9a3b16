"""What is known of the scales of a graph while its nodes are walked through."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnxq.equalization.patterns import Pattern, along_axis
from onnxq.equalization.sites import Barrier, ClipSite, ConstantSite, LinearSite
from onnxq.equalization.union import DisjointSets, Ids
from onnxq.model.graph import Graph, Node


@dataclass
class Unknowns:
    """One unknown a channel of each tensor so far, what is tied or pinned, and what takes them.

    The rules of `onnxq.equalization.scale_rules` add to it; it lives no longer than
    `onnxq.equalization.classes.find_classes`.
    """

    graph: Graph
    clips_pass: bool
    sets: DisjointSets = field(default_factory=DisjointSets)
    patterns: dict[str, Pattern] = field(default_factory=dict)
    linears: list[LinearSite] = field(default_factory=list)
    constants: list[ConstantSite] = field(default_factory=list)
    clips: list[ClipSite] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)

    def is_activation(self, name: str) -> bool:
        return bool(name) and name in self.patterns

    def pin_output(self, name: str) -> None:
        """Enter a tensor whose scales are 1."""
        rank = self.graph.rank(name)
        if self.graph.is_float(name) and rank is not None:
            self.patterns[name] = np.zeros((1,) * rank, np.int64)

    def pin(self, name: str) -> None:
        """Make all the scales of a tensor 1."""
        if self.is_activation(name):
            self.sets.union_arrays(self.patterns[name], np.zeros(1, np.int64))

    def tie_axes(self, name: str, axes: tuple[int, ...]) -> Pattern:
        """Tie the scales along `axes` and return the pattern with size 1 there."""
        pattern = self.patterns[name]
        for axis in axes:
            if pattern.shape[axis] > 1:
                first = pattern.take([0], axis=axis)
                self.sets.union_arrays(pattern, first)
                pattern = first
        return pattern

    def vary_only(self, name: str, axis: int, size: int) -> Ids:
        """Ids of the `size` channels on one axis, after tying all the others."""
        rank = self.patterns[name].ndim
        pattern = self.tie_axes(name, tuple(a for a in range(rank) if a != axis % rank))
        return np.broadcast_to(pattern.ravel(), (size,))

    def fresh(self, name: str, axis: int, count: int) -> Ids | None:
        """Enter a tensor with unknowns of its own along one axis; None for an unknown rank."""
        rank = self.graph.rank(name)
        if rank is None:
            return None
        ids = self.sets.fresh(count)
        self.patterns[name] = along_axis(ids, rank, axis)
        return ids

    def bar(self, node: Node, tensor: str, reason: str) -> None:
        """Note that a node pins the scales of a tensor."""
        self.barriers.append(Barrier(node.name, node.op_type, tensor, reason))
