"""Pieces of the integer machine's graph: single nodes, counters, sums whose pairs saturate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from onnxq.emulation.layers import PairSums
from onnxq.model.rewrite import constant, node, variable

_INT64 = onnx.TensorProto.INT64


class Pieces:
    """Adds nodes to a graph that is being edited."""

    gs_graph: Any

    def add(
        self, op_type: str, label: str, inputs: Iterable[Any], dtype: Any = None, **attributes: Any
    ) -> Any:
        """A node and its result."""
        result = variable(label, dtype)
        self.gs_graph.nodes.append(node(op_type, label, list(inputs), [result], **attributes))
        return result

    def cast(self, label: str, tensor: Any, to: int) -> Any:
        return self.add("Cast", label, [tensor], to=to)

    def counted(self, label: str, ones: Any) -> Any:
        """The sum of int64 numbers, as an output of the graph."""
        total = self.add("ReduceSum", label, [ones], np.int64, keepdims=0)
        total.shape = ()
        self.gs_graph.outputs.append(total)
        return total


def saturated(
    pieces: Pieces,
    layer: str,
    operator: tuple[str, Mapping[str, Any]],
    pairs: PairSums,
    data: Any,
    total: Any,
    kind: int,
) -> tuple[Any, tuple[Any, Any]]:
    """The sums of products without what their pairs lose where these saturate.

    Args:
        operator: what sums, and its attributes.
        data: the integers that it reads, float32.
        total: the sums, of the type `kind`.

    Returns:
        The sums; how many pairs saturated, and how many there were.
    """
    name = f"{layer}/pairs"
    op_type, attributes = operator
    size = pieces.add("Size", f"{name}_sums", [total], np.int64)
    each = constant(f"{name}_each", np.array([pairs.count]))
    every = pieces.counted(f"{name}_all", pieces.add("Mul", f"{name}_every", [size, each]))
    if not pairs.some:
        nothing = constant(f"{name}_nothing", np.zeros(1, np.int64))
        return total, (pieces.counted(f"{name}_saturated", nothing), every)
    products = pieces.add(
        op_type, f"{name}_products", [data, constant(f"{name}_weight", pairs.weight)], **attributes
    )
    exact = pieces.add("Add", f"{name}_exact", [products, constant(f"{name}_zero", pairs.offset)])
    ends = (pairs.limits.lowest, pairs.limits.highest)
    low, high = (constant(f"{name}_end{i}", np.float32(end)) for i, end in enumerate(ends))
    kept = pieces.add("Clip", f"{name}_kept", [exact, low, high])
    lost = pieces.add("Sub", f"{name}_lost", [exact, kept])
    beyond = pieces.cast(f"{name}_beyond", lost, onnx.TensorProto.BOOL)
    beyond = pieces.cast(f"{name}_beyond_int", beyond, _INT64)
    members, label = constant(f"{name}_members", pairs.members), f"{name}_of_sums"
    if pairs.members.ndim > 2:
        whole = pieces.add("Conv", label, [lost, members], group=pairs.groups)
    else:
        whole = pieces.add("MatMul", label, [lost, members])
    left = pieces.add("Sub", f"{name}_left", [total, pieces.cast(f"{name}_whole", whole, kind)])
    return left, (pieces.counted(f"{name}_saturated", beyond), every)
