"""Why a layer's own error is what it is, as far as its weights, inputs and quantizers tell."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import is_quantize, weight_layout
from onnxq.model.qdq import Quantization, quantization_of, stored_weight
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal
from onnxq.validation.pairing import Layer, Pairing
from onnxq.validation.powers import power

Array = NDArray[Any]

FEW = 25.0
"""% of the levels at or below which half of the channels use few of them."""


@dataclass(frozen=True)
class Causes:
    """Where a layer's own error comes from; NaN for what does not apply.

    Attributes:
        weights: share of the own error that rounding the weights makes by itself, %.
        clipped: values of the input beyond the quantizer's range, %. Of several inputs the one
            with the largest error counts.
        clipping: share of these values in the input's error, %.
        input_levels: levels that the median channel of the input uses, % of those it could.
        weight_levels: the same of a weight with one scale for all channels.
        note: the cause in words.
    """

    weights: float
    clipped: float
    clipping: float
    input_levels: float
    weight_levels: float
    note: str


UNKNOWN = Causes(math.nan, math.nan, math.nan, math.nan, math.nan, "")


class CauseFinder:
    """Adds up over batches what tells the causes of some layers.

    Args:
        layers: their outputs.
    """

    def __init__(self, pairing: Pairing, layers: Collection[str]) -> None:
        graph, stripped = Graph(pairing.quantized), Graph(pairing.stripped)
        paired = {*pairing.tensors, *graph.inputs}
        self._pairing = pairing
        self._inputs: dict[str, list[_Input]] = {}
        self._weights: dict[str, float] = {}
        chosen = [layer for layer in pairing.layers if layer.output in layers]
        for layer in chosen:
            main = stripped.by_name.get(layer.name)
            layout = weight_layout(stripped, main) if main else ""
            axis = layout.input_axis if isinstance(layout, WeightLayout) else 1
            nodes = [graph.by_name[name] for name in layer.nodes]
            found = [_input(graph, node, axis) for node in nodes if node.input(0) in paired]
            self._inputs[layer.output] = [each for each in found if each is not None]
            if isinstance(layout, WeightLayout):
                self._weights[layer.output] = _weight_levels(graph, stripped, layer, layout)
        self._powers = {layer.output: np.zeros(2) for layer in chosen}
        self._seen: dict[_Input, Array] = {}
        self._peaks: dict[_Input, Array] = {}

    def look(self, exact: Mapping[str, Array]) -> dict[_Input, _Seen]:
        """What one batch shows of the quantized inputs; several threads may look.

        Args:
            exact: paired tensors and inputs of the float model.
        """
        inputs = {each for inputs in self._inputs.values() for each in inputs}
        return {each: self._look(each, exact[each.tensor]) for each in inputs}

    def _look(self, each: _Input, exact: Array) -> _Seen:
        values = self._pairing.to_quantized(each.tensor, exact)
        low, high = each.range
        inside = np.clip(values, low, high)
        # A model from elsewhere may have a scale of 0.
        error = values - (each.scale * np.rint(inside / each.scale) if each.scale else 0.0)
        # Half a step beyond the range costs no more than rounding within it.
        clipped = np.abs(values - inside) > 0.501 * each.scale
        counts = [values.size, np.count_nonzero(clipped)]
        powers = [power(error[clipped]), power(error)]
        others = tuple(a for a in range(values.ndim) if a != each.axis % values.ndim)
        peaks = np.abs(values).max(axis=others, initial=0.0)
        return _Seen(np.array([*counts, *powers]), peaks)

    def add(
        self,
        own: Mapping[str, float],
        rounded: Mapping[str, float],
        inputs: Mapping[_Input, _Seen],
    ) -> None:
        """Take one batch.

        Args:
            own: layer output → power of its error, computed from exact inputs.
            rounded: the same with nothing but the weights rounded.
            inputs: see `look`.
        """
        for name in self._powers:
            self._powers[name] += [own[name], rounded[name]]
        for each, seen in inputs.items():
            self._seen[each] = self._seen.get(each, 0.0) + seen.sums
            before = self._peaks.get(each, seen.peaks)
            # An axis of a size that differs between samples does not count channels.
            self._peaks[each] = (
                np.maximum(before, seen.peaks) if before.shape == seen.peaks.shape else np.empty(0)
            )

    def finish(self) -> dict[str, Causes]:
        """Layer output → causes."""
        return {name: self._causes(name) for name in self._powers}

    def _causes(self, name: str) -> Causes:
        own, rounded = self._powers[name]
        weights = math.nan
        if name in self._weights:
            weights = min(100.0, 100 * rounded / own) if own > 0 else 0.0
        worst = max(self._inputs[name], key=lambda each: float(self._seen[each][3]), default=None)
        clipped = clipping = levels = math.nan
        if worst is not None:
            values, beyond, clip, total = self._seen[worst]
            clipped = 100 * beyond / max(values, 1)
            clipping = 100 * clip / total if total > 0 else 0.0
            if (widest := max(map(abs, worst.range))) > 0 and self._peaks[worst].size:
                levels = min(100 * float(np.median(self._peaks[worst])) / widest, 100.0)
        weight_levels = self._weights.get(name, math.nan)
        note = _note(weights, clipped, clipping, levels, weight_levels)
        return Causes(weights, float(clipped), float(clipping), levels, weight_levels, note)


@dataclass(frozen=True)
class _Input:
    """A tensor quantized with one scale, as one layer reads it; `axis` counts its channels."""

    tensor: str
    axis: int
    scale: float
    range: tuple[float, float]


@dataclass(frozen=True)
class _Seen:
    """Of a quantized input.

    Attributes:
        sums: (4,), values, those clipped, the power of their errors, that of all errors.
        peaks: largest magnitude of each channel.
    """

    sums: Array
    peaks: Array


def _input(graph: Graph, node: Node, axis: int) -> _Input | None:
    found = quantization_of(graph, node) if is_quantize(node) else None
    if not isinstance(found, Quantization) or not found.parameters.per_tensor:
        return None
    parameters = found.parameters
    return _Input(found.real, axis, float(parameters.scale), parameters.range)


def _weight_levels(graph: Graph, stripped: Graph, layer: Layer, layout: WeightLayout) -> float:
    """Levels that the median channel uses, %; NaN where each channel has a scale of its own."""
    name = graph.by_name[layer.name].input(layout.weight_position)
    found, weight = stored_weight(graph, name), stripped.constant(layout.weight)
    if isinstance(found, Refusal) or weight is None or not found.parameters.per_tensor:
        return math.nan
    largest = np.abs(layout.to_output_major(weight)).max(axis=(1, 2))
    return min(100.0, 100 * float(np.median(largest)) / found.parameters.range[1])


def _note(
    weights: float, clipped: float, clipping: float, levels: float, weight_levels: float
) -> str:
    if weights > 50:
        if weight_levels <= FEW:
            return (
                f"its weight: one scale for all, and half of the channels use at most "
                f"{weight_levels:.0f} % of the levels"
            )
        return "its weight"
    if clipping > 50:
        return f"its input: {clipped:.2g} % of the values are clipped"
    if levels <= FEW:
        return f"its input: half of the channels use at most {levels:.0f} % of the levels"
    return "its input"
