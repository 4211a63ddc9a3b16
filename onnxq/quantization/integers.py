"""What is quantized as the model runs, as operators that multiply integers.

`insert` dequantizes both factors; here they are multiplied before that: MatMulInteger, whose sums
are scaled by input scale × weight scale. Cast, Mul and Add stand in the order that ONNX Runtime
fuses into one kernel, the scales' product written as input × weight. An operator that ONNX Runtime
has whole for such numbers, as LSTM, is put in place of the float one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import (
    BY_RUN_DOMAIN,
    DEQUANTIZE,
    FACTORS_BY_RUN,
    INTEGER_PRODUCT,
    Operator,
    is_dynamic_quantize,
    is_weighted,
    operator_of,
    weight_layout,
)
from onnxq.model.qdq import QdqGraph, Quantization, stored_weight
from onnxq.model.rewrite import constant, edit, node, variable
from onnxq.model.weights import WeightLayout
from onnxq.refusal import granted


def with_integer_products(model: Model) -> Model:
    """Let layers multiply integers where a DynamicQuantizeLinear makes their input, and operators
    with stored weights, where there is a kernel for it.
    """
    graph = QdqGraph(model)
    layouts = {
        each.name: granted(weight_layout(graph, each))
        for each in graph.nodes
        if is_weighted(each) and _is_dynamic(graph, each)
    }
    whole = {
        node.name: row
        for node in graph.nodes
        if (row := operator_of(node)) is not None and row.by_run and _is_stored(graph, node, row)
    }
    if not layouts and not whole:
        return model
    return edit(model, lambda gs_graph: _write_all(gs_graph, layouts, whole))


def _is_dynamic(graph: Graph, node: Node) -> bool:
    """Whether its data input is quantized by the range of each run."""
    dequantizer = graph.producers.get(node.input(0))
    if dequantizer is None or dequantizer.op_type != DEQUANTIZE:
        return False
    quantizer = graph.producers.get(dequantizer.input(0))
    return quantizer is not None and is_dynamic_quantize(quantizer)


def _is_stored(graph: QdqGraph, node: Node, row: Operator) -> bool:
    found = (stored_weight(graph, node.input(position)) for _, position in row.stores)
    return all(isinstance(each, Quantization) for each in found)


def _write_all(
    gs_graph: Any, layouts: Mapping[str, WeightLayout], whole: Mapping[str, Operator]
) -> None:
    for layer in list(gs_graph.nodes):
        if layer.name in layouts:
            _Layer(gs_graph, layer, layouts[layer.name]).write()
        elif layer.name in whole:
            _replace(layer, whole[layer.name])


def _replace(layer: Any, row: Operator) -> None:
    """Put the operator of integers in the place of one whose weights are dequantized."""
    inputs = list(layer.inputs)
    inputs += [variable("") for _ in range(FACTORS_BY_RUN - len(inputs))]
    for _, position in row.stores:
        stored, *factors = inputs[position].inputs[0].inputs
        inputs[position] = constant(
            f"{stored.name}_by_input", np.ascontiguousarray(stored.values.swapaxes(1, 2))
        )
        # The directions share their scales, the operator wants a row for each.
        inputs += [
            constant(f"{each.name}_by_direction", np.tile(each.values, (len(stored.values), 1)))
            for each in factors
        ]
    layer.op, layer.domain, layer.inputs = row.by_run, BY_RUN_DOMAIN, inputs


class _Layer:
    """One layer, y = alpha · x·W + beta · b, on its way from floats to integers."""

    def __init__(self, gs_graph: Any, layer: Any, layout: WeightLayout) -> None:
        self._graph, self._layer, self._layout = gs_graph, layer, layout

    def write(self) -> None:
        layer, name = self._layer, self._layer.name
        (data, data_scale, zero), (stored, weight_scale, _) = (
            tensor.inputs[0].inputs for tensor in layer.inputs[:2]
        )
        bias = layer.inputs[2] if len(layer.inputs) > 2 and layer.inputs[2].name else None
        alpha, beta = (float(layer.attrs.get(key, 1.0)) for key in ("alpha", "beta"))
        if self._layout.input_axis == 0:
            data = self._add("Transpose", "input", [data], data.dtype, perm=[1, 0])
        if not self._layout.output_last:
            stored = self._by_input(stored)
        step = constant(f"{name}.weight_scale", weight_scale.values * np.float32(alpha))
        scales = self._add("Mul", "scales", [data_scale, step], np.float32)
        (result,) = layer.outputs
        layer.outputs.clear()
        sums = variable(f"{name}/sums", np.int32)
        # The layer's own name stays with what computes it.
        product = node(INTEGER_PRODUCT, name, [data, stored, zero], [sums])
        self._graph.nodes.append(product)
        real = self._add("Cast", "real", [sums], np.float32, to=onnx.TensorProto.FLOAT)
        if bias is None or beta == 0:
            self._graph.nodes.append(node("Mul", f"{name}/scaled", [real, scales], [result]))
            return
        scaled = self._add("Mul", "scaled", [real, scales], np.float32)
        added = self._times(bias, beta)
        self._graph.nodes.append(node("Add", f"{name}/biased", [scaled, added], [result]))

    def _by_input(self, stored: Any) -> Any:
        """The numbers of a weight with its inputs first.

        A lookup may read them too: then they stay in the file once as they are, and the runtime
        transposes them when it loads the model.
        """
        if len(stored.outputs) > 1:
            return self._add("Transpose", "by_input", [stored], stored.dtype, perm=[1, 0])
        return constant(f"{stored.name}_by_input", np.ascontiguousarray(stored.values.T))

    def _times(self, bias: Any, beta: float) -> Any:
        if beta == 1:
            return bias
        factor = constant(f"{self._layer.name}.beta", np.float32(beta))
        return self._add("Mul", "bias", [bias, factor], np.float32)

    def _add(
        self, op_type: str, label: str, inputs: list[Any], dtype: Any, **attributes: Any
    ) -> Any:
        """A node and its result."""
        label = f"{self._layer.name}/{label}"
        made = variable(label, dtype)
        self._graph.nodes.append(node(op_type, label, inputs, [made], **attributes))
        return made
