"""Models whose activations are quantized as they run: known, and read as if they had Q/DQ.

DynamicQuantizeLinear gives the integers of a tensor with scale and zero point of that run;
MatMulInteger multiplies them with stored weights, a Cast and a Mul make floats of its sums. The
same with both factors dequantized before a MatMul is what everybody reads who wants to know what
is quantized. Operators of ONNX Runtime that quantize what they read, as DynamicQuantizeLSTM, are
read as the float ones with dequantized weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.table import BLOCKS_OPSET
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node, nodes_in
from onnxq.model.model import Model
from onnxq.model.operators import (
    CAST,
    DEQUANTIZE,
    DYNAMIC,
    FACTORS_BY_RUN,
    Operator,
    is_dynamic_quantize,
    is_integer_product,
    stands_for,
    turns_matrix,
)
from onnxq.model.rewrite import constant, edit, node, variable

Array = NDArray[Any]


def quantizes_as_it_runs(model: Model) -> bool:
    """Whether what a sample gives may depend on the samples beside it in a batch."""
    bodies = (model.message.graph.node, *(function.node for function in model.message.functions))
    return any(each.op_type.startswith(DYNAMIC) for body in bodies for each in nodes_in(body))


def quantized_by_run(graph: Graph) -> tuple[str, ...]:
    """The tensors that are quantized by the range of each run."""
    return tuple(node.input(0) for node in graph.nodes if is_dynamic_quantize(node))


@dataclass(frozen=True)
class DynamicProduct:
    """One MatMulInteger of a weight and a tensor quantized as the model runs.

    Attributes:
        node: the MatMulInteger.
        weight: (inputs, outputs), its numbers.
        quantizer: the DynamicQuantizeLinear of its data.
        scale: (outputs,) or (), of the weight.
        scaled: the Mul that makes floats of its sums.
    """

    node: Node
    weight: Array
    quantizer: Node
    scale: Array
    scaled: Node


def dynamic_products(graph: Graph) -> tuple[DynamicProduct, ...]:
    """Those of a graph, whoever wrote them."""
    found = (_product(graph, node) for node in graph.nodes if is_integer_product(node))
    return tuple(each for each in found if each is not None)


def _product(graph: Graph, node: Node) -> DynamicProduct | None:
    weight = _weight(graph, node.input(1))
    zero = graph.producers.get(node.input(2))
    if weight is None or weight.ndim != 2 or zero is None or not is_dynamic_quantize(zero):
        return None
    cast = _only_reader(graph, node.output)
    scaled = None if cast is None or cast.op_type != CAST else _only_reader(graph, cast.output)
    if cast is None or scaled is None or len(scaled.inputs) != 2:
        return None
    scales = graph.producers.get(next((n for n in scaled.inputs if n != cast.output), ""))
    if scales is None or zero.outputs[1] not in scales.inputs:
        return None
    others = [name for name in scales.inputs if name != zero.outputs[1]]
    scale = graph.constant(others[0]) if len(others) == 1 else None
    if scale is None or scale.shape not in {(), (1,), (weight.shape[1],)}:
        return None
    return DynamicProduct(
        node, weight, zero, scale.reshape(-1) if scale.size > 1 else scale.reshape(()), scaled
    )


def _weight(graph: Graph, name: str) -> Array | None:
    """The numbers of a weight, also of one that is transposed when the model is loaded."""
    maker = graph.producers.get(name)
    stored = graph.constant(name if maker is None else maker.input(0))
    if maker is None or stored is None:
        return stored
    by_axes = turns_matrix(maker)
    return np.ascontiguousarray(stored.T) if by_axes and stored.ndim == 2 else None


def _only_reader(graph: Graph, name: str) -> Node | None:
    uses = graph.consumers(name)
    return uses[0].node if len(uses) == 1 and not graph.is_exposed(name) else None


def with_dequantized(model: Model, *, products_alone: bool = False) -> Model:
    """The model with Q/DQ in place of its products of integers; itself where it has none.

    Args:
        model: normalized, so that nodes have names and constants are initializers.
        products_alone: leave operators that quantize within themselves, which floats are not
            equal to.
    """
    graph = Graph(model)
    products = dynamic_products(graph)
    whole = {
        node.name: row
        for node in ([] if products_alone else graph.nodes)
        if (row := stands_for(node)) is not None
        and _is_readable(graph, node, row, blocks=model.opset >= BLOCKS_OPSET)
    }
    if not products and not whole:
        return model

    def change(gs_graph: Any) -> None:
        nodes = {each.name: each for each in gs_graph.nodes}
        real: dict[str, Any] = {}
        for product in products:
            _dequantize(gs_graph, nodes, product, real)
        for name, row in whole.items():
            _in_float(gs_graph, nodes[name], row)

    return infer_shapes(edit(model, change))


def _is_readable(graph: Graph, node: Node, row: Operator, *, blocks: bool) -> bool:
    """Whether numbers, scales and zero points of its weights are constants that fit.

    Args:
        blocks: whether DequantizeLinear knows them, as scales of each direction need.
    """
    for index, (_, position) in enumerate(row.stores):
        first = FACTORS_BY_RUN + 2 * index
        numbers, *factors = (graph.constant(node.input(at)) for at in (position, first, first + 1))
        if numbers is None or numbers.ndim != 3:
            return False
        directions, _, rows = numbers.shape
        shapes = {(directions,), (directions, 1), (directions, rows)}
        for each in factors:
            if each is None or each.shape not in shapes:
                return False
            if not blocks and not _is_shared(each):
                return False
    return True


def _is_shared(factor: Array) -> bool:
    """Whether all directions have the scales, or zero points, of the first."""
    return bool((factor == factor[:1]).all())


def _in_float(gs_graph: Any, layer: Any, row: Operator) -> None:
    """Put the float operator in the place of one of integers, its weights dequantized."""
    inputs = list(layer.inputs)
    for index, (_, position) in enumerate(row.stores):
        numbers = np.ascontiguousarray(inputs[position].values.swapaxes(1, 2))
        label = f"{layer.name}.weight{position}"
        scales, zeros = (
            np.broadcast_to(each.values.reshape(len(numbers), -1), numbers.shape[:2])
            for each in inputs[FACTORS_BY_RUN + 2 * index :][:2]
        )
        granularity: dict[str, int] = {"axis": 1}
        if _is_shared(scales) and _is_shared(zeros):
            scales, zeros = scales[0], zeros[0]
        else:  # Each direction has its own: a block is all inputs of a row.
            granularity = {"axis": 2, "block_size": numbers.shape[2]}
            scales, zeros = scales[..., None], zeros[..., None]
        stored = [numbers, np.ascontiguousarray(scales), np.ascontiguousarray(zeros)]
        names = ("quantized", "scale", "zero_point")
        made = [constant(f"{label}_{name}", each) for name, each in zip(names, stored, strict=True)]
        inputs[position] = variable(f"{label}_dequantized", np.float32, numbers.shape)
        gs_graph.nodes.append(
            node(DEQUANTIZE, f"{label}/dequantize", made, [inputs[position]], **granularity)
        )
    layer.op, layer.domain, layer.inputs = row.op_type, "", inputs[:FACTORS_BY_RUN]


def _dequantize(
    gs_graph: Any, nodes: dict[str, Any], product: DynamicProduct, real: dict[str, Any]
) -> None:
    layer, quantizer = nodes[product.node.name], nodes[product.quantizer.name]
    data = layer.inputs[0]
    _, scale, zero = quantizer.outputs
    if data.name not in real:
        real[data.name] = variable(f"{data.name}_dequantized", np.float32)
        gs_graph.nodes.append(
            node(DEQUANTIZE, f"{data.name}/dequantize", [data, scale, zero], [real[data.name]])
        )
    stored = layer.inputs[3] if len(layer.inputs) > 3 and layer.inputs[3].name else None
    name, step = layer.name, product.scale.astype(np.float32)
    kind = product.weight.dtype
    zeros = np.zeros(step.shape, kind) if stored is None else stored.values
    zeros = np.broadcast_to(zeros.reshape(-1) if zeros.size > 1 else zeros.reshape(()), step.shape)
    factors = [
        constant(f"{name}.weight", product.weight),
        constant(f"{name}.scale", step),
        constant(f"{name}.zero", np.ascontiguousarray(zeros)),
    ]
    restored = variable(f"{name}.weight_dequantized", np.float32)
    axis = {"axis": 1} if step.ndim else {}
    gs_graph.nodes.append(
        node(DEQUANTIZE, f"{name}.weight/dequantize", factors, [restored], **axis)
    )
    scaled = nodes[product.scaled.name]
    (result,) = scaled.outputs
    scaled.outputs.clear()
    layer.outputs.clear()
    layer.name = f"{name}/integers"
    gs_graph.nodes.append(node("MatMul", name, [real[data.name], restored], [result]))
