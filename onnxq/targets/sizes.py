"""Sizes of layers from which a target computes them on quantized values."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import is_product, is_weighted
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal


@dataclass(frozen=True)
class Sizes:
    """What a layer has to have for kernels on quantized values to be there, or to pay.

    Attributes:
        vectors: whether products of which a side is 1, matrix times vector, are quantized.
        least_side: of a product of matrices, least length and number of the sums.
        least_channels: of a convolution, inputs of a group and outputs from which any one is
            quantized. Below, those with as many on one side, and those that read the model's input,
            where the others are a multiple; and grouped ones where the outputs are.
        channel_multiple: what the numbers of channels of smaller ones are a multiple of.
        least_grouped_kernel: least sides of the kernels of smaller grouped ones.
        depthwise: whether convolutions of each channel by itself are quantized.
    """

    vectors: bool = True
    least_side: int = 1
    least_channels: int = 1
    channel_multiple: int = 1
    least_grouped_kernel: int = 1
    depthwise: bool = True

    def refusal(self, graph: Graph, node: Node, layout: WeightLayout) -> Refusal | None:
        """Why a layer with a weight stays in float for its sizes; None where it does not."""
        if layout.is_matrix:
            rows = graph.shape(node.output) or ()
            vector = len(rows) == 2 and 1 in {*rows, layout.outputs}
            return self._of_product(layout.inputs, layout.outputs, vector=vector)
        if not self.depthwise and layout.groups == layout.inputs > 1:
            return Refusal("its target runs depthwise convolutions in float")
        return None if layout.transposed else self._of_convolution(graph, node, layout)

    def refusal_of_product(self, graph: Graph, node: Node) -> Refusal | None:
        """The same of a product of two activations, as far as its sizes are known."""
        left, right = (graph.shape(name) or () for name in (node.input(0), node.input(1)))
        if not is_product(graph, node) or len(left) < 2 or len(right) < 2:
            return None
        length, outputs = (size if isinstance(size, int) else None for size in right[-2:])
        return self._of_product(length, outputs, vector=1 in {left[-2], outputs})

    def _of_product(
        self, length: int | None, outputs: int | None, *, vector: bool
    ) -> Refusal | None:
        if vector and not self.vectors:
            return Refusal("a product of a matrix and a vector")
        smallest = min(size or self.least_side for size in (length, outputs))
        if smallest < self.least_side:
            return Refusal(f"a product of {length}×{outputs}, too small to gain from integers")
        return None

    def _of_convolution(self, graph: Graph, node: Node, layout: WeightLayout) -> Refusal | None:
        channels, kernel = (layout.outputs, layout.inputs // layout.groups), layout.shape[2:]
        if min(channels) >= self.least_channels:
            return None
        if layout.groups > 1:
            fits = layout.outputs % self.channel_multiple == 0
            fits &= min(kernel, default=1) >= self.least_grouped_kernel
        else:
            first = _is_first(graph, node.input(layout.data))
            fits = any(count % self.channel_multiple == 0 for count in channels)
            fits &= first or max(channels) >= self.least_channels
            fits &= len(set(kernel)) <= 1
        if fits:
            return None
        sides = "×".join(map(str, (*channels, *kernel)))
        return Refusal(f"a convolution of {sides}, too small to gain from integers")


def _is_first(graph: Graph, name: str) -> bool:
    """Whether no layer with a weight stands between the model's inputs and a tensor: they may be
    cast, normalized or given another shape before the first one.
    """
    pending, seen = [name], {name}
    while pending:
        maker = graph.producers.get(pending.pop())
        if maker is not None and is_weighted(maker):
            return False
        read = set(() if maker is None else maker.inputs) - seen
        seen |= read
        pending += read
    return True
