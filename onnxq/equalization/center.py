"""Write offsets into the biases and the bounds of a model, and into its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.derived import Derived
from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.equalization.centering import Centering
from onnxq.equalization.offsets import free_bias
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import (
    weight_layout,
)
from onnxq.model.rewrite import constant, edit, variable
from onnxq.refusal import granted

Floats = NDArray[np.float64]


def center_by(model: Model, plan: Centering) -> Model:
    """The model with its activations centered."""
    if not plan.shifts:
        return model
    graph = Graph(model)
    biases = _new_biases(graph, plan)

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for name, bias in biases.items():
            target = nodes[name]
            position = granted(weight_layout(graph, graph.by_name[name])).bias_position
            while len(target.inputs) <= position:
                target.inputs.append(variable(""))
            target.inputs[position] = constant(f"{name}.bias_absorbed", bias)
        for shift in plan.shifts:
            for name in shift.limits:
                _move_bounds(graph, nodes[name], float(shift.offset[0]))

    return edit(model, change)


def _new_biases(graph: Graph, plan: Centering) -> dict[str, NDArray[np.float32]]:
    """Node → bias − offset given + Σ W·offset received, summed in float64."""
    given = {shift.producer: shift.offset for shift in plan.shifts}
    readers = {reader for shift in plan.shifts for reader in shift.readers}
    biases = {}
    for node in graph.nodes:
        if node.name not in given and node.name not in readers:
            continue
        layout = granted(weight_layout(graph, node))
        bias = granted(free_bias(graph, layout)) - given.get(node.name, 0.0)
        received = plan.offsets.get(node.inputs[layout.data])
        if node.name in readers and received is not None:
            weight = layout.to_output_major(np.asarray(graph.constant(layout.weight), np.float64))
            offsets = np.broadcast_to(received, (layout.inputs,))[layout.input_index()]
            bias = bias + (weight.sum(axis=2) * offsets).sum(axis=1)
        biases[node.name] = bias.astype(np.float32)
    return biases


def _move_bounds(graph: Graph, target: Any, offset: float) -> None:
    """Subtract the offset from the bounds of a Relu, Clip, Min or Max."""
    name = target.name
    node = graph.by_name[name]
    bounds: Sequence[tuple[int, Any]]
    if len(node.inputs) == 1:
        target.op = "Clip"
        bounds = [(1, np.zeros((), np.float32))]
        target.inputs.append(variable(""))
    else:
        found = ((i, graph.constant(tensor)) for i, tensor in enumerate(node.inputs))
        bounds = [(i, value) for i, value in found if value is not None]
    for position, value in bounds:
        moved = (value.astype(np.float64) - offset).astype(np.float32)
        target.inputs[position] = constant(f"{name}.{position}.absorbed", moved)


def derive_shifted(calibration: Calibration, plan: Centering) -> Calibration:
    """The calibration of the centered model."""
    before, offsets = calibration.tensors, plan.offsets

    def shifted(name: str) -> TensorStatistics:
        found = before[name]
        return found.shifted(offsets[name]) if name in offsets else found

    return replace(calibration, tensors=Derived(before, shifted))
