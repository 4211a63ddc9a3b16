"""Where Q/DQ go, by the target's placement: which nodes are quantized and who reads what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnxq.model.elementwise import before_join
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.operators import (
    QuantizedRule,
    data_of,
    fused_activations,
    has_weight,
    is_product,
    is_weighted,
    kernel_output,
    operator_of,
    weight_layout,
)
from onnxq.model.status import Float, Quantized
from onnxq.quantization.channels_last import beside_channels_first
from onnxq.refusal import Refusal, granted
from onnxq.targets import Placement, Target

_Nodes = dict[str, Quantized | Float]


@dataclass(frozen=True)
class Placed:
    """Where Q/DQ go.

    Attributes:
        nodes: every node → quantized or float with the reason.
        readers: the places that read a dequantized tensor.
        tensors: what is quantized.
        unified: nodes that compute, and whose operands and result have one scale all the same.
    """

    nodes: Mapping[str, Quantized | Float]
    readers: frozenset[Place] = frozenset()
    tensors: frozenset[str] = frozenset()
    unified: frozenset[str] = frozenset()


def place(
    graph: Graph, target: Target, nodes: Mapping[str, Quantized | Float], calibrated: set[str]
) -> Placed:
    """Settle what is quantized.

    Args:
        nodes: what each node could become, wherever it stands.
        calibrated: tensors whose values are known.
    """
    if target.placement is Placement.INPUTS:
        return _place_inputs(graph, target, dict(nodes))
    turned = beside_channels_first(graph, target, nodes)
    return _place_all(graph, target, {**nodes, **turned}, calibrated)


def beside(graph: Graph, placed: Placed) -> frozenset[str]:
    """What is rounded for more than the layers that multiply it with a weight.

    Moving quantized values on rounds nothing: where they end counts.
    """
    found: set[str] = set()
    for name in placed.tensors:
        readers = [use.node for use in graph.consumers(name)
                   if Place(use.node.name, use.position) in placed.readers]  # fmt: skip
        if not readers or not all(_layer_or_move(graph, placed, node) for node in readers):
            found.add(name)
    return frozenset(found)


def _layer_or_move(graph: Graph, placed: Placed, node: Node) -> bool:
    """Whether a reader multiplies by a quantized weight, or moves values on to what is rounded."""
    row = operator_of(node)
    if row is None or not isinstance(placed.nodes[node.name], Quantized):
        return False
    moves = row.quantized is QuantizedRule.SHARED and not placed.tensors.isdisjoint(node.results)
    return moves or has_weight(graph, node)


def place_inputs_of_layers(graph: Graph, nodes: Mapping[str, Quantized | Float]) -> Placed:
    """Quantize what the quantized weighted nodes read, and nothing else."""
    readers = frozenset(
        Place(node.name, granted(weight_layout(graph, node)).data)
        for node in graph.nodes
        if is_weighted(node) and isinstance(nodes[node.name], Quantized)
    )
    return Placed(nodes, readers, frozenset(_tensor(graph, reader) for reader in readers))


def _tensor(graph: Graph, reader: Place) -> str:
    return graph.by_name[reader.node].inputs[reader.position]


def _data_places(graph: Graph, node: Node) -> set[Place]:
    """Where the node reads activations."""
    data = data_of(graph, node)
    return {
        Place(node.name, position)
        for position, name in enumerate(node.inputs)
        if name in data and graph.constant(name) is None
    }


def _into(status: Quantized | Float, host: str) -> Quantized | Float:
    """The node as part of another's kernel."""
    return Quantized(status.scheme, host) if isinstance(status, Quantized) else status


# --- on inputs -------------------------------------------------------------------------------


def _place_inputs(graph: Graph, target: Target, nodes: _Nodes) -> Placed:
    """Q/DQ on weighted inputs and residual branches; pass-throughs before them follow."""
    readers: set[Place] = set()
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        row = operator_of(node)
        status = nodes[node.name]
        if row is None or isinstance(status, Float):
            continue
        if is_product(graph, node):
            readers |= _data_places(graph, node)
        elif row.quantized is QuantizedRule.WEIGHTED:
            readers.add(Place(node.name, granted(weight_layout(graph, node)).data))
        elif row.quantized is QuantizedRule.SHARED and wanted.intersection(node.results):
            readers |= _data_places(graph, node)
        elif (branch := _residual(graph, node, target, nodes)) is not None:
            readers.add(Place(node.name, branch))
            nodes[node.name] = _into(status, graph.producers[node.inputs[1 - branch]].name)
        elif row.fuses and (host := _weighted_host(graph, node, nodes)) is not None:
            nodes[node.name] = _into(status, host)
        else:
            nodes[node.name] = Float(Refusal(f"target {target.name} runs {node.op_type} in float"))
        wanted |= {_tensor(graph, reader) for reader in readers if reader.node == node.name}
    _unchain(graph, target, nodes, readers)
    tensors = frozenset(_tensor(graph, reader) for reader in readers)
    return Placed(nodes, frozenset(readers), tensors)


def _unchain(graph: Graph, target: Target, nodes: _Nodes, readers: set[Place]) -> None:
    """Leave in float what only rearranges float values on their way to a quantized reader.

    Each such node would stand between two pairs of one scale, of which the last does the work: a
    compiler moves it forward itself. Behind a quantized kernel, or where others read the quantized
    tensor too, the values come in integers already.
    """
    read = Counter(_tensor(graph, reader) for reader in readers)
    for node in graph.nodes:
        row = operator_of(node)
        if row is None or isinstance(nodes[node.name], Float):
            continue
        if row.quantized is not QuantizedRule.SHARED or not row.keeps_elements:
            continue
        (place,) = _data_places(graph, node)
        producer = graph.producers.get(node.input(place.position))
        if read[node.input(place.position)] > 1:
            continue
        if producer is None or isinstance(nodes[producer.name], Float):
            readers.discard(place)
            reason = f"target {target.name} runs {node.op_type} in float: integers are made behind"
            nodes[node.name] = Float(Refusal(reason))


def _weighted_host(graph: Graph, node: Node, nodes: _Nodes) -> str | None:
    """The quantized weighted node whose kernel runs this activation; None for none."""
    host = _host(graph, node, nodes)
    return host.name if host is not None and is_weighted(host) else None


def _moves(node: Node) -> bool:
    """Whether it moves values on, in the scale that they have."""
    row = operator_of(node)
    return row is not None and row.quantized is QuantizedRule.SHARED


def _host(graph: Graph, node: Node, nodes: _Nodes) -> Node | None:
    """The quantized node whose result this activation alone reads; None for none."""
    name = node.input(0)
    producer = graph.producers.get(name)
    if producer is None or not isinstance(nodes[producer.name], Quantized):
        return None
    alone = len(graph.consumers(name)) == 1 and not graph.is_exposed(name)
    return producer if alone else None


def _residual(graph: Graph, node: Node, target: Target, nodes: _Nodes) -> int | None:
    """Position of the branch to quantize beside one a weighted node computes; None for none."""
    if node.op_type not in target.residual:
        return None
    if any(graph.constant(name) is not None for name in node.inputs):
        return None
    hosts = [
        position
        for position, name in enumerate(node.inputs)
        if (producer := graph.producers.get(name)) is not None
        and has_weight(graph, producer)
        and isinstance(nodes[producer.name], Quantized)
        and len(graph.consumers(name)) == 1
        and not graph.is_exposed(name)
    ]
    return 1 - hosts[-1] if hosts else None


# --- on everything ---------------------------------------------------------------------------


def _place_all(graph: Graph, target: Target, nodes: _Nodes, calibrated: set[str]) -> Placed:
    """Q/DQ around everything with a quantized kernel."""
    written = _decide_all(graph, target, nodes, calibrated)
    if target.float_ends:
        written -= _leave_ends(graph, nodes)
    readers: set[Place] = set()
    for node in graph.nodes:
        status = nodes[node.name]
        if isinstance(status, Quantized) and status.fused_into is None:
            readers |= _data_places(graph, node)
    tensors = {_tensor(graph, reader) for reader in readers} | {
        name for name in written if not _may_stay_float(graph, name, target, nodes)
    }
    # Every reader of what a kernel writes reads its dequantized value, else it keeps two outputs.
    # What comes in float is there for those that read it in float.
    into_bodies = _float_moves_into_bodies(graph, nodes)
    for name in tensors & written if target.float_ends else tensors:
        uses = (use for use in graph.consumers(name) if use.node.name not in into_bodies)
        readers |= {Place(use.node.name, use.position) for use in uses}
    unified = frozenset(node.name for node in graph.nodes if node.op_type in target.unified)
    return Placed(nodes, frozenset(readers), frozenset(tensors), unified)


def _float_moves_into_bodies(graph: Graph, nodes: _Nodes) -> set[str]:
    """What moves values in float to the body of an If, Loop or Scan.

    Behind a DequantizeLinear it ends the process: ONNX Runtime (1.32) moves that behind each such
    operator, and takes the If for one whose inputs it can count.
    """
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if not _moves(node) or isinstance(nodes[node.name], Quantized):
            continue
        uses = [use for name in node.results for use in graph.consumers(name)]
        captured = any(map(graph.is_captured, node.results))
        if captured or any(use.node.name in found for use in uses):
            found.add(node.name)
    return found


def _decide_all(graph: Graph, target: Target, nodes: _Nodes, calibrated: set[str]) -> set[str]:
    """Settle which nodes compute on quantized values; returns the tensors their kernels write."""
    written: set[str] = set()
    for node in graph.nodes:
        row = operator_of(node)
        status = nodes[node.name]
        if row is None or isinstance(status, Float):
            continue
        data = [n for n in data_of(graph, node) if graph.constant(n) is None]
        weighted = row.quantized is QuantizedRule.WEIGHTED
        if weighted or (node.op_type in target.own and written.intersection(data)):
            constants = [n for n in row.data_of(node) if graph.constant(n) is not None]
            result = kernel_output(graph, node)
            if constants and not weighted:
                nodes[node.name] = Float(Refusal(f"its operand {constants[0]!r} is a constant"))
            elif any(isinstance(nodes[n.name], Float) for n in before_join(graph, node)):
                reason = f"a function, value by value, that target {target.name} runs in float"
                nodes[node.name] = Float(Refusal(reason))
            elif result not in calibrated and not _may_stay_float(graph, result, target, nodes):
                nodes[node.name] = Float(Refusal(f"its output {result!r} was not calibrated"))
            else:
                written.update(node.results)
        elif row.quantized is QuantizedRule.SHARED and data and written.issuperset(data):
            written.update(node.results)
        elif row.fuses and (host := _fusing_host(graph, node, nodes)) is not None:
            nodes[node.name] = _into(status, host)
            written.discard(node.input(0))
            written.update(node.results)
        else:
            reason = f"target {target.name} runs {node.op_type} in float here"
            nodes[node.name] = Float(Refusal(reason))
    return written


def _leave_ends(graph: Graph, nodes: _Nodes) -> set[str]:
    """Leave in float what only the caller or float operators read; returns what it computes.

    Values of very different sizes meet there, as scores and boxes do in a Concat, and no kernel
    gains from a scale that serves them all. Weighted operators gain, and stay.
    """
    left: set[str] = set()
    for node in reversed(graph.nodes):
        status = nodes[node.name]
        if is_weighted(node) or not isinstance(status, Quantized) or status.fused_into is not None:
            continue
        group = [node]
        for fused in fused_activations(graph, node):
            inside = nodes[fused.name]
            if isinstance(inside, Quantized) and inside.fused_into is not None:
                group.append(fused)
        uses = (use for name in group[-1].outputs for use in graph.consumers(name))
        if _moves(node) and any(map(graph.is_captured, node.results)):
            continue
        if all(isinstance(nodes[use.node.name], Float) for use in uses):
            for each in group:
                nodes[each.name] = Float(Refusal("only the caller or float operators read it"))
                left.update(each.results)
    return left


def _may_stay_float(graph: Graph, name: str, target: Target, nodes: _Nodes) -> bool:
    """What a quantized kernel can write as float, and no other such kernel reads."""
    producer = graph.producers.get(name)
    if producer is None or producer.op_type not in target.float_output:
        return False
    read = all(isinstance(nodes[use.node.name], Float) for use in graph.consumers(name))
    return name in graph.outputs or read


def _fusing_host(graph: Graph, node: Node, nodes: _Nodes) -> str | None:
    """The quantized node whose output range can do this activation's work; None for none."""
    host = _host(graph, node, nodes)
    row = None if host is None else operator_of(host)
    if host is None or row is None or row.quantized is QuantizedRule.SHARED:
        return None
    return host.name
