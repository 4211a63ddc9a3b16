"""Apply a plan: weights become int8 with a DequantizeLinear, activations get Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.parameters import Parameters, quantize_weight
from onnxq.model.biases import bias_site
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import DEQUANTIZE, QUANTIZE, weight_layout
from onnxq.model.rewrite import constant, edit, node, variable
from onnxq.model.weights import WeightLayout
from onnxq.quantization.plan import QuantizationPlan
from onnxq.refusal import granted
from onnxq.targets import Placement

Array = NDArray[Any]

QUANTIZED_SUFFIX, DEQUANTIZED_SUFFIX = "_quantized", "_dequantized"


def insert(
    model: Model,
    plan: QuantizationPlan,
    *,
    weights: Mapping[str, NDArray[np.int8]] | None = None,
    biases: Mapping[str, NDArray[np.float32]] | None = None,
    integer_bias: bool | None = None,
) -> Model:
    """Write the QDQ model.

    Args:
        model: the float model the plan was made for.
        weights: node → int8 weight in stored layout, where it is not just rounded to nearest.
        biases: weighted node → corrected float value of its `bias_site`.
        integer_bias: override the target's choice (float biases while they are being corrected).
    """
    graph = Graph(model)
    writer = _Writer(graph, plan, weights or {}, biases or {})
    use_integer = plan.target.integer_bias if integer_bias is None else integer_bias
    return edit(model, lambda gs_graph: writer.write(gs_graph, integer_bias=use_integer))


class _Writer:
    """Holds what one `insert` needs while it edits."""

    def __init__(
        self,
        graph: Graph,
        plan: QuantizationPlan,
        weights: Mapping[str, NDArray[np.int8]],
        biases: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self._graph, self._plan = graph, plan
        self._weights, self._biases = weights, biases

    def write(self, gs_graph: Any, *, integer_bias: bool) -> None:
        nodes = {n.name: n for n in gs_graph.nodes}
        self._write_activations(gs_graph, nodes)
        for name, parameters in self._plan.weights.items():
            layout = granted(weight_layout(self._graph, self._graph.by_name[name]))
            self._write_weight(gs_graph, nodes[name], layout, parameters)
            if layout.takes_bias:
                self._write_bias(gs_graph, nodes[name], layout, parameters, integer=integer_bias)
            elif name in self._biases:
                self._write_added(nodes, name, layout)

    def _write_activations(self, gs_graph: Any, nodes: Mapping[str, Any]) -> None:
        tensors = gs_graph.tensors()
        outputs = {tensor.name for tensor in gs_graph.outputs}
        everything = self._plan.target.placement is Placement.ALL
        for name, entry in self._plan.activations.items():
            source = tensors[name]
            readers = [
                (nodes[reader], position)
                for reader, position in sorted(self._plan.readers)
                if self._graph.by_name[reader].inputs[position] == name
            ]
            exposed = everything and name in outputs and bool(source.inputs)
            if exposed:
                # The output keeps its name, so what the kernel writes takes another.
                producer = source.inputs[0]
                raw = variable(f"{name}_raw", source.dtype, source.shape)
                producer.outputs = [raw if t is source else t for t in producer.outputs]
                for reader, position in readers:
                    reader.inputs[position] = raw
                source, restored = raw, source
            else:
                restored = variable(name + DEQUANTIZED_SUFFIX, np.float32, source.shape)
            integer = variable(name + QUANTIZED_SUFFIX, entry.parameters.dtype, source.shape)
            scale, zero = _constants(name, entry.parameters)
            gs_graph.nodes.append(
                node(QUANTIZE, f"{name}/quantize", [source, scale, zero], [integer])
            )
            gs_graph.nodes.append(
                node(DEQUANTIZE, f"{name}/dequantize", [integer, scale, zero], [restored])
            )
            for reader, position in readers:
                reader.inputs[position] = restored

    def _write_weight(
        self, gs_graph: Any, target: Any, layout: WeightLayout, parameters: Parameters
    ) -> None:
        name = target.name
        integers = self._weights.get(name)
        if integers is None:
            weight = np.asarray(self._graph.constant(layout.weight))
            integers = quantize_weight(weight, parameters)
        label = f"{name}.weight"
        target.inputs[layout.weight_position] = _dequantize(gs_graph, label, integers, parameters)

    def _write_bias(
        self,
        gs_graph: Any,
        target: Any,
        layout: WeightLayout,
        parameters: Parameters,
        *,
        integer: bool,
    ) -> None:
        name = target.name
        bias = self._biases.get(name)
        if bias is None and layout.bias:
            bias = self._graph.constant(layout.bias)
        if bias is None:
            return
        while len(target.inputs) < 3:
            target.inputs.append(variable(""))
        vector = layout.bias_vector(bias)
        if not integer or vector is None:
            if name in self._biases:
                target.inputs[2] = constant(f"{name}.bias_corrected", bias.astype(np.float32))
            return
        data = self._graph.by_name[name].inputs[layout.data]
        entry = self._plan.activations[data]
        scale = (entry.parameters.scale * parameters.scale).astype(np.float32)
        zero = np.zeros(scale.shape, np.int32)
        axis = None if scale.ndim == 0 else 0
        limit = float(2**31 - 1)
        steps = np.clip(np.rint(vector / scale.astype(np.float64)), -limit, limit)
        target.inputs[2] = _dequantize(
            gs_graph, f"{name}.bias", steps.astype(np.int32), Parameters(scale, zero, axis)
        )

    def _write_added(self, nodes: Mapping[str, Any], name: str, layout: WeightLayout) -> None:
        """The bias of an operator that takes none: the constant added behind it."""
        site = granted(bias_site(self._graph, self._graph.by_name[name], layout))
        value = constant(f"{name}.bias_corrected", self._biases[name].astype(np.float32))
        nodes[site.node].inputs[site.position] = value


def _constants(label: str, parameters: Parameters) -> tuple[Any, Any]:
    return (
        constant(f"{label}_scale", parameters.scale),
        constant(f"{label}_zero_point", parameters.zero_point),
    )


def _dequantize(gs_graph: Any, label: str, integers: Array, parameters: Parameters) -> Any:
    scale, zero = _constants(label, parameters)
    restored = variable(label + DEQUANTIZED_SUFFIX, np.float32, integers.shape)
    attributes = {} if parameters.axis is None else {"axis": parameters.axis}
    gs_graph.nodes.append(
        node(
            DEQUANTIZE, f"{label}/dequantize",
            [constant(label + QUANTIZED_SUFFIX, integers), scale, zero], [restored], **attributes,
        )
    )  # fmt: skip
    return restored
