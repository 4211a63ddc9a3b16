"""Inputs and outputs of a model in integers, as an NPU takes and gives them.

The QuantizeLinear behind an input and the DequantizeLinear in front of an output go away; what they
did is the caller's, with the scale and zero point that the model's metadata hold.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto

from onnxq.formats.parameters import Parameters
from onnxq.formats.table import Format
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import is_dequantize, is_quantize
from onnxq.model.qdq import Quantization, quantization_of
from onnxq.refusal import Refusal


@dataclass(frozen=True)
class IntegerInterface:
    """Which inputs and outputs are integers, and why the others are not.

    Attributes:
        tensors: input or output → what its numbers stand for.
        refused: input or output → why it stays as it is.
    """

    tensors: Mapping[str, Parameters]
    refused: Mapping[str, str]


def with_integer_interface(model: Model, format_: Format) -> tuple[Model, IntegerInterface]:
    """The model with inputs and outputs in a format, where it quantizes them to that alone."""
    graph = Graph(model)
    found: dict[str, Quantization] = {}
    refused: dict[str, str] = {}
    for name, node in (*_readers(graph).items(), *_writers(graph).items()):
        said = node if isinstance(node, Refusal) else quantization_of(graph, node)
        if isinstance(said, Quantization) and said.format is not format_:
            said = Refusal(f"it is {said.format} in the model")
        if isinstance(said, Quantization):
            found[name] = said
        else:
            refused[name] = said.reason if said is not None else "it is not quantized"

    parameters = {name: each.parameters for name, each in found.items()}
    return _rewritten(model, found, format_), IntegerInterface(parameters, refused)


def _rewritten(model: Model, found: Mapping[str, Quantization], format_: Format) -> Model:
    """Without the Q and DQ at the ends: what they made or read takes the name of the float."""
    proto = ModelProto()
    proto.CopyFrom(model.message)
    graph = proto.graph
    named = {each.stored: name for name, each in found.items()}
    kept = [
        node for node in graph.node
        if not (node.output[0] in named and node.input[0] == named[node.output[0]])
        and not (node.output[0] in found and node.input[0] == found[node.output[0]].stored)
    ]  # fmt: skip
    for node in kept:
        for names in (node.input, node.output):
            names[:] = [named.get(name, name) for name in names]
    infos = [info for info in graph.value_info if info.name not in named]
    kept, infos = copy.deepcopy(kept), copy.deepcopy(infos)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.value_info.extend(infos)
    for info in (*graph.input, *graph.output):
        if info.name in found:
            info.type.tensor_type.elem_type = format_.element
    return Model.adopt(proto, model.source)


def _readers(graph: Graph) -> dict[str, Node | Refusal]:
    """Float input → the QuantizeLinear that alone reads it."""
    found: dict[str, Node | Refusal] = {}
    for name in graph.inputs:
        uses = graph.consumers(name)
        if not graph.is_float(name):
            continue
        alone = len(uses) == 1 and is_quantize(uses[0].node) and not graph.is_exposed(name)
        found[name] = uses[0].node if alone else Refusal("it is read in float too")
    return found


def _writers(graph: Graph) -> dict[str, Node | Refusal]:
    """Float output → the DequantizeLinear that computes it, for the caller alone."""
    found: dict[str, Node | Refusal] = {}
    for name in graph.outputs:
        producer = graph.producers.get(name)
        if not graph.is_float(name):
            continue
        if producer is None or not is_dequantize(producer):
            found[name] = Refusal("it is computed in float")
        elif graph.consumers(name):
            found[name] = Refusal("it is read in float too")
        else:
            found[name] = producer
    return found
