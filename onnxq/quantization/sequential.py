"""Settle the weights and biases of the layers one after another, each on its quantized inputs.

For each weighted node in topological order, with everything before it quantized and settled: round
its weight given the inputs that it will really see, then correct the mean error left in its output.
So each layer makes up for what the layers before it could not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.ranges import Range
from onnxq.data.budget import WHOLE, Batching
from onnxq.data.shelf import Shelf, Values
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.formats.parameters import Integers, dequantize
from onnxq.formats.table import Floating
from onnxq.model.biases import BiasSite, bias_site
from onnxq.model.functions import Function, function_of
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.model import Model
from onnxq.model.operators import fused_bounds, weight_layout
from onnxq.model.weights import WeightLayout
from onnxq.progress import SILENT, Progress
from onnxq.quantization.beside import CLIPPED, with_layers_beside
from onnxq.quantization.blas import blas_threads_for
from onnxq.quantization.collect import collect_moments
from onnxq.quantization.columns import Columns, refusal_of
from onnxq.quantization.correct import BiasCorrection, along, measure_shift
from onnxq.quantization.importance import NO_IMPORTANCE, Importance, fitting
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.readers import Clipping
from onnxq.quantization.rounding import Rounding, keep_nearest, round_weight
from onnxq.quantization.segments import SegmentRunner
from onnxq.refusal import Refusal, granted

Array = NDArray[Any]

MATRICES = 5
"""Matrices of products of a layer's inputs that exist at a time while it is rounded, about."""

LEAST_ROOM = 8
"""Share of the room for tensors that wait, one of so many, which they have in any case."""

ONE_SAMPLE = Refusal("one sample cannot decide")
UNREACHED = Refusal("no sample gives it a value")
NOT_FINITE = Refusal("its values are not finite")
OTHER_SIZES = Refusal("values decide on its sizes: it has others in the quantized model")
FLOATING = Refusal("its numbers are floating-point ones")


@dataclass(frozen=True)
class SettledLayers:
    """What `settle_layers` found.

    Attributes:
        weights: place → weight in its format and stored layout, where it is not rounded to nearest.
        biases: weighted node → new value of its `bias_site`, where it changes.
        roundings, corrections: a record of each layer; empty for what was not asked for.
    """

    weights: Mapping[Place, Integers]
    biases: Mapping[str, NDArray[np.float32]]
    roundings: tuple[Rounding, ...]
    corrections: tuple[BiasCorrection, ...]


def settle_layers(
    model: Model,
    plan: QuantizationPlan,
    batches: Sequence[Mapping[str, Array]],
    *,
    adaptive: bool,
    correct: bool,
    batching: Batching = WHOLE,
    tokens: Tokens = NO_TOKENS,
    clipped: Mapping[str, Range] | None = None,
    importance: Importance = NO_IMPORTANCE,
    progress: Progress = SILENT,
) -> SettledLayers:
    """Round weights adaptively, correct biases, or both.

    Args:
        model: the float model the plan was made for.
        batches: samples in groups; half of them measure, the other half decide.
        clipped: tensor → range that leaves out on purpose what is not worth its steps: the weights
            that read it are not to make up for that.
        importance: tensor → what its positions count, see `importance_of`.
        batching: how they run; the result does not depend on it.
        tokens: which axes count tokens, so that padding does not count.
    """
    layers = _Layers(model, plan, batches, batching, tokens, clipped or {}, importance)
    weights: dict[Place, Integers] = {}
    biases: dict[str, NDArray[np.float32]] = {}
    roundings: list[Rounding] = []
    corrections: list[BiasCorrection] = []
    with progress.track("settle layers", len(plan.weights)) as advance:
        for node, place in layers.nodes:
            target = layers.target(node, node.output)
            if adaptive:
                integers, rounding = layers.round(node, place, target, corrected=correct)
                roundings.append(rounding)
                if rounding.adaptive:
                    weights[place] = integers
            if correct and (found := layers.correct(node, target)) is not None:
                bias, correction = found
                corrections.append(correction)
                if correction.accepted:
                    biases[node.name] = bias
            del target
            advance(1)
    return SettledLayers(weights, biases, tuple(roundings), tuple(corrections))


TIED = Refusal("a lookup reads its weight as a table")
"""Rounded for the outputs of the layer it would be further from the table."""


class _Layers:
    """The float and the quantized model, run side by side as far as the layer that is settled."""

    def __init__(
        self,
        model: Model,
        plan: QuantizationPlan,
        batches: Sequence[Mapping[str, Array]],
        batching: Batching,
        tokens: Tokens,
        clipped: Mapping[str, Range],
        importance: Importance,
    ) -> None:
        self._graph, self._plan = Graph(model), plan
        self._batches, self._tokens, self._clipped = batches, tokens, clipped
        self._importance = importance
        quantized = insert(model, plan, float_biases=True)
        self._quantized = Graph(quantized)
        self.nodes = [(self._graph.by_name[place.node], place) for place in plan.weights]
        shelf = Shelf(self._room(batching.room), copies=batching.large)
        self.exact = SegmentRunner(with_layers_beside(model, clipped), batches, batching, shelf)
        self._rounded = SegmentRunner(quantized, batches, batching, shelf)

    def _room(self, room: int) -> int:
        """Bytes that tensors may take while they wait, beside what rounding the largest layer does.

        A ResNet-50 has layers of 4,608 inputs: a matrix of their products is 170 MB.
        """
        layouts = (weight_layout(self._graph, node) for node, _ in self.nodes)
        sizes = [each.groups * each.columns**2 for each in layouts if not isinstance(each, Refusal)]
        matrices = MATRICES * np.dtype(np.float64).itemsize * max(sizes, default=0)
        return max(room - matrices, room // LEAST_ROOM)

    def target(self, node: Node, tensor: str) -> Values:
        """What the node's weight and bias are settled for: what it gives, or would behind a clip.

        Else they would make up on all positions for what was cut off on purpose on a few.

        Args:
            tensor: the node's output, or that behind its bias.
        """
        clips = node.input(self._layout(node).data) in self._clipped
        return self.exact.compute(tensor + CLIPPED if clips else tensor)

    def round(
        self, node: Node, place: Place, wanted: Values, *, corrected: bool
    ) -> tuple[Integers, Rounding]:
        """Round the node's weight; `corrected` says that its bias makes up for means afterwards."""
        layout, quantized = self._layout(node), self._quantized.by_name[node.name]
        weight = np.asarray(self._graph.constant(layout.weight))
        parameters = self._plan.weights[place]
        bias = self._bias(layout)
        if isinstance(bias, Refusal):
            return keep_nearest(node.name, weight, parameters, bias)
        refusal = refusal_of(self._graph, node, layout)
        if place in {table.place for table in self._plan.tables}:
            refusal = TIED
        if isinstance(parameters.numbers, Floating):
            refusal = FLOATING
        if refusal is not None:
            return keep_nearest(node.name, weight, parameters, refusal)
        inputs = self._rounded.compute(quantized.inputs[layout.data])
        centered = corrected and isinstance(bias_site(self._graph, node, layout), BiasSite)
        columns = Columns(self._graph, node, layout)
        if not columns.fit(inputs.shapes, wanted.shapes):
            return keep_nearest(node.name, weight, parameters, OTHER_SIZES)
        with blas_threads_for(layout.columns):
            moments = collect_moments(
                layout, columns, inputs, wanted, centered=centered,
                bias=None if centered else bias, real=self._real(node.output, wanted),
                weights=fitting(self._importance.get(node.output), wanted.shapes, layout.outputs),
            )  # fmt: skip
            if moments is None:
                reached = any(0 not in shape for shape in wanted.shapes)
                few = ONE_SAMPLE if reached else UNREACHED
                return keep_nearest(node.name, weight, parameters, few)
            if not all(half.is_finite for half in moments):
                return keep_nearest(node.name, weight, parameters, NOT_FINITE)
            integers, record = round_weight(node.name, layout, weight, parameters, *moments)
        # Not the integers: ONNX Runtime takes none narrower than a byte from numpy.
        restored = dequantize(integers, parameters)
        self._rounded.set_constant(quantized.inputs[place.position], restored)
        return integers, record

    def correct(
        self, node: Node, wanted: Values
    ) -> tuple[NDArray[np.float32], BiasCorrection] | None:
        """Correct the node's bias for what it is to give; None where it can have none."""
        layout = self._layout(node)
        site = bias_site(self._graph, node, layout)
        if isinstance(site, Refusal):
            return None
        if site.output != node.output:
            wanted = self.target(node, site.output)
        got = self._rounded.compute(site.output)
        shift, record = measure_shift(
            node.name, wanted, got, layout.output_axis, self._reader(site),
            self._real(site.output, wanted),
        )  # fmt: skip
        if record.accepted:
            self._rounded.add(site.output, along(shift, len(got.shapes[0]), layout.output_axis))
        return (site.value + shift).astype(np.float32), record

    def _reader(self, site: BiasSite) -> Function | Clipping | None:
        """What becomes of a layer's output, bias included."""
        bounds = fused_bounds(self._graph, self._graph.by_name[site.node])
        if bounds != (-math.inf, math.inf):
            return Clipping(*bounds)
        return function_of(self._graph, site.output)

    def _real(self, tensor: str, values: Values) -> list[Array | None]:
        """Of each group which values are no padding; None for all."""
        groups = zip(values.shapes, self._batches, strict=True)
        return [self._tokens.real(tensor, shape, feeds) for shape, feeds in groups]

    def _layout(self, node: Node) -> WeightLayout:
        return granted(weight_layout(self._graph, node))

    def _bias(self, layout: WeightLayout) -> Array | Refusal:
        """The bias as (outputs,)."""
        bias = self._graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
        vector = None if bias is None else layout.bias_vector(bias)
        return Refusal("its bias is not one constant for each output") if vector is None else vector
