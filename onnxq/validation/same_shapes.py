"""Which tensors of two models have the same shapes, and can be fed to pieces of the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.model.footprint import Shape, measure_shapes, tensors_in
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import DEQUANTIZE
from onnxq.model.session import Runtime
from onnxq.model.subgraph import names_read
from onnxq.refusal import Refusal
from onnxq.validation.pairing import Layer, Pairing, pair

Feeds = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, Shape]


def of_same_shapes(
    pairing: Pairing, float_model: Model, quantized: Model, samples: Sequence[Feeds]
) -> Pairing:
    """The pairing without tensors whose shapes differ, or that no piece of the model can be fed.

    What an expert sees has as many rows as the router sends there. Where a layer has a rounding
    router in itself, that may choose other rows than the exact ones that the layer would be fed.

    Raises:
        ModelError: what the quantized model records of its scales does not fit its tensors.
    """
    names = pairing.tensors
    exact = measure_shapes(pairing.exact, names, samples, Runtime())
    (other,) = measure_shapes(pairing.quantized, names, samples[:1], Runtime())
    damaged = pairing.contradiction({name: exact[0][name] for name in names})
    if damaged:
        raise ModelError(f"{quantized.name} records a scale that does not fit {damaged!r}")
    refused = {
        name: Refusal(
            f"{name!r} is {_times(exact[0][name])} in the float model and "
            f"{_times(other[name])} in the quantized one"
        )
        for name in names
        if exact[0][name] != other[name]
    }
    if refused:
        pairing = pair(float_model, quantized, refused=refused)
    if _of_values(names, samples, exact).isdisjoint(pairing.tensors):
        return pairing
    inside = tensors_in(Graph(pairing.quantized))
    sized = _of_values(
        inside, samples, measure_shapes(pairing.quantized, inside, samples, Runtime())
    )
    while found := _not_to_be_fed(pairing, sized):
        refused |= {name: Refusal(f"{name!r} has another size for other values") for name in found}
        pairing = pair(float_model, quantized, refused=refused)
    return pairing


def _of_values(
    names: Sequence[str], samples: Sequence[Feeds], shapes: Sequence[Shapes]
) -> frozenset[str]:
    """Those of the tensors whose shapes differ for inputs of the same shapes."""
    first: dict[tuple[Shape, ...], Shapes] = {}
    found: set[str] = set()
    for feeds, these in zip(samples, shapes, strict=True):
        seen = first.setdefault(tuple(these[each] for each in sorted(feeds)), these)
        found |= {name for name in names if these[name] != seen[name]}
    return frozenset(found)


def _not_to_be_fed(pairing: Pairing, sized: Collection[str]) -> set[str]:
    graph, paired = Graph(pairing.quantized), set(pairing.tensors)
    return {
        name for layer in pairing.layers for name in _sized_otherwise(graph, layer, paired, sized)
    }


def _sized_otherwise(
    graph: Graph, layer: Layer, paired: Collection[str], sized: Collection[str]
) -> set[str]:
    """What the layer is fed in sizes that values decide, where it rounds values and decides too."""
    fed: set[str] = set()
    behind, rounded = set(fed), set(fed)
    for node in (graph.by_name[name] for name in layer.nodes):
        reads = set(names_read(graph, node))
        fed |= {name for name in reads if name in paired and name in sized}
        if reads & (fed | behind):
            behind.update(node.results)
        elif node.op_type == DEQUANTIZE or reads & rounded:
            rounded.update(node.results)
    return fed if any(name in sized for name in rounded) else set()


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a scalar"
