"""What a target's runtime asks of a QDQ model, checked on any: each rule is a row of `RULES`.

A target names the rules that hold for it. Those here are TensorRT's, and of all.

Sources: TensorRT's guide to explicit quantization; onnx-tensorrt issue 850 for biases; ONNX's
operator sets 13 (scales by channel) and 19 (float16).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxq.errors import UsageError
from onnxq.model.model import Model
from onnxq.model.operators import (
    QuantizedRule,
    is_dequantize,
    operator_of,
)
from onnxq.model.qdq import (
    QdqGraph,
    Quantization,
    quantization_of,
    quantized_activations,
    standing_for,
)
from onnxq.refusal import Refusal
from onnxq.suggest import suggest
from onnxq.targets import SHIPPED, Target, target_named
from onnxq.validation import lint_runtimes
from onnxq.validation.lint_parts import (
    Found,
    is_dequantized,
    known,
    quantized_biases,
    weighted,
)


@dataclass(frozen=True)
class Rule:
    """One thing to ask for.

    Attributes:
        id: short name.
        advice: what to do where it is broken.
        check: finds the nodes that break it, and says how.
    """

    id: str
    advice: str
    check: Callable[[QdqGraph, Target], Found]


@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule."""

    rule: str
    node: str
    detail: str
    advice: str


def lint(model: Model, target: Target | None = None) -> tuple[Finding, ...]:
    """Everything in a QDQ model that a target would refuse, run in float, or run slowly.

    Args:
        model: whoever wrote it. Nodes without a name are called by their first output.
        target: whose rules; by default TensorRT's.

    Raises:
        UsageError: the target names a rule that there is not.
    """
    graph, target = QdqGraph(model), target or target_named(SHIPPED[0])
    _check_names(target)
    return tuple(
        Finding(rule.id, node.name or node.output, detail, rule.advice)
        for rule in RULES
        if rule.id in target.lint
        for node, detail in rule.check(graph, target)
    )


def _check_names(target: Target) -> None:
    ids = [rule.id for rule in RULES]
    for name in target.lint:
        if name not in ids:
            hint = suggest(name, ids, of="the rules")
            raise UsageError(f"target {target.name}: there is no rule {name!r}", hint=hint)


def _scales(graph: QdqGraph, _target: Target) -> Found:
    for node in graph.nodes:
        found = quantization_of(graph, node)
        if isinstance(found, Refusal):
            yield node, found.reason


def _types(graph: QdqGraph, target: Target) -> Found:
    taken = {
        spec.format
        for each in target.schemes.values()
        for spec in (each.scheme.weight, each.scheme.activation)
        if spec is not None
    }
    for node, found in known(graph):
        if found.format not in taken:
            yield node, f"its numbers are {found.format}"


def _zero_points(graph: QdqGraph, _target: Target) -> Found:
    for node, found in known(graph):
        if np.any(found.parameters.zero_point):
            yield node, "its zero point is not 0"


def _biases(graph: QdqGraph, _target: Target) -> Found:
    return quantized_biases(graph)


def _weight_axes(graph: QdqGraph, _target: Target) -> Found:
    for node, layout in weighted(graph):
        found = standing_for(graph, layout.weight)
        if isinstance(found, Refusal):
            continue
        axis, rank = found.parameters.axis, len(layout.shape)
        if axis is not None and axis % rank != layout.channel_axis:
            yield node, f"its weight has scales along axis {axis}, not {layout.channel_axis}"


def _activation_scales(graph: QdqGraph, _target: Target) -> Found:
    for node, found in known(graph):
        if graph.constant(node.input(0)) is None and not found.parameters.per_tensor:
            yield node, "an activation has scales by channel"


def _half_quantized(graph: QdqGraph, target: Target) -> Found:
    alone = any(each.scheme.activation is None for each in target.schemes.values())
    if alone and not quantized_activations(graph):
        return
    for node, layout in weighted(graph):
        small = target.sizes.refusal(graph, node, layout)
        if node.op_type not in target.weighted or small is not None:
            continue
        weight, data = (
            is_dequantized(graph, name) for name in (layout.weight, node.input(layout.data))
        )
        if weight != data:
            yield node, f"its {'input' if weight else 'weight'} is not quantized"


def _inside_fusions(graph: QdqGraph, target: Target) -> Found:
    for node in graph.nodes:
        row = operator_of(node)
        if row is None or not row.fuses:
            continue
        dequantize = graph.producers.get(node.input(0))
        if dequantize is None or not is_dequantize(dequantize):
            continue
        quantize = graph.producers.get(dequantize.input(0))
        source = graph.producers.get(quantize.input(0)) if quantize is not None else None
        if source is not None and source.op_type in target.weighted:
            yield node, f"Q/DQ stand between {source.name} and its activation"


def _residuals(graph: QdqGraph, target: Target) -> Found:
    layers = {
        node.index
        for node, layout in weighted(graph)
        if node.op_type in target.weighted and is_dequantized(graph, node.input(layout.data))
    }
    for node in graph.nodes:
        if node.op_type not in target.residual:
            continue
        makers = [graph.producers.get(name) for name in node.inputs]
        if None in makers or any(graph.constant(name) is not None for name in node.inputs):
            continue
        integer = [maker.name for maker in makers if maker is not None and maker.index in layers]
        if integer and not any(is_dequantized(graph, name) for name in node.inputs):
            yield node, f"no branch beside {integer[0]} is quantized"


def _concats(graph: QdqGraph, _target: Target) -> Found:
    for node in graph.nodes:
        row = operator_of(node)
        joins = (
            row is not None and row.quantized is QuantizedRule.SHARED and row.data_inputs is None
        )
        if not joins or len(node.inputs) < 2:
            continue
        found = [standing_for(graph, name) for name in node.inputs]
        quantized = [each for each in found if isinstance(each, Quantization)]
        per_tensor = all(each.parameters.per_tensor for each in quantized)
        if len(quantized) < len(found) or not per_tensor:
            continue
        scales = {float(each.parameters.scale) for each in quantized}
        if len(scales) > 1:
            yield node, f"its inputs have {len(scales)} different scales"


def _operators(graph: QdqGraph, _target: Target) -> Found:
    for node in graph.nodes:
        if node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
            yield node, f"{node.op_type} is no operator of TensorRT's parser"


def _opsets(graph: QdqGraph, _target: Target) -> Found:
    for node, found in known(graph):
        scale = graph.constant(node.input(1))
        half = scale is not None and scale.dtype == np.float16
        needed = {
            f"{found.format} numbers": found.format.opset,
            "float16 scales": 19 if half else 0,
            "scales by channel": 0 if found.parameters.per_tensor else 13,
        }
        what, needs = max(needed.items(), key=lambda item: item[1])
        if node.domain == "" and graph.model.opset < needs:
            yield node, f"{what} need opset {needs}, the model has {graph.model.opset}"


RULES = (
    Rule("scale", "store each scale as one positive, finite constant", _scales),
    Rule("format", "quantize to a format that the target takes", _types),
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
    *(Rule(*row) for row in lint_runtimes.ROWS),
)  # fmt: skip
