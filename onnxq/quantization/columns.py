"""The columns of numbers that a layer's weight is multiplied with, one for each output position."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import operator_of
from onnxq.model.session import open_session, run
from onnxq.model.weights import WeightLayout

Array = NDArray[Any]

UNFOLDED = 1 << 24
"""Numbers of an unfolded activation to have in memory at once."""


LARGEST_MOMENTS = 24_000_000
"""Numbers in the second moments of one layer, 0.2 GB; a few copies exist at a time."""


def reason_against(graph: Graph, node: Node, layout: WeightLayout) -> str:
    """Why a node's weight is not one matrix on columns that fit memory; "" where it is."""
    if not _is_convolution(graph, node, layout) and len(layout.shape) != 2:
        return "its weight is a stack of matrices"
    columns = layout.inputs // layout.groups * layout.taps
    if layout.groups * columns**2 > LARGEST_MOMENTS:
        return f"its outputs have {columns:,} inputs each, whose moments would fill the memory"
    return ""


def _is_convolution(graph: Graph, node: Node, layout: WeightLayout) -> bool:
    """Whether the weight's taps lie along axes of the input, by the operator table."""
    row = operator_of(node)
    return row is not None and bool(row.mixed_axes(graph, node, len(layout.shape)))


class Columns:
    """Finds the columns of one node.

    A convolution finds them itself: with a weight that is 1 in one place and 0 elsewhere it
    gives the input that this place multiplies, whatever its strides, dilations and pads.
    """

    def __init__(self, graph: Graph, node: Node, layout: WeightLayout) -> None:
        self._layout = layout
        self._session = None
        if _is_convolution(graph, node, layout):
            self._session = open_session(_unfolding(graph, node, layout), optimize=False)

    def of(self, inputs: Array, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The columns at some output positions of each sample.

        Args:
            inputs: the node's activation, one or more samples.
            positions: (samples, chosen).

        Returns:
            (groups, columns, samples, chosen); column j·taps + k of a group is W[o, j, k]'s.
        """
        layout = self._layout
        if self._session is None:
            rows = np.moveaxis(np.atleast_2d(inputs), layout.input_axis, 1)
            found = pick(rows, positions)
        else:
            size = max(1, UNFOLDED * len(inputs) // max(inputs.size * layout.taps, 1))
            parts = []
            for start in range(0, len(inputs), size):
                some = slice(start, start + size)
                (unfolded,) = run(self._session, None, {"x": inputs[some]})
                parts.append(pick(unfolded, positions[some]))
            found = np.concatenate(parts)
        split = found.reshape(len(found), layout.groups, -1, found.shape[2])
        return np.ascontiguousarray(split.transpose(1, 2, 0, 3))


def pick(values: Array, positions: NDArray[np.int64]) -> Array:
    """(samples, channels, …) → (samples, channels, chosen) at ascending positions of each sample.

    May be a view of the values, where all are chosen.
    """
    flat = values.reshape(*values.shape[:2], math.prod(values.shape[2:]))
    if positions.shape[1] == flat.shape[2]:
        return flat
    picked: Array = np.take_along_axis(flat, positions[:, None, :], 2)
    return picked


def _unfolding(graph: Graph, node: Node, layout: WeightLayout) -> ModelProto:
    """A model of the node alone, each input channel in a group of its own, one output a tap."""
    channels, taps = layout.inputs, layout.taps
    single = np.broadcast_to(np.eye(taps, dtype=np.float32), (channels, taps, taps))
    kernel = layout.shape[2:]
    stored = (channels, taps, *kernel) if layout.transposed else (channels * taps, 1, *kernel)
    weight = onnx.numpy_helper.from_array(np.ascontiguousarray(single).reshape(stored), "w")

    source = graph.model.proto
    unfold = onnx.NodeProto()
    unfold.CopyFrom(source.graph.node[node.index])
    attributes = [a for a in unfold.attribute if a.name != "group"]
    for field in ("input", "output", "attribute"):
        unfold.ClearField(field)
    unfold.input.extend(["x", "w"])
    unfold.output.append("y")
    unfold.attribute.extend([*attributes, onnx.helper.make_attribute("group", channels)])
    result = ModelProto(ir_version=source.ir_version)
    result.opset_import.extend(source.opset_import)
    result.graph.name = "columns"
    result.graph.node.append(unfold)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None] * len(layout.shape))
    result.graph.input.append(x)
    result.graph.output.append(onnx.ValueInfoProto(name="y"))
    result.graph.initializer.append(weight)
    return result
