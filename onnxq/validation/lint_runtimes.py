"""Rules of runtimes other than TensorRT: rows of `onnxq.validation.lint.RULES`.

Measured with QNN 2.7, OpenVINO 2026.4 and onnxruntime-web 1.30; docs/targets.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from onnxq.data.checks import sizes
from onnxq.model.graph import Node
from onnxq.model.operators import (
    QuantizedRule,
    activation_bounds,
    fused_activations,
    is_quantize,
    kernel_output,
    operator_of,
)
from onnxq.model.qdq import QdqGraph, Quantization, quantizer_of, standing_for
from onnxq.model.static import open_inputs
from onnxq.refusal import Refusal
from onnxq.targets import Shapes, Target
from onnxq.validation.lint_parts import Found, is_dequantized, quantized_biases, weighted


def _shapes(graph: QdqGraph, target: Target) -> Found:
    """Sizes that the runtime wants to know; of a batch alone the first axis counts."""
    for spec in open_inputs(graph.model):
        known = (spec.shape or ())[:1] if target.shapes is Shapes.BATCH else spec.shape
        if target.shapes is Shapes.ANY or (known and all(isinstance(n, int) for n in known)):
            continue
        for use in graph.consumers(spec.name)[:1]:
            yield use.node, f"the input {spec.name!r} is {sizes(spec.shape or ('?',))}"


def _weight_scales(graph: QdqGraph, target: Target) -> Found:
    for node, layout in weighted(graph):
        found = standing_for(graph, layout.weight)
        several = isinstance(found, Quantization) and not found.parameters.per_tensor
        if several and node.op_type in target.one_weight_scale:
            yield node, f"the weight of a {node.op_type} has several scales"


def _implied(graph: QdqGraph, target: Target) -> Found:
    """Activations whose bounds the range behind them goes beyond: kernels of their own, in float.

    A step beyond is rounding.
    """
    for node in _computing(graph, target):
        for activation in fused_activations(graph, node):
            quantizer = quantizer_of(graph, activation.output)
            bounds = activation_bounds(graph, activation)
            if isinstance(quantizer, Refusal) or bounds is None:
                continue
            parameters = quantizer[1].parameters
            step, zero = float(parameters.scale.max()), int(parameters.zero_point.max())
            low = (parameters.numbers.lowest - zero) * step
            if low < bounds[0] - step and math.isfinite(bounds[0]):
                yield activation, f"the range behind it reaches down to {low:.3g}"


def _quantized_results(graph: QdqGraph, target: Target) -> Found:
    for node in _computing(graph, target):
        if node.op_type in target.float_output or not _reads_quantized(graph, node):
            continue
        name = kernel_output(graph, node)
        uses = graph.consumers(name)
        if graph.is_exposed(name) or not uses or not all(is_quantize(use.node) for use in uses):
            yield node, "its inputs are quantized, its result is not"


def _computing(graph: QdqGraph, target: Target) -> list[Node]:
    """Nodes with a quantized kernel on the target."""
    return [node for node in graph.nodes if node.op_type in target.weighted | target.own]


def _reads_quantized(graph: QdqGraph, node: Node) -> bool:
    row = operator_of(node)
    names = () if row is None else row.data_of(node)
    return bool(names) and all(is_dequantized(graph, name) for name in names)


def _bias_zero_points(graph: QdqGraph, _target: Target) -> Found:
    for node, _ in quantized_biases(graph):
        if node.input(2):
            yield node, "it names a zero point, which is 0 of a bias"


def _joins(graph: QdqGraph) -> list[Node]:
    """Nodes that put several quantized tensors together."""
    return [
        node for node in graph.nodes
        if (row := operator_of(node)) is not None
        and row.quantized is QuantizedRule.SHARED
        and row.data_inputs is None
        and len(node.inputs) > 1
        and all(is_dequantized(graph, name) for name in node.inputs)
    ]  # fmt: skip


def _signed_joins(graph: QdqGraph, _target: Target) -> Found:
    for node in _joins(graph):
        found = standing_for(graph, node.input(0))
        signed = isinstance(found, Quantization) and found.format.signed
        if signed and not graph.is_exposed(node.output) and _is_quantized(graph, node):
            yield node, "it joins signed numbers that a layer reads"


def _float_joins(graph: QdqGraph, target: Target) -> Found:
    for node in _joins(graph):
        layers = {name for name in node.inputs if _made_by_layer(graph, name, target)}
        if layers and not _is_quantized(graph, node):
            yield node, "float operators alone read it, and layers write quantized what it joins"


def _is_quantized(graph: QdqGraph, node: Node) -> bool:
    """Whether all that reads the node's result quantizes it."""
    uses = graph.consumers(node.output)
    return bool(uses) and all(is_quantize(use.node) for use in uses)


def _made_by_layer(graph: QdqGraph, name: str, target: Target) -> bool:
    """Whether a dequantized tensor is what a weighted operator wrote."""
    quantized = standing_for(graph, name)
    if isinstance(quantized, Refusal):
        return False
    quantizer = graph.producers.get(quantized.stored)
    maker = None if quantizer is None else graph.producers.get(quantizer.input(0))
    return maker is not None and maker.op_type in target.weighted


ROWS: tuple[tuple[str, str, Callable[[QdqGraph, Target], Found]], ...] = (
    ("shapes", "fix the sizes of inputs: onnxq quantize --input-shape", _shapes),
    ("weight-scales", "give the whole weight one scale", _weight_scales),
    ("implied", "quantize to a range that ends where the activation does", _implied),
    ("quantized-result", "quantize what it writes", _quantized_results),
    ("bias-zero-point", "leave out the zero point of biases", _bias_zero_points),
    ("signed-concat", "quantize activations to unsigned numbers", _signed_joins),
    ("float-concat", "leave the results of the last layers in float", _float_joins),
)
"""Id, advice, check."""
