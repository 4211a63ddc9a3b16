"""Spare the layers that cost most: they get wider numbers where the target has some, else float."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from onnxq.commands.costliest import Made, candidates
from onnxq.model.graph import Graph
from onnxq.quantization import quantize as stage
from onnxq.quantization.request import Request
from onnxq.quantization.search import FLOAT, Candidate, Mixed
from onnxq.validation.layers import LayerError


def spare_costliest(
    request: Request, made: Made, ranked: Sequence[LayerError], share: float
) -> tuple[Request, Made]:
    """Make the model anew with the layers spared that cost most.

    Args:
        made: of the request, with no layer spared.
        ranked: its layers, the most harmful first.
        share: of the layers; of the numbers in all quantized weights, where nothing else is
            quantized.

    Returns:
        The request with the layers that are spared, and what was made of it.
    """
    scheme = request.scheme
    becomes = FLOAT if scheme.wider is None else scheme.wider.name
    layers = candidates(request, made, ranked, becomes)
    choose = _worst if scheme.activation is not None else _worst_for_their_size
    spared = choose(made, layers, share)
    if not spared:
        return request, made
    again = replace(request, again=made[1]).raised(spared, "--mixed")
    quantized, result = stage.quantize(again)
    bought = Mixed(share, spared, made[1].quantized_sqnr, result.quantized_sqnr)
    return again, (quantized, replace(result, mixed=bought))


def _worst(_made: Made, layers: Sequence[Candidate], share: float) -> tuple[Candidate, ...]:
    """So many of the layers; one with a weight stays quantized."""
    most = len(layers)
    if layers and layers[0].becomes == FLOAT:
        most = max((i for i, each in enumerate(layers) if each.weighted), default=0)
    return tuple(layers[: min(math.ceil(share * len(layers)), most)])


def _worst_for_their_size(
    made: Made, layers: Sequence[Candidate], share: float
) -> tuple[Candidate, ...]:
    """Those that cost most for their size, up to that share of the weights."""
    plan, graph = made[1].plan, Graph(made[1].prepared.model)
    sizes: dict[str, int] = {}
    for place in plan.weights:
        name = graph.by_name[place.node].inputs[place.position]
        sizes[place.node] = sizes.get(place.node, 0) + graph.value(name).size
    room = share * sum(sizes.values())
    able = [layer for layer in layers if layer.node in sizes and layer.share > 0]
    spared = []
    for layer in sorted(able, key=lambda each: -each.share / sizes[each.node]):
        if sizes[layer.node] <= room:
            room -= sizes[layer.node]
            spared.append(layer)
    return tuple(spared)
