"""What TensorRT asks of a QDQ model, checked on any: each rule is a row of `RULES`.

Sources: TensorRT's guide to explicit quantization; onnx-tensorrt issue 850 for biases; ONNX's
operator sets 13 (scales by channel) and 19 (float16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onnxq.emulation.qdq import NotInteger, QdqGraph, Quantization
from onnxq.model.graph import Node
from onnxq.model.model import Model
from onnxq.model.operators import Int8Rule, is_dequantize, is_quantize, operator_of, weight_layout
from onnxq.model.weights import WeightLayout
from onnxq.targets import TARGETS

TARGET = TARGETS["gpu"]

Found = Iterator[tuple[Node, str]]


@dataclass(frozen=True)
class Rule:
    """One thing TensorRT asks for.

    Attributes:
        id: short name.
        advice: what to do where it is broken.
        check: finds the nodes that break it, and says how.
    """

    id: str
    advice: str
    check: Callable[[QdqGraph], Found]


@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule."""

    rule: str
    node: str
    detail: str
    advice: str


def lint(model: Model) -> tuple[Finding, ...]:
    """Everything in a QDQ model that TensorRT would refuse, run in float, or run slowly.

    Args:
        model: whoever wrote it. Nodes without a name are called by their first output.
    """
    graph = QdqGraph(model)
    return tuple(
        Finding(rule.id, node.name or node.output, detail, rule.advice)
        for rule in RULES
        for node, detail in rule.check(graph)
    )


def _scales(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        if is_quantize(node) or is_dequantize(node):
            try:
                graph.quantization(node)
            except NotInteger as reason:
                yield node, str(reason)


def _known(graph: QdqGraph) -> Iterator[tuple[Node, Quantization]]:
    """Q and DQ nodes whose parameters are usable, biases aside."""
    biases = {node.index for node, _ in _biases(graph)}
    for node in graph.nodes:
        if (is_quantize(node) or is_dequantize(node)) and node.index not in biases:
            try:
                yield node, graph.quantization(node)
            except NotInteger:
                continue


def _types(graph: QdqGraph) -> Found:
    for node, found in _known(graph):
        if found.parameters.dtype != TARGET.activation:
            yield node, f"its integers are {found.parameters.dtype}"


def _zero_points(graph: QdqGraph) -> Found:
    for node, found in _known(graph):
        if np.any(found.parameters.zero_point):
            yield node, "its zero point is not 0"


def _weighted(graph: QdqGraph) -> Iterator[tuple[Node, WeightLayout]]:
    for node in graph.nodes:
        layout = weight_layout(graph, node)
        if isinstance(layout, WeightLayout):
            yield node, layout


def _biases(graph: QdqGraph) -> Found:
    for node, layout in _weighted(graph):
        producer = graph.producers.get(layout.bias)
        if producer is not None and is_dequantize(producer):
            yield producer, f"the bias of {node.name} is quantized"


def _weight_axes(graph: QdqGraph) -> Found:
    for node, layout in _weighted(graph):
        try:
            found = graph.standing_for(layout.weight)
        except NotInteger:
            continue
        axis, rank = found.parameters.axis, graph.rank(layout.weight) or 1
        if axis is not None and axis % rank != layout.channel_axis:
            yield node, f"its weight has scales along axis {axis}, not {layout.channel_axis}"


def _activation_scales(graph: QdqGraph) -> Found:
    for node, found in _known(graph):
        if graph.constant(node.input(0)) is None and not found.per_tensor:
            yield node, "an activation has scales by channel"


def _half_quantized(graph: QdqGraph) -> Found:
    for node, layout in _weighted(graph):
        if node.op_type not in TARGET.weighted:
            continue
        weight, data = (
            _is_dequantized(graph, name) for name in (layout.weight, node.input(layout.data))
        )
        if weight != data:
            yield node, f"its {'input' if weight else 'weight'} is not quantized"


def _is_dequantized(graph: QdqGraph, name: str) -> bool:
    producer = graph.producers.get(name)
    return producer is not None and is_dequantize(producer)


def _inside_fusions(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        row = operator_of(node)
        if row is None or not row.fuses:
            continue
        dequantize = graph.producers.get(node.input(0))
        if dequantize is None or not is_dequantize(dequantize):
            continue
        quantize = graph.producers.get(dequantize.input(0))
        source = graph.producers.get(quantize.input(0)) if quantize is not None else None
        if source is not None and source.op_type in TARGET.weighted:
            yield node, f"Q/DQ stand between {source.name} and its activation"


def _residuals(graph: QdqGraph) -> Found:
    weighted = {
        node.index
        for node, layout in _weighted(graph)
        if node.op_type in TARGET.weighted and _is_dequantized(graph, node.input(layout.data))
    }
    for node in graph.nodes:
        if node.op_type not in TARGET.residual:
            continue
        makers = [graph.producers.get(name) for name in node.inputs]
        if None in makers or any(graph.constant(name) is not None for name in node.inputs):
            continue
        integer = [maker.name for maker in makers if maker is not None and maker.index in weighted]
        if integer and not any(_is_dequantized(graph, name) for name in node.inputs):
            yield node, f"no branch beside {integer[0]} is quantized"


def _concats(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        row = operator_of(node)
        joins = row is not None and row.int8 is Int8Rule.SHARED and row.data_inputs is None
        if not joins or len(node.inputs) < 2:
            continue
        try:
            scales = {float(graph.operand(n).parameters.scale) for n in node.inputs}
        except NotInteger:
            continue
        if len(scales) > 1:
            yield node, f"its inputs have {len(scales)} different scales"


def _operators(graph: QdqGraph) -> Found:
    for node in graph.nodes:
        if node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
            yield node, f"{node.op_type} is no operator of TensorRT's parser"


def _opsets(graph: QdqGraph) -> Found:
    for node, found in _known(graph):
        scale = graph.constant(node.input(1))
        half = scale is not None and scale.dtype == np.float16
        needed = 19 if half else 13 if not found.per_tensor else 10
        if node.domain == "" and graph.model.opset < needed:
            what = "float16 scales" if half else "scales by channel"
            yield node, f"{what} need opset {needed}, the model has {graph.model.opset}"


RULES = (
    Rule("scale", "store each scale as one positive, finite constant", _scales),
    Rule("int8", "quantize to int8; TensorRT has no uint8 or int16", _types),
    Rule("zero-point", "quantize symmetrically, with zero points of 0", _zero_points),
    Rule("bias", "leave biases in float; an int32 bias with a DequantizeLinear does not parse",
         _biases),
    Rule("weight-axis", "scale weights per tensor or by output channel", _weight_axes),
    Rule("activation-scale", "give activations one scale", _activation_scales),
    Rule("half-quantized", "quantize input and weight, or neither", _half_quantized),
    Rule("fusion", "quantize behind the activation", _inside_fusions),
    Rule("residual", "quantize the branch that passes the convolution", _residuals),
    Rule("concat", "give the inputs of a Concat one scale", _concats),
    Rule("operator", "write Q/DQ around float operators", _operators),
    Rule("opset", "export with a newer opset", _opsets),
)  # fmt: skip
