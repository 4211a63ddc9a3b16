"""NaN and infinity: where they do no harm, and where a model or its data are at fault.

A mask of −inf that is added to attention scores is gone behind the Softmax; operators without a row
in the operator table (IsNaN, …) may take what they like, and what a condition chooses from need not
pass: whether it does shows in the result, which is looked at as well. A layer with weights that
reads such a value or computes it, or an output that is NaN, is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnxq.calibration.statistics import TensorStatistics
from onnxq.model.graph import Graph
from onnxq.model.operators import Operator, QuantizedRule, ScaleRule, is_quantize, operator_of
from onnxq.refusal import Refusal

NAN, INF = "NaN", "Inf"


def harm(graph: Graph, tensor: str, kind: str) -> Refusal | None:
    """What a NaN or an infinity in the tensor spoils; None where float operators alone read it.

    Args:
        kind: "NaN", or "Inf", which functions of bounded value take back.
    """
    layer = _computed_by(graph, tensor)
    if layer:
        return Refusal(f"the layer {layer!r} computes it")
    seen, pending = set[str](), [tensor]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if kind == NAN and graph.is_exposed(name):
            return Refusal(f"the output {name!r} would be NaN")
        for use in graph.consumers(name):
            row = operator_of(use.node)
            if is_quantize(use.node):
                return Refusal(f"{use.node.name!r} quantizes it")
            if row is None or use.node.input(use.position) not in row.data_of(use.node):
                continue
            if row.quantized is QuantizedRule.WEIGHTED:
                return Refusal(f"the layer {use.node.name!r} reads it")
            if _lets_pass(row, kind):
                pending += use.node.outputs
    return None


def _lets_pass(row: Operator, kind: str) -> bool:
    """Whether a value that is not finite reaches the output for certain."""
    bounded = row.bounds is not None or row.scale is ScaleRule.CLIP
    return not row.chooses and (kind == NAN or not bounded)


def _computed_by(graph: Graph, tensor: str) -> str:
    """The layer with weights, the activation fused to it included, that gives it; "" for none."""
    producer = graph.producers.get(tensor)
    while producer is not None and (row := operator_of(producer)) is not None:
        if row.quantized is QuantizedRule.WEIGHTED:
            return producer.name
        producer = graph.producers.get(producer.input(0)) if row.fuses else None
    return ""


def harmless_inputs(graph: Graph) -> frozenset[str]:
    """Inputs that may hold both NaN and infinities, or infinities alone, without harm.

    What of them does harm after all is found where the model is observed.
    """
    return frozenset(name for name in graph.inputs if harm(graph, name, INF) is None)


def non_finite(tensors: Mapping[str, TensorStatistics], tensor: str) -> Refusal | None:
    """Why the tensor is to stay in float: the data gave it NaN or infinities; else None."""
    statistics = tensors.get(tensor)
    if statistics is None or not statistics.not_finite:
        return None
    first = statistics.first_not_finite
    if first is None:
        return Refusal(f"{tensor!r} holds NaN or Inf")
    return Refusal(f"{tensor!r} holds {first.kind}, first in sample {first.name}")
