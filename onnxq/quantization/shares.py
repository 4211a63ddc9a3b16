"""Which tensors share one scale, and what that costs those with the smaller ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onnxq.calibration.ranges import Range
from onnxq.formats.scheme import Spec
from onnxq.formats.table import BYTE
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import (
    Operator,
    QuantizedRule,
    is_product,
    kernel_output,
    operator_of,
    rearranged,
)
from onnxq.model.status import Float, Quantized
from onnxq.quantization.placement import Placed
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.ranges import Ranges

WORTH = 2.0
"""Ratio of ranges from which a scale of its own is worth a move in float: one of the 8 bits."""

FAR = 10.0
"""Ratio of ranges from which one scale for both is worth telling: 20 dB of the smaller one."""


# --- groups ----------------------------------------------------------------------------------


def shared_groups(
    graph: Graph, placed: Placed, *, without: Collection[str] = ()
) -> Mapping[str, tuple[str, ...]]:
    """Tensor → those that share one scale, itself among them.

    Args:
        without: nodes that are taken not to tie their tensors together.
    """
    leader = {name: name for name in placed.tensors}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        if node.name not in without and _passes(placed, node):
            linked = [name for name in _moved(graph, node) if name in leader]
            for name in linked[1:]:
                leader[find(name)] = find(linked[0])
    members: dict[str, list[str]] = {}
    for name in sorted(leader):
        members.setdefault(find(name), []).append(name)
    return {name: tuple(group) for group in members.values() for name in group}


def _passes(placed: Placed, node: Node) -> bool:
    """Whether quantized values pass through the node unchanged, or in one scale at least."""
    row = operator_of(node)
    shared = row is not None and row.quantized is QuantizedRule.SHARED
    shared |= node.name in placed.unified
    return shared and not isinstance(placed.nodes[node.name], Float)


def _moved(graph: Graph, node: Node) -> tuple[str, ...]:
    """The tensors between which the node moves values; the result of one that computes is its
    kernel's.
    """
    row = operator_of(node)
    if row is None:
        return node.outputs
    computes = row.quantized is QuantizedRule.OWN
    results = (kernel_output(graph, node),) if computes else node.outputs
    return (*results, *row.data_of(node))


# --- known in advance ------------------------------------------------------------------------


def filled(
    graph: Graph, placed: Placed, names: Sequence[str], spec: Spec, *, fixed_steps: bool = False
) -> Range | None:
    """The range of tensors that fill the bounds of the function they come from; None for others.

    That is so where a kernel on quantized values writes them, or a product of activations reads
    them.

    Args:
        spec: what they become.
        fixed_steps: as a target has them.
    """
    makers = [rearranged(graph, name)[1] for name in names]
    rows = [None if maker is None else operator_of(maker) for maker in makers]
    fixed = fixed_steps and spec.format.bits > BYTE
    bounds = {None if row is None else _bounds(row, spec, fixed=fixed) for row in rows}
    computing = [maker for maker in makers if maker is not None]
    computing += [use.node for name in names for use in graph.consumers(name)
                  if is_product(graph, use.node)]  # fmt: skip
    inside = any(isinstance(placed.nodes[node.name], Quantized) for node in computing)
    return bounds.pop() if inside and len(bounds) == 1 else None


def _bounds(row: Operator, spec: Spec, *, fixed: bool) -> Range | None:
    """The range that kernels write over whatever was seen.

    Args:
        fixed: as many steps as there are numbers, a power of two, reach from bound to bound: the
            upper bound itself is one step beyond the numbers.
    """
    if row.fills_bounds or row.bounds is None or not fixed:
        return row.bounds if row.fills_bounds else None
    low, high = row.bounds
    return low, high - (high - low) / (1 << spec.format.bits)


def masked(graph: Graph, placed: Placed, ranges: Ranges) -> frozenset[str]:
    """The operators whose result is `FAR` wider than the product of activations that they read.

    A mask is added there: no step of the format is small enough for both.
    """
    found: set[str] = set()
    for node in graph.nodes:
        row = operator_of(node)
        if row is None or row.quantized is not QuantizedRule.OWN:
            continue
        if isinstance(placed.nodes[node.name], Float):
            continue
        makers = {name: rearranged(graph, name)[1] for name in row.data_of(node)}
        products = [ranges.width([name]) for name, maker in makers.items()
                    if maker is not None and is_product(graph, maker)]  # fmt: skip
        if products and ranges.width([node.output]) >= FAR * max(products):
            found.add(node.name)
    return frozenset(found)


# --- apart -----------------------------------------------------------------------------------


def better_apart(graph: Graph, placed: Placed, ranges: Ranges) -> frozenset[str]:
    """The nodes that take parts of a tensor whose ranges are `WORTH` apart once in float.

    What else ties the parts together counts: two halves that meet again in a quantized Concat
    share its scale whatever the Split does, which then stays as it is.
    """
    able = {node.name: node for node in graph.nodes if _takes_part(node) and _passes(placed, node)}
    while able:
        groups = shared_groups(graph, placed, without=able)
        widths = {group: ranges.width(group) for node in able.values() for group in
                  (groups[name] for name in _moved(graph, node) if name in groups)}  # fmt: skip
        apart = {
            name: node for name, node in able.items()
            if _spread([widths[groups[each]] for each in _moved(graph, node)
                        if each in groups]) >= WORTH
        }  # fmt: skip
        # Those that stay tie their tensors, which may leave nothing to gain at others.
        if len(apart) == len(able):
            break
        able = apart
    return frozenset(able)


def _takes_part(node: Node) -> bool:
    row = operator_of(node)
    return row is not None and row.takes_part


def _spread(widths: Sequence[float]) -> float:
    """The widest over the narrowest; tensors of zeros do not count."""
    some = [width for width in widths if width > 0]
    return max(some) / min(some) if some else 1.0


# --- far apart -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uneven:
    """A tensor that has one scale with others whose values are `FAR` larger.

    Attributes:
        shares_with: the one of them with the largest values.
        ratio: the range that they share over the tensor's own.
    """

    tensor: str
    shares_with: str
    ratio: float


def uneven_shares(plan: QuantizationPlan, ranges: Ranges) -> tuple[Uneven, ...]:
    """Those tensors of a plan, the worst first."""
    activations = plan.static
    found: list[Uneven] = []
    for leader, names in plan.sharing.items():
        if activations[leader].format != ranges.spec.format:
            continue
        shared = float(activations[leader].parameters.scale) * (ranges.spec.levels - 1)
        widths = {name: width for name in names if (width := ranges.width([name])) > 0}
        found += [
            Uneven(name, max(widths, key=widths.__getitem__), shared / width)
            for name, width in widths.items()
            if len(names) > 1 and min(shared, max(widths.values())) >= FAR * width
        ]
    return tuple(sorted(found, key=lambda each: -each.ratio))
