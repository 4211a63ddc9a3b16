"""Weights of operators that compute in float, such as LSTM: stored as numbers, then dequantized.

Where activations are quantized as the model runs, ONNX Runtime may have an operator that multiplies
the numbers themselves; see `onnxq.quantization.integers`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxq.formats.fit import fit_magnitude
from onnxq.formats.granularity import PerChannel
from onnxq.formats.parameters import Parameters
from onnxq.formats.scheme import Representable, Scheme
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.operators import Operator, operator_of
from onnxq.model.status import Float, Quantized
from onnxq.refusal import Refusal

ROWS = 1
"""The axis of the outputs of the gates; the directions share their scales."""


def refusal_to_store(graph: Graph, node: Node, row: Operator, scheme: Scheme) -> Refusal | None:
    """Why the node's weights stay in float; None where they are stored."""
    if not row.stores:
        return Refusal(f"{node.op_type} has no quantized form")
    if scheme.activation is not None and (refusal := _no_integers(node, row, scheme)):
        return refusal
    for role, position in row.stores:
        value = graph.constant(node.input(position))
        if value is None or not graph.is_float(node.input(position)):
            return Refusal(f"its {role.lower()} are no float32 constant")
        if value.ndim != 3 or not value.size or not np.isfinite(value).all():
            return Refusal(f"its {role.lower()} are no matrices of finite numbers")
    return None


def _no_integers(node: Node, row: Operator, scheme: Scheme) -> Refusal | None:
    """Why no kernel multiplies its stored weights with quantized activations."""
    alone = "schemes of weights alone store its weights"
    if not scheme.is_dynamic:
        return Refusal(f"{node.op_type} has no quantized form; {alone}")
    if not row.by_run:
        return Refusal(f"ONNX Runtime has no integer {node.op_type}; {alone}")
    return None


def stored_weights(
    graph: Graph, nodes: Mapping[str, Quantized | Float], scales: Representable
) -> dict[Place, Parameters]:
    """Where such a node reads a weight → the parameters it is stored with."""
    found = {}
    for node in graph.nodes:
        row, status = operator_of(node), nodes[node.name]
        if row is None or not row.stores or isinstance(status, Float):
            continue
        spec = status.scheme.weight
        for _, position in row.stores:
            weight = np.abs(graph.value(node.input(position)))
            largest = weight.max(axis=(0, 2)).astype(np.float64)
            if spec is not None:
                parameters = fit_magnitude(largest, spec, PerChannel(ROWS), scales)
                found[Place(node.name, position)] = parameters
    return found
