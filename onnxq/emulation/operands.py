"""What an integer kernel can take and give: the emulator's conditions on what Q/DQ say."""

from __future__ import annotations

from onnxq.formats.table import Uniform
from onnxq.model.graph import Node
from onnxq.model.qdq import (
    QdqGraph,
    Quantization,
    quantizer_of,
    standing_for,
    stored_weight,
)
from onnxq.refusal import Refusal

WIDEST = 16
"""Bits of an operand whose products 64-bit sums hold exactly, however many there are in a layer."""


def operand(graph: QdqGraph, name: str) -> Quantization | Refusal:
    """The integers that an activation stands for: of a uniform format, with one scale."""
    found = standing_for(graph, name)
    return found if isinstance(found, Refusal) else _usable(found, name, per_tensor=True)


def result(graph: QdqGraph, name: str) -> tuple[Node, Quantization] | Refusal:
    """The QuantizeLinear that alone reads a result, of a uniform format with one scale."""
    found = quantizer_of(graph, name)
    if isinstance(found, Refusal):
        return found
    usable = _usable(found[1], found[1].stored, per_tensor=True)
    return usable if isinstance(usable, Refusal) else found


def weight(graph: QdqGraph, name: str) -> Quantization | Refusal:
    """The integers of a constant weight: of a uniform format, with one scale or one a channel."""
    found = stored_weight(graph, name)
    return found if isinstance(found, Refusal) else _usable(found, name, per_tensor=False)


def _usable(found: Quantization, name: str, *, per_tensor: bool) -> Quantization | Refusal:
    parameters, format_ = found.parameters, found.format
    if not isinstance(format_.grid, Uniform):
        return Refusal(f"{name!r} is {format_}, whose products add up in float32")
    if format_.bits > WIDEST:
        return Refusal(f"{name!r} is {format_}, of more than {WIDEST} bits")
    if parameters.per_tensor or (parameters.axis is not None and not per_tensor):
        return found
    return Refusal(f"{name!r} has scales {parameters.granularity}")
