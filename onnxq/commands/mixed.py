"""Spare the layers that cost most: they compute with the wider scheme of theirs."""

from __future__ import annotations

from dataclasses import replace

from onnxq.commands.costliest import Made, ranked_layers
from onnxq.data.budget import Limits
from onnxq.data.source import DataSource
from onnxq.errors import UsageError
from onnxq.formats.scheme import Scheme
from onnxq.model.graph import Graph
from onnxq.quantization import quantize as stage
from onnxq.quantization.request import Request
from onnxq.targets import Target

RANKING_SAMPLES = 32
"""Samples on which the layers are ranked."""


def require_wider(target: Target, scheme: Scheme) -> None:
    """Raise `UsageError` where the target has nothing wider for the layers that are spared."""
    if scheme.wider is None:
        able = [name for name, row in target.schemes.items() if row.scheme.wider is not None]
        raise UsageError(
            f"--mixed: target {target.name} has no wider scheme beside {scheme}",
            hint=f"it has one beside {', '.join(able)}" if able else "leave --mixed out",
        )


def spare_costliest(
    request: Request, made: Made, source: DataSource, share: float, limits: Limits
) -> tuple[Request, Made]:
    """Make the model anew with the layers spared that cost most for their size.

    Args:
        made: of the request, with no layer spared.
        share: of the numbers in all quantized weights that may become wider.

    Returns:
        The request with the layers that are spared, and what was made of it.
    """
    plan, graph = made[1].plan, Graph(made[1].prepared.model)
    sizes: dict[str, int] = {}
    for place in plan.weights:
        name = graph.by_name[place.node].inputs[place.position]
        sizes[place.node] = sizes.get(place.node, 0) + graph.value(name).size
    room = share * sum(sizes.values())
    ranked = ranked_layers(request, made, source, RANKING_SAMPLES, limits)
    able = [layer for layer in ranked if layer.name in sizes and layer.share > 0]
    spared: set[str] = set()
    for layer in sorted(able, key=lambda each: -each.share / sizes[each.name]):
        if sizes[layer.name] <= room:
            room -= sizes[layer.name]
            spared.add(layer.name)
    if not spared:
        return request, made
    again = replace(request, again=made[1], wider=frozenset(spared))
    return again, stage.quantize(again)
