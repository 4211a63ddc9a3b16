"""Which tensors calibration looks at, and along which axis."""

from __future__ import annotations

from onnxq.equalization.channel_factors import plan_factors
from onnxq.equalization.classes import find_classes
from onnxq.model.graph import Graph
from onnxq.model.operators import operator_of


def tensors_to_observe(graph: Graph) -> dict[str, int | None]:
    """Activations worth a histogram → channel axis.

    What only a fused activation reads is left out: it never exists on the target, and exposing it
    would break the fusion.
    """
    classes = find_classes(graph)
    factors = {factor.tensor: factor.axis for factor in plan_factors(graph, classes)}
    found: dict[str, int | None] = {}
    for name in graph.activations:
        uses = graph.consumers(name)
        row = operator_of(uses[0].node) if len(uses) == 1 else None
        producer = graph.producers.get(name)
        if row and row.fuses and producer is not None and not graph.is_exposed(name):
            continue
        if uses or graph.is_exposed(name):
            axis = classes.channel_axis(name)
            found[name] = factors.get(name) if axis is None else axis
    return found
