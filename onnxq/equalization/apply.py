"""Write the scales into the weights, the constants and the Clips."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.sites import ClipSite, LinearSite, ScaleClasses, constant_scales, scales_of
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.rewrite import constant, edit, node, variable

Array = NDArray[Any]
Exponents = Mapping[int, float]


def apply_scales(graph: Graph, classes: ScaleClasses, exponents: Exponents) -> tuple[Model, int]:
    """The scaled model, and the number of kernels it runs more than the original.

    Args:
        graph: index of the model to scale.
        exponents: class root → log₂ s.
    """
    values = _new_constants(graph, classes, exponents)
    clips = [(site, scales_of(site.pattern, exponents)) for site in classes.clips]
    clips = [(site, scales) for site, scales in clips if np.any(scales != 1)]
    if not values and not clips:
        return graph.model, 0

    def change(gs_graph: Any) -> None:
        nodes = {n.name: n for n in gs_graph.nodes}
        for (name, position), value in values.items():
            # Each reader gets its own copy, so a shared initializer is scaled for each alone.
            nodes[name].inputs[position] = constant(f"{name}.{position}.equalized", value)
        for site, scales in clips:
            _scale_clip(gs_graph, nodes[site.node.name], site, scales)

    added = sum(_kernels(site, scales) - 1 for site, scales in clips)
    scaled = edit(graph.model, change)
    return (infer_shapes(scaled) if added else scaled), added


def _new_constants(
    graph: Graph, classes: ScaleClasses, exponents: Exponents
) -> dict[tuple[str, int], Array]:
    """(node, input position) → scaled value, for every constant whose scales are not all 1."""
    values: dict[tuple[str, int], Array] = {}
    for site in classes.linears:
        values |= _scaled_weight(graph, site, exponents)
    for constant_site in classes.constants:
        scales = constant_scales(constant_site, exponents)
        if np.all(scales == 1):
            continue
        node, position = constant_site.node, constant_site.position
        value = graph.value(node.inputs[position])
        # No more axes than needed: ONNX Runtime's fusions look for a bias of one.
        while scales.ndim > value.ndim and scales.shape[0] == 1:
            scales = scales[0]
        values[node.name, position] = (value * scales).astype(value.dtype)
    return values


def _scaled_weight(
    graph: Graph, site: LinearSite, exponents: Exponents
) -> dict[tuple[str, int], Array]:
    rows, columns = scales_of(site.output_ids, exponents), scales_of(site.input_ids, exponents)
    if np.all(rows == 1) and np.all(columns == 1):
        return {}
    layout = site.layout
    weight = graph.value(layout.weight)
    scaled = layout.scaled(layout.to_output_major(weight), rows, columns)
    values: dict[tuple[str, int], Array] = {
        (site.node.name, layout.weight_position): layout.from_output_major(scaled).astype(
            np.float32
        )
    }
    bias = graph.constant(layout.bias)
    if bias is not None and np.any(rows != 1):
        # Gemm's C broadcasts along N, so a scalar becomes a vector here.
        values[site.node.name, layout.bias_position] = (bias * rows).astype(np.float32)
    return values


def _bounds(site: ClipSite, scales: Array) -> tuple[Array | None, Array | None]:
    """Scaled lower and upper bounds; None where the bound is infinite."""
    low, high = (
        None if math.isinf(bound) else (np.float64(bound) * scales).astype(np.float32)
        for bound in site.bounds
    )
    return low, high


def _is_uniform(scales: Array) -> bool:
    return bool(np.all(scales == scales.flat[0]))


def _kernels(site: ClipSite, scales: Array) -> int:
    if _is_uniform(scales):
        return 1
    return sum(bound is not None for bound in _bounds(site, scales))


def _scale_clip(gs_graph: Any, clip: Any, site: ClipSite, scales: Array) -> None:
    """Move the bounds with the scales: a scalar Clip if they agree, else Relu or Max, then Min."""
    low, high = _bounds(site, scales)
    name = site.node.name
    if _is_uniform(scales):
        bounds = [clip.inputs[0]]
        for suffix, bound in (("min", low), ("max", high)):
            value = np.full((), bound.flat[0], np.float32) if bound is not None else None
            bounds.append(
                variable("") if value is None else constant(f"{name}.{suffix}.equalized", value)
            )
        clip.inputs = bounds
        return
    data, output = clip.inputs[0], clip.outputs[0]
    clip.outputs = []
    if low is not None:
        below = variable(f"{name}.above_min", np.float32) if high is not None else output
        if np.all(low == 0):
            gs_graph.nodes.append(node("Relu", f"{name}.relu", [data], [below]))
        else:
            minimum = constant(f"{name}.min.equalized", low)
            gs_graph.nodes.append(node("Max", f"{name}.max", [data, minimum], [below]))
        data = below
    if high is not None:
        maximum = constant(f"{name}.max.equalized", high)
        gs_graph.nodes.append(node("Min", f"{name}.min", [data, maximum], [output]))
