"""Plan a quantization: who may be quantized, where Q/DQ go, with which parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.not_finite import non_finite
from onnxq.calibration.ranges import Range
from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.formats.scheme import PRESETS, Dynamic, Scheme
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.heads import decode_of, last_outputs
from onnxq.model.operators import (
    QuantizedRule,
    data_of,
    has_weight,
    is_product,
    is_weighted,
    no_numbers,
    operator_of,
    stores,
    weight_layout,
    weighted_inside,
)
from onnxq.model.spectral import spectral_front_ends
from onnxq.model.status import Float, Quantized
from onnxq.model.weights import WeightLayout
from onnxq.quantization.parameters import (
    Activations,
    Conversions,
    activation_parameters,
    bias_parameters,
    read_by,
    weight_parameters,
)
from onnxq.quantization.patterns import left_out
from onnxq.quantization.placement import Placed, beside, place, place_inputs_of_layers
from onnxq.quantization.plan import QuantizationOptions, QuantizationPlan
from onnxq.quantization.ranges import Ranges
from onnxq.quantization.shares import better_apart, masked
from onnxq.quantization.stored import refusal_to_store, stored_weights
from onnxq.quantization.tables import (
    LARGE_OF_WEIGHTS,
    forms_of_tables,
    row_tables,
    tied_tables,
)
from onnxq.quantization.widths import in_widths, widths, with_scheme
from onnxq.refusal import Refusal, granted
from onnxq.targets import Target

Statistics = Mapping[str, TensorStatistics]


def plan_quantization(
    graph: Graph,
    calibration: Calibration | None,
    target: Target,
    options: QuantizationOptions,
    gains: Mapping[str, NDArray[np.float64]] | None = None,
    *,
    fixed: Mapping[str, Range] | None = None,
    keep: Mapping[str, str] | None = None,
    wider: Collection[str] = (),
) -> QuantizationPlan:
    """Decide what is quantized.

    Args:
        graph: of the normalized (and perhaps equalized) model.
        calibration: of exactly that model; None for a scheme that leaves activations in float.
        gains: tensor → how much an error in each channel matters at its readers (channels,).
        fixed: tensor → the range it must have, and with it all that share its scale.
        keep: node → why it stays in float whatever the options say.
        wider: nodes that compute with the wider scheme of the one asked for.

    Raises:
        UsageError: the target does not take the scheme.
    """
    scheme = options.scheme_on(target)
    tensors = calibration.tensors if calibration is not None else {}
    unwanted = _unwanted(graph, options, scheme, keep)
    ranges = None
    if scheme.static is not None:
        ranges = Ranges(
            graph, tensors, gains or {}, fixed or {}, scheme.static, options.ranges,
            last_outputs(graph, _head_of(graph, options, scheme)),
        )  # fmt: skip
    placed = _placed(graph, target, scheme, tensors, unwanted, ranges, wider)
    static: Activations = {}
    converted: Conversions = {}
    if ranges is not None:
        static = activation_parameters(graph, placed, ranges, target, options)
    if ranges is not None and scheme.wider is not None and wider:
        placed, static, converted = _widened(
            graph, placed, static, ranges, target, options, scheme.wider, wider
        )
    layouts = [
        (node, granted(weight_layout(graph, node)), status.scheme)
        for node in graph.nodes
        if has_weight(graph, node) and isinstance(status := placed.nodes[node.name], Quantized)
    ]
    sources = {
        node.name: read_by(node, layout.data, static, converted) for node, layout, _ in layouts
    }
    weights = {
        Place(node.name, layout.weight_position): weight_parameters(
            graph, node, layout, target, own, options, sources[node.name]
        )
        for node, layout, own in layouts
    }
    biases = {
        Place(node.name, layout.bias_position): derived
        for node, layout, _ in layouts
        if (derived := bias_parameters(graph, node, layout, scheme, sources[node.name], weights))
    }
    tied = tied_tables(graph, weights)
    forms = forms_of_tables(target, scheme, options.table_bits)
    alone = {table.node for table in tied} | set(unwanted)
    if scheme.activation is None:
        # A layer in blocks does not serve as a table: each has numbers of its own.
        rows = row_tables(graph, forms, options.scales, alone, LARGE_OF_WEIGHTS, weights)
    else:
        rows = row_tables(graph, forms, options.scales, alone)
    return QuantizationPlan(
        target,
        options,
        scheme,
        {**static, **_dynamic(scheme, placed)},
        weights,
        biases,
        {**placed.nodes, **{table.node: Float(table.why_float) for table in rows}},
        placed.readers,
        tied,
        rows,
        stored_weights(graph, placed.nodes, options.scales),
        converted,
    )


def _widened(
    graph: Graph,
    placed: Placed,
    static: Activations,
    ranges: Ranges,
    target: Target,
    options: QuantizationOptions,
    scheme: Scheme,
    wider: Collection[str],
) -> tuple[Placed, Activations, Conversions]:
    """What changes where some nodes compute on activations in a wider scheme."""
    if scheme.static is None:
        raise ValueError(f"{scheme} has no activations that are known in advance")
    found = widths(graph, placed, wider)
    others = ranges.of_spec(scheme.static)
    wide = activation_parameters(graph, placed, others, target, options)
    static, converted = in_widths(found, static, wide, scheme.static, options.scales)
    nodes = with_scheme(placed.nodes, found.nodes, scheme)
    return replace(placed, nodes=nodes), static, converted


def rounded_beside(
    graph: Graph,
    calibration: Calibration,
    target: Target,
    options: QuantizationOptions,
    keep: Mapping[str, str] | None = None,
) -> frozenset[str]:
    """What the plan would round not for layers with a weight alone; see `placement.beside`.

    Args: as in `plan_quantization`.
    """
    scheme = target.scheme(options.scheme)
    if scheme.static is None:
        return frozenset()
    ranges = Ranges(graph, calibration.tensors, {}, {}, scheme.static, options.ranges)
    unwanted = _unwanted(graph, options, scheme, keep)
    return beside(graph, _placed(graph, target, scheme, calibration.tensors, unwanted, ranges, ()))


def _head_of(graph: Graph, options: QuantizationOptions, scheme: Scheme) -> dict[str, Refusal]:
    """The nodes of a detector's head that stay in float, and why."""
    return decode_of(graph) if options.float_head and scheme.static is not None else {}


def _unwanted(
    graph: Graph, options: QuantizationOptions, scheme: Scheme, keep: Mapping[str, str] | None
) -> dict[str, Refusal]:
    """Node → why it stays in float wherever it stands."""
    kept = {name: Refusal(reason) for name, reason in (keep or {}).items()}
    return (
        _head_of(graph, options, scheme)
        | spectral_front_ends(graph)
        | left_out(graph, options)
        | kept
    )


def _dynamic(scheme: Scheme, placed: Placed) -> Mapping[str, Dynamic]:
    """The tensors that are quantized by the range of each run."""
    known = scheme.activation
    return dict.fromkeys(sorted(placed.tensors), known) if isinstance(known, Dynamic) else {}


def _placed(
    graph: Graph,
    target: Target,
    scheme: Scheme,
    tensors: Statistics,
    unwanted: Mapping[str, Refusal],
    ranges: Ranges | None,
    wider: Collection[str],
) -> Placed:
    """What each node becomes, and where Q/DQ go."""
    nodes: dict[str, Quantized | Float] = {}
    for node in graph.nodes:
        refusal = _refusal(graph, node, target, scheme, tensors, unwanted)
        own = refusal or _scheme_of(graph, node, scheme, wider)
        nodes[node.name] = Float(own) if isinstance(own, Refusal) else Quantized(own)
    if ranges is not None:
        return _placed_in_ranges(graph, target, nodes, ranges)
    what = "layers with a weight" if scheme.is_dynamic else "weights"
    alone = {
        node.name: nodes[node.name]
        if is_weighted(node) or stores(node) or isinstance(nodes[node.name], Float)
        else Float(Refusal(f"{scheme} quantizes {what} only"))
        for node in graph.nodes
    }
    return place_inputs_of_layers(graph, alone) if scheme.is_dynamic else Placed(alone)


def _placed_in_ranges(
    graph: Graph, target: Target, nodes: Mapping[str, Quantized | Float], ranges: Ranges
) -> Placed:
    """Where Q/DQ go, but for nodes between tensors that no one step, or scale, serves."""
    calibrated = set(ranges.tensors)
    placed = place(graph, target, nodes, calibrated)
    masks = masked(graph, placed, ranges) if target.products else ()
    if masks:
        nodes = {**nodes, **dict.fromkeys(masks, Float(Refusal("it adds a mask to a product")))}
        placed = place(graph, target, nodes, calibrated)
    apart = better_apart(graph, placed, ranges) if target.own_parts else ()
    if not apart:
        return placed
    reason = Refusal("its outputs have scales of their own")
    return place(graph, target, {**nodes, **dict.fromkeys(apart, Float(reason))}, calibrated)


def _scheme_of(
    graph: Graph, node: Node, scheme: Scheme, wider: Collection[str]
) -> Scheme | Refusal:
    """The scheme asked for, or the wider one: where that is wanted, or weights have no blocks."""
    if node.name in wider and scheme.wider is not None and scheme.static is None:
        return scheme.wider
    layout = weight_layout(graph, node) if is_weighted(node) else None
    has_none = (isinstance(layout, WeightLayout) and layout.block_axis is None) or stores(node)
    if not has_none or not PRESETS[scheme.name].block:
        return scheme
    return scheme.wider or Refusal(f"{scheme} stores weights in blocks: {node.op_type} has none")


def _refusal(
    graph: Graph,
    node: Node,
    target: Target,
    scheme: Scheme,
    tensors: Statistics,
    unwanted: Mapping[str, Refusal],
) -> Refusal | None:
    """Why a node cannot be quantized, wherever it stands; None where it can."""
    row = operator_of(node)
    if inside := weighted_inside(node):
        what = "a node" if inside == 1 else f"{inside:,} nodes"
        return Refusal(f"{what} with a weight in the bodies of an {node.op_type}, which stay float")
    if row is None:
        return Refusal(f"{node.op_type} has no row in the operator table")
    # A fused activation goes where its host goes, whatever its own name.
    if node.name in unwanted and not row.fuses:
        return unwanted[node.name]
    if row.quantized is QuantizedRule.FLOAT:
        stored = refusal_to_store(graph, node, row, scheme)
        return stored or target.refusal(scheme.name, node.op_type)
    data = [name for name in data_of(graph, node) if graph.constant(name) is None]
    missing = [name for name in (*data, *node.results[:1]) if not graph.is_float(name)]
    if missing:
        return Refusal(graph.why_not_float(missing[0]))
    spoiled = (non_finite(tensors, name) for name in (*data, *node.results[:1]))
    refusal = next(filter(None, spoiled), None) or target.refusal(scheme.name, node.op_type)
    if refusal is not None or row.quantized is not QuantizedRule.WEIGHTED:
        return refusal
    unseen = [name for name in data if name not in tensors]
    if is_product(graph, node) and node.op_type in target.products and scheme.static is not None:
        return target.sizes.refusal_of_product(graph, node) or _not_calibrated(unseen)
    if node.op_type not in target.weighted:
        return Refusal(f"target {target.name} has no integer {node.op_type}")
    layout = weight_layout(graph, node)
    return (
        layout
        if isinstance(layout, Refusal)
        else _unfit(graph, node, layout, target, scheme, unseen)
    )


def _unfit(
    graph: Graph,
    node: Node,
    layout: WeightLayout,
    target: Target,
    scheme: Scheme,
    unseen: Sequence[str],
) -> Refusal | None:
    """Why a layer's sizes, weight or input do not fit the target's scheme.

    Args:
        unseen: its activations that were not calibrated.
    """
    small = None if scheme.activation is None else target.sizes.refusal(graph, node, layout)
    if small is not None:
        return small
    if scheme.is_dynamic and len(layout.shape) != 2:
        return Refusal("its weight is a stack of matrices")
    if scheme.static is not None and (missing := _not_calibrated(unseen)):
        return missing
    return no_numbers(graph, layout)


def _not_calibrated(unseen: Sequence[str]) -> Refusal | None:
    return Refusal(f"its input {unseen[0]!r} was not calibrated") if unseen else None
