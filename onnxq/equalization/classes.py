"""Find the scale classes of a graph: which channel scales are free, tied or pinned.

One variable σ = log₂ s for each channel element of each activation. Each operator's row adds
equalities, solved by union-find; class 0 is pinned to s = 1 (see docs/equalization.md). One pass in
topological order suffices, since every rule gives its outputs fresh, inherited or pinned ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.patterns import MOVE_LIMIT, Pattern, along_axis, follow_move
from onnxq.equalization.union import DisjointSets, Ids
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import (
    Operator,
    ScaleRule,
    clip_bounds,
    no_numbers,
    operator_of,
    weight_layout,
)
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal


@dataclass(frozen=True)
class LinearSite:
    """A weighted node: class ids of its input channels and of its outputs."""

    node: Node
    layout: WeightLayout
    input_ids: Ids
    output_ids: Ids


@dataclass(frozen=True)
class ConstantSite:
    """A constant input that must be multiplied by the scales of `pattern`.

    It is divided by those of `divisor` (the γ of a batch norm, by the scales of its input). `makes`
    is False where the constant does not make values of that scale but is held against them: a
    bound, the mean of a batch norm.
    """

    node: Node
    position: int
    pattern: Pattern
    divisor: Pattern | None = None
    makes: bool = True


@dataclass(frozen=True)
class ClipSite:
    """A Clip with finite, non-zero bounds: they must move with the scale of each element."""

    node: Node
    bounds: tuple[float, float]
    pattern: Pattern


@dataclass(frozen=True)
class Barrier:
    """A node that pinned scales to 1, and why."""

    node: str
    op_type: str
    tensor: str
    reason: str


@dataclass(frozen=True)
class ScaleClasses:
    """The solution space of a graph.

    Attributes:
        patterns: tensor → class ids, already reduced to roots; 0 is pinned.
        makers: the weighted nodes and constants that take the scales, in an order that only the
            graph decides: what makes a tensor comes before what reads it.
        clips: the bounds that move with them.
        barriers: why scales are pinned.
    """

    patterns: Mapping[str, Pattern]
    makers: tuple[LinearSite | ConstantSite, ...]
    clips: tuple[ClipSite, ...]
    barriers: tuple[Barrier, ...]

    @cached_property
    def linears(self) -> tuple[LinearSite, ...]:
        return tuple(site for site in self.makers if isinstance(site, LinearSite))

    @cached_property
    def constants(self) -> tuple[ConstantSite, ...]:
        return tuple(site for site in self.makers if isinstance(site, ConstantSite))

    @property
    def free(self) -> Ids:
        """Roots that may take a scale, ascending."""
        ids = [site.output_ids for site in self.linears] + [site.input_ids for site in self.linears]
        ids += [site.pattern.ravel() for site in self.constants]
        return np.unique(np.concatenate([np.zeros(1, np.int64), *ids]))[1:]

    def channel_axis(self, tensor: str) -> int | None:
        """The one axis along which the tensor's scales vary; None for none or several."""
        pattern = self.patterns.get(tensor)
        if pattern is None:
            return None
        axes = [axis for axis, size in enumerate(pattern.shape) if size > 1]
        return axes[0] if len(axes) == 1 else None


_MAKERS = frozenset({ScaleRule.LINEAR, ScaleRule.AFFINE, ScaleRule.BATCH_NORM})


def find_classes(graph: Graph, *, clips_pass: bool = True) -> ScaleClasses:
    """Find the scale classes of a normalized model's main graph.

    Args:
        clips_pass: whether a Clip with finite bounds lets scales through (they are then moved or
            tied by the caller); False makes it a barrier (`--relu6 skip`).
    """
    return _Finder(graph, clips_pass=clips_pass).find()


@dataclass
class _Finder:
    """The state of one search; it lives no longer than `find_classes`."""

    graph: Graph
    clips_pass: bool
    sets: DisjointSets = field(default_factory=DisjointSets)
    patterns: dict[str, Pattern] = field(default_factory=dict)
    linears: list[LinearSite] = field(default_factory=list)
    constants: list[ConstantSite] = field(default_factory=list)
    clips: list[ClipSite] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    depths: dict[str, int] = field(default_factory=dict)
    """Most nodes with parameters of their own on a way from an input to a tensor."""

    def find(self) -> ScaleClasses:
        for name in self.graph.inputs:
            self._pin_output(name)
        for node in self.graph.nodes:
            row = operator_of(node)
            refusal = (
                Refusal(f"{node.op_type} has no row in the operator table")
                if row is None
                else self._apply(row, node)
            )
            if refusal is not None:
                self._stop(node, refusal.reason)
            self._pin_exposed(node)
            self._note_depth(row, node)
        roots = self.sets.roots
        makers: list[LinearSite | ConstantSite] = [*self.linears, *self.constants]
        makers = [self._rooted(site) for site in sorted(makers, key=self._place)]
        return ScaleClasses(
            {name: roots(pattern) for name, pattern in self.patterns.items()},
            tuple(makers),
            tuple(ClipSite(s.node, s.bounds, roots(s.pattern)) for s in self.clips),
            tuple(self.barriers),
        )

    def _rooted(self, site: LinearSite | ConstantSite) -> LinearSite | ConstantSite:
        roots = self.sets.roots
        if isinstance(site, LinearSite):
            return replace(site, input_ids=roots(site.input_ids), output_ids=roots(site.output_ids))
        divisor = None if site.divisor is None else roots(site.divisor)
        return replace(site, pattern=roots(site.pattern), divisor=divisor)

    # --- helpers -----------------------------------------------------------------------------

    def _place(self, site: LinearSite | ConstantSite) -> tuple[int, str]:
        """Position in an order that does not depend on how independent nodes are listed."""
        return self.depths.get(site.node.output, 0), site.node.name

    def _note_depth(self, row: Operator | None, node: Node) -> None:
        before = max((self.depths.get(name, 0) for name in node.inputs), default=0)
        deeper = row is not None and row.scale in _MAKERS
        self.depths.update((name, before + deeper) for name in node.outputs)

    def _is_activation(self, name: str) -> bool:
        return bool(name) and name in self.patterns

    def _pin_output(self, name: str) -> None:
        rank = self.graph.rank(name)
        if self.graph.is_float(name) and rank is not None:
            self.patterns[name] = np.zeros((1,) * rank, np.int64)

    def _pin(self, name: str) -> None:
        if self._is_activation(name):
            self.sets.union_arrays(self.patterns[name], np.zeros(1, np.int64))

    def _pin_exposed(self, node: Node) -> None:
        for name in node.outputs:
            if self._is_activation(name) and self.graph.is_exposed(name):
                self._pin(name)
                what = "graph output" if name in self.graph.outputs else "read by a subgraph"
                self.barriers.append(Barrier(node.name, node.op_type, name, what))

    def _stop(self, node: Node, reason: str) -> None:
        """Make the node a barrier: every scale around it is 1."""
        for name in node.inputs:
            if self._is_activation(name):
                self._pin(name)
                self.barriers.append(Barrier(node.name, node.op_type, name, reason))
        for name in node.outputs:
            self._pin_output(name)

    def _tie_axes(self, name: str, axes: tuple[int, ...]) -> Pattern:
        """Tie the scales along `axes` and return the pattern with size 1 there."""
        pattern = self.patterns[name]
        for axis in axes:
            if pattern.shape[axis] > 1:
                first = pattern.take([0], axis=axis)
                self.sets.union_arrays(pattern, first)
                pattern = first
        return pattern

    def _vary_only(self, name: str, axis: int, size: int) -> Ids:
        """Ids of the `size` channels on one axis, after tying all the others."""
        rank = self.patterns[name].ndim
        pattern = self._tie_axes(name, tuple(a for a in range(rank) if a != axis % rank))
        return np.broadcast_to(pattern.ravel(), (size,))

    def _fresh(self, name: str, axis: int, count: int) -> Ids | None:
        rank = self.graph.rank(name)
        if rank is None:
            return None
        ids = self.sets.fresh(count)
        self.patterns[name] = along_axis(ids, rank, axis)
        return ids

    # --- rules: each returns why no scale passes, or None --------------------------------

    def _apply(self, row: Operator, node: Node) -> Refusal | None:
        if any(not self.graph.is_float(name) for name in node.outputs if name):
            if row.scale is ScaleRule.INVARIANT:
                return self._invariant(row, node)
            return None if row.scale is ScaleRule.OBSERVE else self._non_float(row, node)
        rule = {
            ScaleRule.LINEAR: self._linear,
            ScaleRule.AFFINE: self._affine,
            ScaleRule.BATCH_NORM: self._batch_norm,
            ScaleRule.HOMOGENEOUS: self._homogeneous,
            ScaleRule.CLIP: self._clip,
            ScaleRule.TIE: self._tie,
            ScaleRule.PRODUCT: self._product,
            ScaleRule.MOVE: self._move,
            ScaleRule.INVARIANT: self._invariant,
        }.get(row.scale)
        return rule(row, node) if rule else Refusal(f"{node.op_type} is not homogeneous")

    def _non_float(self, row: Operator, node: Node) -> Refusal | None:
        floats = [name for name in row.data_of(node) if self._is_activation(name)]
        wrong = [name for name in node.outputs if name and not self.graph.is_float(name)]
        return Refusal(self.graph.why_not_float(wrong[0])) if floats and wrong else None

    def _linear(self, row: Operator, node: Node) -> Refusal | None:
        layout = weight_layout(self.graph, node)
        if isinstance(layout, Refusal):
            return self._contract(node) if row.contracts else layout
        if refusal := no_numbers(self.graph, layout):
            return refusal
        data = node.input(layout.data)
        if not self._is_activation(data):
            return Refusal("its input has an unknown rank")
        bias = self.graph.constant(layout.bias) if layout.bias else None
        input_ids = self._vary_only(data, layout.input_axis, layout.inputs)
        if layout.bias and bias is None:
            self._pin_output(node.output)
            self._pin(layout.bias)
            output_ids = np.zeros(layout.outputs, np.int64)
            reason = "its bias is computed at run time"
            self.barriers.append(Barrier(node.name, node.op_type, node.output, reason))
        else:
            fresh = self._fresh(node.output, layout.output_axis, layout.outputs)
            if fresh is None:
                return Refusal("its output has an unknown rank")
            output_ids = fresh
        self.linears.append(LinearSite(node, layout, input_ids, output_ids))
        return None

    def _contract(self, node: Node) -> Refusal | None:
        """Two activation matrices A @ B: one of them pinned, the other's free axis passes."""
        a, b = node.input(0), node.input(1)
        if not (self._is_activation(a) and self._is_activation(b)):
            return Refusal("one operand is a constant on the left or has an unknown rank")
        ranks = {self.patterns[a].ndim, self.patterns[b].ndim, self.graph.rank(node.output)}
        if len(ranks) > 1 or min(r or 0 for r in ranks) < 2:
            return Refusal("its operands differ in rank")
        if not np.any(self.sets.roots(self.patterns[a])):
            self.patterns[node.output] = self._tie_axes(b, (self.patterns[b].ndim - 2,))
        elif not np.any(self.sets.roots(self.patterns[b])):
            self.patterns[node.output] = self._tie_axes(a, (self.patterns[a].ndim - 1,))
        else:
            return Refusal("both operands carry scales")
        return None

    def _affine(self, row: Operator, node: Node) -> Refusal | None:
        """Output scale and bias give any s; the input is pinned because of ε."""
        scale = self.graph.constant(node.input(1))
        bias = self.graph.constant(node.input(2))
        rank = self.graph.rank(node.output)
        if scale is None or rank is None or (node.input(2) and bias is None):
            return Refusal("its scale or bias is not a constant")
        data, trailing = node.input(0), row.trailing
        if not trailing and (self.graph.shape(node.output) or ())[1:2] != (scale.size,):
            return Refusal("its scale is not one for each channel")
        self._pin(data)
        self.barriers.append(Barrier(node.name, node.op_type, data, "its ε pins the input"))
        ids = self.sets.fresh(scale.size).reshape(scale.shape)
        if trailing:
            pattern = ids.reshape((1,) * (rank - ids.ndim) + ids.shape)
        else:
            pattern = along_axis(ids.ravel(), rank, 1)
        self.patterns[node.output] = pattern
        for position in (1, 2):
            if node.input(position):
                self.constants.append(ConstantSite(node, position, ids))
        return None

    def _batch_norm(self, _row: Operator, node: Node) -> Refusal | None:
        if any(self.graph.constant(name) is None for name in node.inputs[1:5]):
            return Refusal("its parameters are not constants")
        if node.attributes.get("training_mode", 0) or not self._is_activation(node.input(0)):
            return Refusal("it runs in training mode")
        gamma = self.graph.constant(node.input(1))
        channels = 0 if gamma is None else gamma.size
        input_ids = self._vary_only(node.input(0), 1, channels)
        output_ids = self._fresh(node.output, 1, channels)
        if output_ids is None:
            return Refusal("its output has an unknown rank")
        # γ(s·x − s·μ)/√(σ²+ε)/s: the mean takes the input's scale, γ takes it away again.
        self.constants += [
            ConstantSite(node, 1, output_ids, divisor=input_ids),
            ConstantSite(node, 2, output_ids),
            ConstantSite(node, 3, input_ids, makes=False),
        ]
        return None

    def _homogeneous(self, row: Operator, node: Node) -> Refusal | None:
        data = node.input(0)
        if not self._is_activation(data):
            return Refusal("its input has an unknown rank")
        rank = self.patterns[data].ndim
        axes = row.mixed_axes(self.graph, node, rank)
        if isinstance(axes, Refusal):
            return axes
        pattern = self._tie_axes(data, axes)
        out_rank = self.graph.rank(node.output)
        if out_rank is not None and out_rank < rank and len(axes) == rank - out_rank:
            pattern = pattern.squeeze(axes)
        if pattern.ndim != out_rank:
            return Refusal("its output has an unknown rank")
        self.patterns[node.output] = pattern
        return None

    def _invariant(self, row: Operator, node: Node) -> Refusal | None:
        data = node.input(0)
        if not self._is_activation(data):
            return Refusal("its input has an unknown rank")
        axes = row.mixed_axes(self.graph, node, self.patterns[data].ndim)
        if isinstance(axes, Refusal):
            return axes
        self._tie_axes(data, axes)
        self._pin_output(node.output)
        return None

    def _clip(self, _row: Operator, node: Node) -> Refusal | None:
        data = node.input(0)
        bounds = clip_bounds(self.graph, node)
        if not self._is_activation(data):
            return Refusal("its input has an unknown rank")
        if bounds is None:
            return Refusal("its bounds are computed at run time")
        if any(bound != 0 and math.isfinite(bound) for bound in bounds):
            if not self.clips_pass:
                return Refusal("Clip saturates and --relu6 skip makes it a barrier")
            self.clips.append(ClipSite(node, bounds, self.patterns[data]))
        self.patterns[node.output] = self.patterns[data]
        return None

    def _tie(self, row: Operator, node: Node) -> Refusal | None:
        positions = range(len(node.inputs)) if row.data_inputs is None else row.data_inputs
        rank = self.graph.rank(node.output)
        if rank is None:
            return Refusal("its output has an unknown rank")
        pattern = None
        for position in positions:
            name = node.inputs[position]
            if self.graph.constant(name) is not None:
                continue
            if not self._is_activation(name):
                return Refusal("an operand has an unknown rank")
            padded = self.patterns[name].reshape(
                (1,) * (rank - self.patterns[name].ndim) + self.patterns[name].shape
            )
            if pattern is None:
                pattern = padded
                continue
            try:
                merged = np.broadcast_arrays(pattern, padded)[0]
            except ValueError:
                return Refusal("its operands do not broadcast")
            self.sets.union_arrays(pattern, padded)
            pattern = merged
        if pattern is None:
            return Refusal("all its operands are constants")
        self.patterns[node.output] = pattern
        self.constants.extend(
            ConstantSite(node, position, pattern, makes=not row.limits)
            for position in positions
            if self.graph.constant(node.inputs[position]) is not None
        )
        return None

    def _product(self, row: Operator, node: Node) -> Refusal | None:
        """s_out = s_a · s_b with one of them pinned; a divisor is pinned always."""
        a, b = node.inputs
        rank = self.graph.rank(node.output)
        divides = row.divides
        carriers = [n for n in (a, b) if self.graph.constant(n) is None]
        if rank is None or any(not self._is_activation(n) for n in carriers):
            return Refusal("an operand has an unknown rank")
        if not carriers:
            return Refusal("all its operands are constants")
        if a == b or (divides and b in carriers):
            return Refusal("it divides by, or squares, an activation")
        if len(carriers) == 1:
            position = 1 - node.inputs.index(carriers[0])
            absorbed = self._absorbing_factor(node, carriers[0], position, rank, divides=divides)
            if absorbed is not None:
                self.patterns[node.output] = absorbed
                return None
        free = [n for n in carriers if np.any(self.sets.roots(self.patterns[n]))]
        if len(free) > 1:
            pinned = min(free, key=lambda n: self.patterns[n].size)
            self._pin(pinned)
            reason = "of two factors one must keep its scale"
            self.barriers.append(Barrier(node.name, node.op_type, pinned, reason))
            free.remove(pinned)
        source = self.patterns[free[0] if free else carriers[0]]
        self.patterns[node.output] = source.reshape((1,) * (rank - source.ndim) + source.shape)
        return None

    def _absorbing_factor(
        self, node: Node, carrier: str, position: int, rank: int, *, divides: bool
    ) -> Pattern | None:
        """The output's fresh ids where a constant factor already varies with the scales, and so
        takes those of the input and gives any others; None where it would have to grow.
        """
        value = self.graph.constant(node.inputs[position])
        if value is None or value.size == 1 or value.size > MOVE_LIMIT:
            return None
        shape = (1,) * (rank - value.ndim) + value.shape
        source = self.patterns[carrier]
        source = source.reshape((1,) * (rank - source.ndim) + source.shape)
        if any(a not in {1, b} for a, b in zip(source.shape, shape, strict=True)):
            return None
        made = self.sets.fresh(value.size).reshape(shape)
        source = np.broadcast_to(source, shape)
        # A constant takes scales in its own rank.
        inner, outer = source.reshape(value.shape), made.reshape(value.shape)
        pattern, divisor = (inner, outer) if divides else (outer, inner)
        self.constants.append(ConstantSite(node, position, pattern, divisor))
        return made

    def _move(self, row: Operator, node: Node) -> Refusal | None:
        data = set(row.data_of(node))
        inputs: list[Pattern | None] = []
        for position, name in enumerate(node.inputs):
            is_data = name in data and (row.data_inputs is None or position in row.data_inputs)
            if is_data and not self._is_activation(name):
                return Refusal("it moves a constant or a tensor of unknown rank")
            inputs.append(self.patterns[name] if is_data else None)
        result = follow_move(self.graph, node, inputs)
        if isinstance(result, Refusal):
            return result
        self.patterns.update(zip((n for n in node.outputs if n), result, strict=False))
        return None


def constant_scales(site: ConstantSite, exponents: Mapping[int, float]) -> NDArray[np.float64]:
    """What the constant is multiplied by, broadcastable to it."""
    scales = scales_of(site.pattern, exponents)
    return scales if site.divisor is None else scales / scales_of(site.divisor, exponents)


def scales_of(pattern: NDArray[Any], exponents: Mapping[int, float]) -> NDArray[np.float64]:
    """2^σ for each id of a pattern; ids without an exponent, such as 0, have scale 1."""
    values = [exponents.get(identifier, 0.0) for identifier in pattern.ravel().tolist()]
    return np.exp2(np.array(values, np.float64)).reshape(pattern.shape)
