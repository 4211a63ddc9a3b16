"""How a channel's scale passes each kind of operator: the equalities that its row adds.

Each rule gives the outputs of a node fresh, inherited or pinned ids, and says why no scale passes
where none does. See docs/equalization.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from onnxq.equalization.patterns import MOVE_LIMIT, Pattern, along_axis, follow_move
from onnxq.equalization.sites import ClipSite, ConstantSite, LinearSite
from onnxq.equalization.unknowns import Unknowns
from onnxq.model.graph import Node
from onnxq.model.operators import Operator, ScaleRule, clip_bounds, no_numbers, weight_layout
from onnxq.refusal import Refusal


def apply_rule(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    """Let the scales pass a node as its row says; why they do not, where they do not."""
    if any(not so_far.graph.is_float(name) for name in node.results):
        if row.scale is ScaleRule.INVARIANT:
            return _invariant(so_far, row, node)
        return None if row.scale is ScaleRule.OBSERVE else _non_float(so_far, row, node)
    rule = _RULES.get(row.scale)
    return rule(so_far, row, node) if rule else Refusal(f"{node.op_type} is not homogeneous")


def _non_float(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    floats = [name for name in row.data_of(node) if so_far.is_activation(name)]
    wrong = [name for name in node.results if not so_far.graph.is_float(name)]
    return Refusal(so_far.graph.why_not_float(wrong[0])) if floats and wrong else None


def _linear(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    layout = weight_layout(so_far.graph, node)
    if isinstance(layout, Refusal):
        return _contract(so_far, node) if row.contracts else layout
    if refusal := no_numbers(so_far.graph, layout):
        return refusal
    data = node.input(layout.data)
    if not so_far.is_activation(data):
        return Refusal("its input has an unknown rank")
    bias = so_far.graph.constant(layout.bias) if layout.bias else None
    input_ids = so_far.vary_only(data, layout.input_axis, layout.inputs)
    if layout.bias and bias is None:
        so_far.pin_output(node.output)
        so_far.pin(layout.bias)
        output_ids = np.zeros(layout.outputs, np.int64)
        so_far.bar(node, node.output, "its bias is computed at run time")
    else:
        fresh = so_far.fresh(node.output, layout.output_axis, layout.outputs)
        if fresh is None:
            return Refusal("its output has an unknown rank")
        output_ids = fresh
    so_far.linears.append(LinearSite(node, layout, input_ids, output_ids))
    return None


def _contract(so_far: Unknowns, node: Node) -> Refusal | None:
    """Two activation matrices A @ B: one of them pinned, the other's free axis passes."""
    a, b = node.input(0), node.input(1)
    if not (so_far.is_activation(a) and so_far.is_activation(b)):
        return Refusal("one operand is a constant on the left or has an unknown rank")
    ranks = {so_far.patterns[a].ndim, so_far.patterns[b].ndim, so_far.graph.rank(node.output)}
    if len(ranks) > 1 or min(r or 0 for r in ranks) < 2:
        return Refusal("its operands differ in rank")
    if not np.any(so_far.sets.roots(so_far.patterns[a])):
        so_far.patterns[node.output] = so_far.tie_axes(b, (so_far.patterns[b].ndim - 2,))
    elif not np.any(so_far.sets.roots(so_far.patterns[b])):
        so_far.patterns[node.output] = so_far.tie_axes(a, (so_far.patterns[a].ndim - 1,))
    else:
        return Refusal("both operands carry scales")
    return None


def _affine(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    """Output scale and bias give any s; the input is pinned because of ε."""
    scale = so_far.graph.constant(node.input(1))
    bias = so_far.graph.constant(node.input(2))
    rank = so_far.graph.rank(node.output)
    if scale is None or rank is None or (node.input(2) and bias is None):
        return Refusal("its scale or bias is not a constant")
    data, trailing = node.input(0), row.trailing
    if not trailing and (so_far.graph.shape(node.output) or ())[1:2] != (scale.size,):
        return Refusal("its scale is not one for each channel")
    so_far.pin(data)
    so_far.bar(node, data, "its ε pins the input")
    ids = so_far.sets.fresh(scale.size).reshape(scale.shape)
    if trailing:
        pattern = ids.reshape((1,) * (rank - ids.ndim) + ids.shape)
    else:
        pattern = along_axis(ids.ravel(), rank, 1)
    so_far.patterns[node.output] = pattern
    for position in (1, 2):
        if node.input(position):
            so_far.constants.append(ConstantSite(node, position, ids))
    return None


def _batch_norm(so_far: Unknowns, _row: Operator, node: Node) -> Refusal | None:
    if any(so_far.graph.constant(name) is None for name in node.inputs[1:5]):
        return Refusal("its parameters are not constants")
    if node.attributes.get("training_mode", 0) or not so_far.is_activation(node.input(0)):
        return Refusal("it runs in training mode")
    gamma = so_far.graph.constant(node.input(1))
    channels = 0 if gamma is None else gamma.size
    input_ids = so_far.vary_only(node.input(0), 1, channels)
    output_ids = so_far.fresh(node.output, 1, channels)
    if output_ids is None:
        return Refusal("its output has an unknown rank")
    # γ(s·x − s·μ)/√(σ²+ε)/s: the mean takes the input's scale, γ takes it away again.
    so_far.constants += [
        ConstantSite(node, 1, output_ids, divisor=input_ids),
        ConstantSite(node, 2, output_ids),
        ConstantSite(node, 3, input_ids, makes=False),
    ]
    return None


def _homogeneous(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    data = node.input(0)
    if not so_far.is_activation(data):
        return Refusal("its input has an unknown rank")
    rank = so_far.patterns[data].ndim
    axes = row.mixed_axes(so_far.graph, node, rank)
    if isinstance(axes, Refusal):
        return axes
    pattern = so_far.tie_axes(data, axes)
    out_rank = so_far.graph.rank(node.output)
    if out_rank is not None and out_rank < rank and len(axes) == rank - out_rank:
        pattern = pattern.squeeze(axes)
    if pattern.ndim != out_rank:
        return Refusal("its output has an unknown rank")
    so_far.patterns[node.output] = pattern
    return None


def _invariant(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    data = node.input(0)
    if not so_far.is_activation(data):
        return Refusal("its input has an unknown rank")
    axes = row.mixed_axes(so_far.graph, node, so_far.patterns[data].ndim)
    if isinstance(axes, Refusal):
        return axes
    so_far.tie_axes(data, axes)
    so_far.pin_output(node.output)
    return None


def _clip(so_far: Unknowns, _row: Operator, node: Node) -> Refusal | None:
    data = node.input(0)
    bounds = clip_bounds(so_far.graph, node)
    if not so_far.is_activation(data):
        return Refusal("its input has an unknown rank")
    if bounds is None:
        return Refusal("its bounds are computed at run time")
    if any(bound != 0 and math.isfinite(bound) for bound in bounds):
        if not so_far.clips_pass:
            return Refusal("Clip saturates and --relu6 skip makes it a barrier")
        so_far.clips.append(ClipSite(node, bounds, so_far.patterns[data]))
    so_far.patterns[node.output] = so_far.patterns[data]
    return None


def _tie(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    positions = range(len(node.inputs)) if row.data_inputs is None else row.data_inputs
    rank = so_far.graph.rank(node.output)
    if rank is None:
        return Refusal("its output has an unknown rank")
    pattern = None
    for position in positions:
        name = node.inputs[position]
        if so_far.graph.constant(name) is not None:
            continue
        if not so_far.is_activation(name):
            return Refusal("an operand has an unknown rank")
        padded = so_far.patterns[name].reshape(
            (1,) * (rank - so_far.patterns[name].ndim) + so_far.patterns[name].shape
        )
        if pattern is None:
            pattern = padded
            continue
        try:
            merged = np.broadcast_arrays(pattern, padded)[0]
        except ValueError:
            return Refusal("its operands do not broadcast")
        so_far.sets.union_arrays(pattern, padded)
        pattern = merged
    if pattern is None:
        return Refusal("all its operands are constants")
    so_far.patterns[node.output] = pattern
    so_far.constants.extend(
        ConstantSite(node, position, pattern, makes=not row.limits)
        for position in positions
        if so_far.graph.constant(node.inputs[position]) is not None
    )
    return None


def _product(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    """s_out = s_a · s_b with one of them pinned; a divisor is pinned always."""
    a, b = node.inputs
    rank = so_far.graph.rank(node.output)
    divides = row.divides
    carriers = [n for n in (a, b) if so_far.graph.constant(n) is None]
    if rank is None or any(not so_far.is_activation(n) for n in carriers):
        return Refusal("an operand has an unknown rank")
    if not carriers:
        return Refusal("all its operands are constants")
    if a == b or (divides and b in carriers):
        return Refusal("it divides by, or squares, an activation")
    if len(carriers) == 1:
        position = 1 - node.inputs.index(carriers[0])
        absorbed = _absorbing_factor(so_far, node, carriers[0], position, rank, divides=divides)
        if absorbed is not None:
            so_far.patterns[node.output] = absorbed
            return None
    free = [n for n in carriers if np.any(so_far.sets.roots(so_far.patterns[n]))]
    if len(free) > 1:
        pinned = min(free, key=lambda n: so_far.patterns[n].size)
        so_far.pin(pinned)
        reason = "of two factors one must keep its scale"
        so_far.bar(node, pinned, reason)
        free.remove(pinned)
    source = so_far.patterns[free[0] if free else carriers[0]]
    so_far.patterns[node.output] = source.reshape((1,) * (rank - source.ndim) + source.shape)
    return None


def _absorbing_factor(
    so_far: Unknowns, node: Node, carrier: str, position: int, rank: int, *, divides: bool
) -> Pattern | None:
    """The output's fresh ids where a constant factor already varies with the scales, and so
    takes those of the input and gives any others; None where it would have to grow.
    """
    value = so_far.graph.constant(node.inputs[position])
    if value is None or value.size == 1 or value.size > MOVE_LIMIT:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    source = so_far.patterns[carrier]
    source = source.reshape((1,) * (rank - source.ndim) + source.shape)
    if any(a not in {1, b} for a, b in zip(source.shape, shape, strict=True)):
        return None
    made = so_far.sets.fresh(value.size).reshape(shape)
    source = np.broadcast_to(source, shape)
    # A constant takes scales in its own rank.
    inner, outer = source.reshape(value.shape), made.reshape(value.shape)
    pattern, divisor = (inner, outer) if divides else (outer, inner)
    so_far.constants.append(ConstantSite(node, position, pattern, divisor))
    return made


def _move(so_far: Unknowns, row: Operator, node: Node) -> Refusal | None:
    data = set(row.data_of(node))
    inputs: list[Pattern | None] = []
    for position, name in enumerate(node.inputs):
        is_data = name in data and (row.data_inputs is None or position in row.data_inputs)
        if is_data and not so_far.is_activation(name):
            return Refusal("it moves a constant or a tensor of unknown rank")
        inputs.append(so_far.patterns[name] if is_data else None)
    result = follow_move(so_far.graph, node, inputs)
    if isinstance(result, Refusal):
        return result
    so_far.patterns.update(zip(node.results, result, strict=False))
    return None


_Rule = Callable[[Unknowns, Operator, Node], Refusal | None]

_RULES: Mapping[ScaleRule, _Rule] = MappingProxyType(
    {
        ScaleRule.LINEAR: _linear,
        ScaleRule.AFFINE: _affine,
        ScaleRule.BATCH_NORM: _batch_norm,
        ScaleRule.HOMOGENEOUS: _homogeneous,
        ScaleRule.CLIP: _clip,
        ScaleRule.TIE: _tie,
        ScaleRule.PRODUCT: _product,
        ScaleRule.MOVE: _move,
        ScaleRule.INVARIANT: _invariant,
    }
)
