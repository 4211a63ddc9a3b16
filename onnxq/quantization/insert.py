"""Apply a plan: weights become numbers with a DequantizeLinear, activations get Q/DQ pairs.

What is quantized as the model runs gets a DynamicQuantizeLinear in front of its DequantizeLinear;
the layers that read it multiply integers in the end, see `onnxq.quantization.integers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxq.formats.parameters import Integers, Parameters, quantize
from onnxq.formats.scheme import Dynamic
from onnxq.model.biases import bias_site
from onnxq.model.graph import Graph, Place
from onnxq.model.model import Model
from onnxq.model.operators import (
    DEQUANTIZE,
    DYNAMIC_QUANTIZE,
    QUANTIZE,
    has_weight,
    weight_layout,
)
from onnxq.model.rewrite import constant, edit, node, variable
from onnxq.model.status import Quantized
from onnxq.model.weights import WeightLayout
from onnxq.quantization.integers import with_integer_products
from onnxq.quantization.lookups import Chain, look_up_blocks, scale_blocks
from onnxq.quantization.parameters import bias_as_numbers
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.residuals import with_sums_apart
from onnxq.quantization.tables import RowTable, TiedTable
from onnxq.refusal import Refusal, granted
from onnxq.targets import Placement

QUANTIZED_SUFFIX, DEQUANTIZED_SUFFIX = "_quantized", "_dequantized"
_VERBS = {QUANTIZE: "quantize", DEQUANTIZE: "dequantize"}


def insert(
    model: Model,
    plan: QuantizationPlan,
    *,
    weights: Mapping[Place, Integers] | None = None,
    biases: Mapping[str, NDArray[np.float32]] | None = None,
    float_biases: bool = False,
) -> Model:
    """Write the QDQ model.

    Args:
        model: the float model the plan was made for.
        weights: place → weight in its format and stored layout, where it is not just rounded to
            nearest.
        biases: weighted node → corrected float value of its `bias_site`.
        float_biases: leave biases in float whatever the plan says, while they are being corrected.
    """
    writer = _Writer(Graph(model), plan, weights or {}, biases or {}, float_biases=float_biases)
    written = edit(model, writer.write)
    # While layers are settled their inputs and weights are read as floats.
    if float_biases:
        return written
    # Sums have no kernel in float16.
    if plan.target.sums_apart and not plan.options.half:
        written = with_sums_apart(written)
    return with_integer_products(written) if plan.scheme.is_dynamic else written


class _Writer:
    """Holds what one `insert` needs while it edits."""

    def __init__(
        self,
        graph: Graph,
        plan: QuantizationPlan,
        weights: Mapping[Place, Integers],
        biases: Mapping[str, NDArray[np.float32]],
        *,
        float_biases: bool,
    ) -> None:
        self._graph, self._plan = graph, plan
        self._weights, self._biases = weights, biases
        self._float_biases = float_biases
        self._writers: dict[Place, Any] = {}
        self._rows: dict[str, tuple[Any, Any, Any]] = {}

    def write(self, gs_graph: Any) -> None:
        nodes = {n.name: n for n in gs_graph.nodes}
        self._write_activations(gs_graph, nodes)
        for place, parameters in self._plan.weights.items():
            name = place.node
            layout = granted(weight_layout(self._graph, self._graph.by_name[name]))
            self._write_weight(gs_graph, nodes[name], place, layout, parameters)
            if layout.takes_bias:
                self._write_bias(gs_graph, nodes[name], layout)
            else:
                self._write_added(nodes, name, layout)
        self._compute_float_biases(gs_graph, nodes)
        for place, parameters in self._plan.stored.items():
            value = self._graph.value(self._graph.by_name[place.node].input(place.position))
            label, integers = f"{place.node}.weight{place.position}", quantize(value, parameters)
            restored = _dequantize(gs_graph, label, integers, parameters)
            nodes[place.node].inputs[place.position] = restored
        for table in self._plan.tables:
            self._write_table(gs_graph, nodes[table.node], table)
        for rows in self._plan.rows:
            self._write_rows(gs_graph, nodes[rows.node], rows)

    def _write_activations(self, gs_graph: Any, nodes: Mapping[str, Any]) -> None:
        tensors = gs_graph.tensors()
        everything = self._plan.target.placement is Placement.ALL
        for name, entry in self._plan.activations.items():
            source = tensors[name]
            readers = [
                (nodes[reader.node], reader.position)
                for reader in sorted(self._plan.readers)
                if self._graph.by_name[reader.node].inputs[reader.position] == name
            ]
            # No kernel writes integers whose scale is found in each run.
            by_run = isinstance(entry, Dynamic)
            shown = self._graph.is_exposed(name) and name in self._graph.producers
            if everything and not by_run and shown:
                # What the caller or a body reads keeps its name: the kernel writes another.
                producer = source.inputs[0]
                raw = variable(f"{name}_raw", source.dtype, source.shape)
                producer.outputs = [raw if t is source else t for t in producer.outputs]
                for reader, position in readers:
                    reader.inputs[position] = raw
                source, restored = raw, source
            else:
                restored = variable(name + DEQUANTIZED_SUFFIX, np.float32, source.shape)
            integer = variable(name + QUANTIZED_SUFFIX, entry.format.dtype, source.shape)
            if isinstance(entry, Dynamic):
                scale = variable(f"{name}_scale", np.float32, ())
                zero = variable(f"{name}_zero_point", entry.format.dtype, ())
                quantizer = DYNAMIC_QUANTIZE, [source], [integer, scale, zero]
            else:
                scale, zero = _constants(name, entry.parameters)
                quantizer = QUANTIZE, [source, scale, zero], [integer]
            op_type, read, made = quantizer
            gs_graph.nodes.append(node(op_type, f"{name}/quantize", read, made))
            gs_graph.nodes.append(
                node(DEQUANTIZE, f"{name}/dequantize", [integer, scale, zero], [restored])
            )
            for reader, position in readers:
                reader.inputs[position] = restored
            if name in self._plan.converted:
                self._convert(gs_graph, nodes, name, restored)

    def _convert(self, gs_graph: Any, nodes: Mapping[str, Any], name: str, restored: Any) -> None:
        """Let those who read a tensor in another format than it is written in read that."""
        other = self._plan.converted[name]
        label = f"{name}_{other.format}"
        integer = variable(label + QUANTIZED_SUFFIX, other.format.dtype, restored.shape)
        result = variable(label + DEQUANTIZED_SUFFIX, np.float32, restored.shape)
        constants = _constants(label, other.parameters)
        for op_type, read, made in ((QUANTIZE, restored, integer), (DEQUANTIZE, integer, result)):
            gs_graph.nodes.append(
                node(op_type, f"{label}/{_VERBS[op_type]}", [read, *constants], [made])
            )
        for reader in sorted(other.readers):
            nodes[reader.node].inputs[reader.position] = result

    def _write_weight(
        self, gs_graph: Any, target: Any, place: Place, layout: WeightLayout, parameters: Parameters
    ) -> None:
        integers = self._weights.get(place)
        if integers is None:
            integers = quantize(self._graph.value(layout.weight), parameters)
        label = f"{place.node}.weight"
        restored = _dequantize(gs_graph, label, integers, parameters)
        target.inputs[place.position] = self._writers[place] = restored

    def _write_table(self, gs_graph: Any, lookup: Any, table: TiedTable) -> None:
        """Let a lookup read a weight's integers.

        Where the target's kernels take what is dequantized, the rows are: the whole weight would
        be dequantized in each run. Elsewhere the compiler sees to that, and knows Q/DQ only.
        """
        restored = self._writers[table.place]
        stored, scale, _ = restored.inputs[0].inputs
        by_row = self._plan.target.placement is Placement.ALL
        rank = (self._graph.rank(lookup.inputs[1].name) or 0) + 1
        chain = Chain(gs_graph, lookup)
        lookup.inputs[0] = stored if by_row else restored
        lookup.attrs["axis"] = int(table.transposed)
        if table.transposed:
            chain.add("Transpose", perm=[*range(1, rank), 0])
        if by_row:
            self._scale_taken(gs_graph, lookup, chain, scale)
        if table.factors is not None:
            chain.add("Mul", constant(f"{lookup.name}/factors", table.factors))
        chain.end()

    def _write_rows(self, gs_graph: Any, lookup: Any, table: RowTable) -> None:
        """Let a lookup take integers, and scale what it took."""
        name = lookup.inputs[0].name
        if name not in self._rows:
            integers = quantize(self._graph.value(name), table.parameters)
            scale, zero = _constants(f"{name}/row", table.parameters)
            if table.parameters.format.narrow:
                scale = constant(f"{name}/row_scale", scale.values.astype(np.float16))
            self._rows[name] = constant(f"{name}/integers", integers), scale, zero
        stored, scale, zero = self._rows[name]
        if table.parameters.format.narrow:
            inputs = [stored, lookup.inputs[1], scale, zero]
            look_up_blocks(lookup, inputs, table.block)
            chain = Chain(gs_graph, lookup)
            chain.add("Cast", to=TensorProto.FLOAT)
            chain.end()
            return
        lookup.inputs[0] = stored
        chain = Chain(gs_graph, lookup)
        if table.block:
            rank = self._graph.rank(lookup.inputs[1].name) or 0
            columns = self._scale_of_rows(gs_graph, lookup, scale)
            scale_blocks(chain, columns, [0] * rank, scale.values.shape[1], table.block)
        else:
            self._scale_taken(gs_graph, lookup, chain, scale)
        chain.end()

    def _scale_taken(self, gs_graph: Any, lookup: Any, chain: Chain, scale: Any) -> None:
        """Multiply the integers that a lookup took by their scale, or by those of their rows."""
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("Mul", self._scale_of_rows(gs_graph, lookup, scale))

    def _scale_of_rows(self, gs_graph: Any, lookup: Any, scale: Any) -> Any:
        if not scale.values.ndim:
            return scale
        taken, column = (variable(f"{lookup.name}/scale{i}", np.float32) for i in range(2))
        gs_graph.nodes.append(
            node(lookup.op, f"{lookup.name}/scale", [scale, lookup.inputs[1]], [taken], axis=0)
        )
        axes = constant(f"{lookup.name}/axes", np.array([-1]))
        gs_graph.nodes.append(node("Unsqueeze", f"{lookup.name}/column", [taken, axes], [column]))
        return column

    def _write_bias(self, gs_graph: Any, target: Any, layout: WeightLayout) -> None:
        name, position = target.name, layout.bias_position
        bias = self._biases.get(name)
        if bias is None and layout.bias:
            bias = self._graph.constant(layout.bias)
        if bias is None:
            return
        while len(target.inputs) <= position:
            target.inputs.append(variable(""))
        derived = self._plan.biases.get(Place(name, position))
        vector = layout.bias_vector(bias)
        if derived is None or self._float_biases or vector is None:
            if name in self._biases:
                corrected = constant(f"{name}.bias_corrected", bias.astype(np.float32))
                target.inputs[position] = corrected
            return
        integers = quantize(vector, derived.parameters)
        label = f"{name}.bias"
        target.inputs[position] = _dequantize(gs_graph, label, integers, derived.parameters)

    def _compute_float_biases(self, gs_graph: Any, nodes: Mapping[str, Any]) -> None:
        """Store the biases of float layers that read quantized values as numbers, as if exact.

        ONNX Runtime rounds the weight of such a layer itself, with one scale for all of it, unless
        its bias is computed: tens of dB of error (its WeightBiasQuantization).
        """
        for name, position in sorted(self._plan.readers):
            node = self._graph.by_name[name]
            layout = weight_layout(self._graph, node) if has_weight(self._graph, node) else None
            inside = isinstance(self._plan.nodes[name], Quantized)
            if inside or not isinstance(layout, WeightLayout) or not layout.takes_bias:
                continue
            bias = self._graph.constant(layout.bias)
            if not layout.bias:
                bias = np.zeros(layout.outputs, np.float32)
            if position != layout.data or bias is None or bias.ndim != 1:
                continue
            parameters = bias_as_numbers(bias)
            integers = quantize(bias, parameters)
            inputs = nodes[name].inputs
            while len(inputs) <= layout.bias_position:
                inputs.append(variable(""))
            restored = _dequantize(gs_graph, f"{name}.bias", integers, parameters)
            inputs[layout.bias_position] = restored

    def _write_added(self, nodes: Mapping[str, Any], name: str, layout: WeightLayout) -> None:
        """The bias of an operator that takes none: the constant added behind it.

        Where all sizes are known ONNX Runtime makes a Gemm of both, and finds no Q/DQ around it
        any more (its MatMulAddFusion), unless the constant has as many axes as the product.
        """
        node = self._graph.by_name[name]
        site = bias_site(self._graph, node, layout)
        if isinstance(site, Refusal):
            return
        values = self._biases.get(name)
        shape = self._graph.shape(node.output) or ()
        known = len(shape) > 2 and all(isinstance(size, int) for size in shape)
        apart = known and self._plan.target.placement is Placement.ALL
        if apart and (site.value if values is None else values).ndim == 1:
            values = site.value if values is None else values
            values = values.reshape((1,) * (len(shape) - 1) + values.shape)
        if values is None:
            return
        value = constant(f"{name}.bias_corrected", values.astype(np.float32))
        nodes[site.node].inputs[site.position] = value


def _constants(label: str, parameters: Parameters) -> tuple[Any, Any]:
    return (
        constant(f"{label}_scale", parameters.scale),
        constant(f"{label}_zero_point", parameters.stored_zero_point),
    )


def _dequantize(gs_graph: Any, label: str, integers: Integers, parameters: Parameters) -> Any:
    scale, zero = _constants(label, parameters)
    # The third input of what has no zero point may be left out, and WebGPU and WebNN refuse it.
    given = [scale, zero] if parameters.format.zero_point else [scale]
    restored = variable(label + DEQUANTIZED_SUFFIX, np.float32, integers.shape)
    gs_graph.nodes.append(
        node(
            DEQUANTIZE, f"{label}/dequantize",
            [constant(label + QUANTIZED_SUFFIX, integers), *given], [restored],
            **parameters.granularity.attributes,
        )
    )  # fmt: skip
    return restored
