"""Products of integers that a model writes itself, as MatMulInteger: exact on every machine.

ONNX Runtime's own kernel adds pairs of products in 16 bits where a CPU has no VNNI, which may
saturate. Here each sum is made of float32 products of whole numbers, cut so that it is exact.
"""

from __future__ import annotations

import numpy as np

from onnxq.emulation.bounds import reach
from onnxq.emulation.layers import IntegerProduct
from onnxq.emulation.saturation import pair_sums
from onnxq.emulation.sums import parts_of
from onnxq.formats.accumulators import accumulator_of
from onnxq.formats.table import Floating, format_of
from onnxq.model.graph import Graph, Node
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal


def plan_integer_product(
    graph: Graph, node: Node, *, saturate: bool = False
) -> IntegerProduct | Refusal:
    """Plan a MatMulInteger of a constant weight; `saturate` as in `plan_emulation`."""
    weight, zero = graph.constant(node.input(1)), graph.constant(node.input(3))
    if weight is None or weight.ndim != 2 or (node.input(3) and zero is None):
        return Refusal("its second factor is no constant matrix")
    if node.input(2) and graph.rank(node.input(2)) != 0:
        return Refusal("the zero points of its rows differ")
    kind, stored = (
        format_of(graph.elem_type(node.input(0))),
        format_of(graph.elem_type(node.input(1))),
    )
    if kind is None or stored is None or isinstance(kind.grid, Floating):
        return Refusal("the type of its first factor is unknown")
    integers = weight.astype("int32") - (0 if zero is None else zero.astype("int32"))
    layout = WeightLayout(
        node.input(1), "", 0, 1, tuple(weight.shape), 1, input_axis=-1, output_axis=-1,
        channel_axis=1, output_last=True, takes_bias=False,
    )  # fmt: skip
    width = kind.grid.highest - kind.grid.lowest
    interval = (-width, width) if node.input(2) else (kind.grid.lowest, kind.grid.highest)
    by_output = layout.to_output_major(integers)
    pairs = None
    if saturate and not np.any(zero):
        pairs = pair_sums(layout, by_output, kind, stored, -int(kind.grid.lowest))
    return IntegerProduct(
        node.input(0), node.input(2), tuple(parts_of(layout, by_output, interval)),
        reach(by_output.reshape(layout.outputs, -1), interval), accumulator_of(kind, stored),
        pairs=pairs,
    )  # fmt: skip
