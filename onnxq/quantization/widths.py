"""Which kernels compute on wider activations than the others, and where the two formats meet.

A layer that is to read its inputs in wider numbers gets them where what computes them writes such
numbers: a kernel has one format for what it reads and writes. So the kernels that write these
tensors compute in the wider format too. Whoever reads a tensor in another format than it is written
in reads it through one conversion, a second pair of Q/DQ behind the first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from onnxq.formats.fit import fit_range
from onnxq.formats.scheme import Representable, Scheme, Spec
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.operators import QuantizedRule, operator_of
from onnxq.model.status import Float, Quantized
from onnxq.quantization.placement import Placed
from onnxq.quantization.plan import Converted, Own, Shared
from onnxq.quantization.shares import shared_groups

Activations = Mapping[str, Own | Shared]


@dataclass(frozen=True)
class Widths:
    """Who computes in the wider format.

    Attributes:
        nodes: those that do, those fused into them and those that move such numbers on.
        tensors: what is written in it.
        converted: tensor → the places that read it in the other format than it is written in.
    """

    nodes: frozenset[str]
    tensors: frozenset[str]
    converted: Mapping[str, frozenset[Place]]


def widths(graph: Graph, placed: Placed, wanted: Collection[str]) -> Widths:
    """Settle who computes in the wider format, so that the wanted nodes read wider inputs."""
    groups = shared_groups(graph, placed)
    read = {_tensor(graph, place) for place in placed.readers if place.node in wanted}
    wide = {name for each in read for name in groups[each]}
    writers = {name: _writer(graph, placed, name) for name in placed.tensors}
    kernels = {host for name in wanted if (host := _host(placed, name))}
    kernels |= {writers[name] for name in wide} - {""}
    tensors = {name for name, writer in writers.items()
               if (writer in kernels if writer else name in wide)}  # fmt: skip

    def computes_wide(node: Node) -> bool:
        if _moves(placed, node):
            return any(name in wide for name in (*node.outputs, *node.inputs))
        return _host(placed, node.name) in kernels

    converted: dict[str, set[Place]] = {}
    for place in placed.readers:
        name, node = _tensor(graph, place), graph.by_name[place.node]
        if not isinstance(placed.nodes[node.name], Float) and (
            computes_wide(node) != (name in tensors)
        ):
            converted.setdefault(name, set()).add(place)
    return Widths(
        frozenset(node.name for node in graph.nodes if computes_wide(node)),
        frozenset(tensors),
        {name: frozenset(converted[name]) for name in sorted(converted)},
    )


def in_widths(
    found: Widths, narrow: Activations, wide: Activations, spec: Spec, scales: Representable
) -> tuple[Activations, Mapping[str, Converted]]:
    """Each tensor in the format that it is written in, and the conversions.

    What is converted to more bits loses nothing: its range becomes that of the wider numbers.

    Args:
        narrow, wide: every tensor in each of the two formats.
        spec: of the wider one.
    """
    written: dict[str, Own | Shared] = {}
    leaders: dict[tuple[str, bool], str] = {}
    for name, entry in narrow.items():
        group = entry.shares_with if isinstance(entry, Shared) else name
        is_wide = name in found.tensors
        leader = leaders.setdefault((group, is_wide), name)
        parameters = (wide if is_wide else narrow)[name].parameters
        written[name] = Own(parameters) if leader == name else Shared(parameters, leader)
    converted = {
        name: Converted(
            narrow[name].parameters
            if name in found.tensors
            else fit_range(*narrow[name].parameters.range, spec, scales),
            readers,
        )
        for name, readers in found.converted.items()
    }
    return written, converted


def with_scheme(
    nodes: Mapping[str, Quantized | Float], names: Collection[str], scheme: Scheme
) -> Mapping[str, Quantized | Float]:
    """The nodes, of which the quantized ones of these names compute in that scheme."""
    return {
        name: replace(status, scheme=scheme)
        if name in names and isinstance(status, Quantized)
        else status
        for name, status in nodes.items()
    }


def _tensor(graph: Graph, place: Place) -> str:
    return graph.by_name[place.node].inputs[place.position]


def _moves(placed: Placed, node: Node) -> bool:
    """Whether it only moves quantized values on."""
    row = operator_of(node)
    shared = row is not None and row.quantized is QuantizedRule.SHARED
    return shared and isinstance(placed.nodes[node.name], Quantized)


def _host(placed: Placed, name: str) -> str:
    """The node whose kernel does a quantized node's work; "" for a float one."""
    status = placed.nodes.get(name)
    while isinstance(status, Quantized) and status.fused_into is not None:
        name = status.fused_into
        status = placed.nodes[name]
    return name if isinstance(status, Quantized) else ""


def _writer(graph: Graph, placed: Placed, tensor: str) -> str:
    """The node whose kernel computes a tensor; "" where it comes in float, or is only moved."""
    producer = graph.producers.get(tensor)
    if producer is None or _moves(placed, producer):
        return ""
    return _host(placed, producer.name)
