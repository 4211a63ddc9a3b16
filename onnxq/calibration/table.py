"""The calibration table: minimum and maximum of every weight, bias and activation.

Its columns are those of MATLAB's `calibrate`. The optimized layer is the one that is left after
batch norms are folded; the network layer is the one in the file whose values these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import weight_layout
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.calibration.statistics import Calibration
    from onnxq.model.model import Model
    from onnxq.model.normalize import Normalization


@dataclass(frozen=True)
class Row:
    """One tensor.

    Attributes:
        optimized_layer: node that is left after folding, with "_Weights", "_Bias" or
            "_Activations".
        network_layer: node in the file: of a folded pair the weighted node for what is learned
            and the batch norm for the activation.
        kind: "Weights", "Bias" or "Activations".
        minimum, maximum: over all finite values; of activations, those the calibration saw.
    """

    optimized_layer: str
    network_layer: str
    kind: str
    minimum: float
    maximum: float


def calibration_table(
    normalized: Model, normalization: Normalization, calibration: Calibration
) -> tuple[Row, ...]:
    """The rows, inputs first and then node by node.

    Activations that a later one is fused with have no row: they do not exist on a target, and
    the fused activation's row stands for them.

    Args:
        normalized: what `normalize` made of the model that was calibrated.
        normalization: its record.
        calibration: of that model.
    """
    graph = Graph(normalized)
    batch_norm_of = {node: norm for norm, node in normalization.folded_batch_norms.items()}
    rows = [
        _activation(name, name, name, calibration)
        for name in graph.inputs
        if name in calibration.tensors
    ]
    for node in graph.nodes:
        rows += _learnables(graph, node)
        observed = [name for name in node.outputs if name in calibration.tensors]
        for name in observed:
            # A node such as Split has several activations, told apart by their tensors.
            layer = node.name if len(observed) == 1 else f"{node.name}:{name}"
            network_layer = batch_norm_of.get(node.name, node.name)
            rows.append(_activation(layer, network_layer, name, calibration))
    return tuple(rows)


def _activation(layer: str, network_layer: str, tensor: str, calibration: Calibration) -> Row:
    seen = calibration.tensors[tensor]
    return Row(f"{layer}_Activations", network_layer, "Activations", seen.low, seen.high)


def _learnables(graph: Graph, node: Node) -> Iterator[Row]:
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return
    for kind, tensor in (("Weights", layout.weight), ("Bias", layout.bias)):
        value = graph.constant(tensor)
        if value is not None and value.size:
            low, high = float(np.min(value)), float(np.max(value))
            yield Row(f"{node.name}_{kind}", node.name, kind, low, high)
