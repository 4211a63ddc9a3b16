"""Which layers of a quantized model cost most."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from onnxq.data.budget import Limits
from onnxq.data.source import DataSource
from onnxq.errors import DataError, ModelError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.quantization.request import LOW_SQNR, QuantizationResult, Request
from onnxq.quantization.search import FLOAT, Candidate
from onnxq.targets import Placement
from onnxq.validation.layers import LayerError, measure_layers

Made = tuple[Model, QuantizationResult]
"""A quantized model and its record."""

NAMED = 3
"""Layers that are named."""

PROBES = 4
"""Samples that they are found on."""

RANKING_SAMPLES = 32
"""Samples on which layers are ranked that are to be raised."""


def ranked_layers(
    request: Request,
    made: Made,
    source: DataSource,
    probes: int,
    limits: Limits,
    *,
    roughly: bool = False,
) -> tuple[LayerError, ...]:
    """The layers, the most harmful first, found on so many samples.

    Args:
        roughly: only to name the worst, see `measure_layers`.
    """
    quantized, result = made
    return measure_layers(
        result.prepared.model,
        quantized,
        source,
        outputs=request.outputs,
        probes=probes,
        whole=False,
        roughly=roughly,
        limits=limits,
        progress=request.progress,
    ).layers


def candidate(layer: LayerError, result: QuantizationResult, becomes: str = FLOAT) -> Candidate:
    return Candidate(layer.name, layer.share, layer.name in result.plan.weighted, becomes)


def candidates(
    request: Request, made: Made, layers: Sequence[LayerError], becomes: str
) -> list[Candidate]:
    """Those of the ranked layers that can become that, the most harmful first.

    What reads integers has them rounded until their writers are in float: there its share counts
    for them.
    """
    plan = made[1].plan
    if becomes != FLOAT:
        return [candidate(layer, made[1], becomes) for layer in layers]
    able = {layer.name for layer in layers
            if layer.name in plan.weighted or layer.op_type in request.target.residual}  # fmt: skip
    shares = {layer.name: layer.share for layer in layers if layer.name in able}
    if request.target.placement is Placement.ALL:
        graph = Graph(made[1].prepared.model)
        for layer in layers:
            writers = () if layer.name in able else _writers(graph, layer.name, able)
            for writer in writers:
                shares[writer] += layer.share / len(writers)
    order = sorted(shares, key=lambda name: -shares[name])
    return [Candidate(name, shares[name], name in plan.weighted) for name in order]


def _writers(graph: Graph, name: str, able: Collection[str]) -> tuple[str, ...]:
    """Those of the able layers whose integers a layer reads, directly or through others."""
    found: set[str] = set()
    pending, seen = [name], {name}
    while pending:
        node = graph.node_named(pending.pop())
        for read in () if node is None else node.inputs:
            maker = graph.producers.get(read)
            if maker is None or maker.name in seen:
                continue
            seen.add(maker.name)
            (found.add if maker.name in able else pending.append)(maker.name)
    return tuple(sorted(found))


def costliest(
    request: Request, made: Made, source: DataSource | None, limits: Limits
) -> tuple[Candidate, ...]:
    """The layers with the largest shares of the error; () where it is small or they are unknown."""
    if not request.effort.names_worst:
        return ()
    if source is None or not made[1].quantized_sqnr < LOW_SQNR:
        return ()
    try:
        layers = ranked_layers(request, made, source, PROBES, limits, roughly=True)
    except (DataError, ModelError):
        # The quantized model is good all the same; `validate --layers` says what is in the way.
        return ()
    return tuple(candidate(layer, made[1]) for layer in layers[:NAMED] if layer.share > 0)
