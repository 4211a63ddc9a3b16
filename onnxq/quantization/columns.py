"""The columns of numbers that a layer's weight is multiplied with, one for each output position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.model.graph import Graph, Node
from onnxq.model.operators import operator_of
from onnxq.model.session import open_session, run
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal

Array = NDArray[Any]
Shape = tuple[int, ...]

DIGIT = 1 << 12
"""Positions are numbered with two digits of this base."""

LARGEST_MOMENTS = 24_000_000
"""Numbers in the second moments of one layer, 0.2 GB; a few copies exist at a time."""


def refusal_of(graph: Graph, node: Node, layout: WeightLayout) -> Refusal | None:
    """Why a node's weight is not one matrix on columns that fit memory; None where it is."""
    if not _is_convolution(graph, node, layout) and len(layout.shape) != 2:
        return Refusal("its weight is a stack of matrices")
    if layout.input_axis == 0:
        return Refusal("it multiplies its input's columns: samples are not in front")
    if layout.groups * layout.columns**2 > LARGEST_MOMENTS:
        inputs = f"{layout.columns:,} inputs each"
        return Refusal(f"its outputs have {inputs}, whose moments would fill the memory")
    return None


def _is_convolution(graph: Graph, node: Node, layout: WeightLayout) -> bool:
    """Whether the weight's taps lie along axes of the input, by the operator table."""
    row = operator_of(node)
    return row is not None and bool(row.mixed_axes(graph, node, len(layout.shape)))


class Columns:
    """Finds the columns of one node."""

    def __init__(self, graph: Graph, node: Node, layout: WeightLayout) -> None:
        self._layout = layout
        self._locating = (
            _locating(graph, node, layout).SerializeToString(deterministic=True)
            if _is_convolution(graph, node, layout)
            else b""
        )

    def fit(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> bool:
        """Whether the node gives outputs of these shapes for inputs of those, group by group.

        Where values decide on sizes, a model with other values may have other ones.
        """
        pairs = zip(inputs, outputs, strict=True)
        return all(
            self._places(shape) == _places(wanted, self._layout.outputs) for shape, wanted in pairs
        )

    def _places(self, shape: Shape) -> tuple[int, int]:
        """Samples and output positions of each, for an input of this shape."""
        if self._locating and 0 not in shape:
            return shape[0], _read_by_taps(self._locating, shape[2:]).shape[1]
        return _places(shape, self._layout.inputs)

    def of(self, inputs: Array, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The columns at some output positions of each sample.

        Args:
            inputs: the node's activation, one or more samples.
            positions: (samples, chosen).

        Returns:
            (groups, columns, samples, chosen); column j·taps + k of a group is W[o, j, k]'s.
        """
        layout = self._layout
        if not self._locating:
            rows = np.moveaxis(np.atleast_2d(inputs), layout.input_axis, 1)
            return pick(rows, positions[:, None], layout.groups)
        sources = _read_by_taps(self._locating, inputs.shape[2:])
        return pick(inputs, sources[:, positions].swapaxes(0, 1), layout.groups)


def _places(shape: Shape, channels: int) -> tuple[int, int]:
    """Samples and positions of each, of an array with so many channels; a vector is one sample."""
    samples = shape[0] if len(shape) > 1 else 1
    return samples, math.prod(shape) // max(samples * channels, 1)


@lru_cache(maxsize=8)
def _read_by_taps(locating: bytes, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """(taps, output positions): the input position that a tap multiplies, −1 for padding.

    A convolution tells that itself, whatever its strides, dilations and pads: fed with the numbers
    of the positions, a weight that is 1 at one tap and 0 elsewhere gives those. Two digits of each,
    because float32 holds no number beyond 2²⁴. Many layers of a network share the answer.

    Args:
        locating: the model of `_locating`.
        shape: of the input, without samples and channels.
    """
    numbers = 1 + np.arange(math.prod(shape)).reshape(1, 1, *shape)
    digits = np.concatenate(np.divmod(numbers, DIGIT)).astype(np.float32)
    # Threads that wait for more to do would keep a core from what follows.
    session = open_session(ModelProto.FromString(locating), optimize=False, threads=1)
    (found,) = run(session, None, {"x": digits})
    high, low = found.reshape(2, found.shape[1], -1).astype(np.int64)
    sources: NDArray[np.int64] = high * DIGIT + low - 1
    return sources


def pick(values: Array, positions: NDArray[np.int64], groups: int) -> NDArray[np.float32]:
    """Values at some positions of each sample, 0 where a position is negative.

    Args:
        values: (samples, channels, …).
        positions: (samples, taps, chosen), of the axes behind the channels, flattened.

    Returns:
        (groups, channels per group · taps, samples, chosen).
    """
    samples, channels = values.shape[:2]
    flat = values.reshape(samples, channels, math.prod(values.shape[2:]))
    _, taps, chosen = positions.shape
    found = np.empty((channels, taps, samples, chosen), np.float32)
    for number, (sample, where) in enumerate(zip(flat, positions, strict=True)):
        taken = np.take(sample, where, axis=1, mode="clip")
        outside = where < 0
        if outside.any():
            taken[:, outside] = 0
        found[:, :, number] = taken
    return found.reshape(groups, -1, samples, chosen)


def _locating(graph: Graph, node: Node, layout: WeightLayout) -> ModelProto:
    """A model of the node alone, of one input channel, with one output channel a tap."""
    kernel, taps = layout.shape[2:], layout.taps
    stored = (1, taps, *kernel) if layout.transposed else (taps, 1, *kernel)
    weight = onnx.numpy_helper.from_array(np.eye(taps, dtype=np.float32).reshape(stored), "w")

    source = graph.model.message
    locate = onnx.NodeProto()
    locate.CopyFrom(source.graph.node[node.index])
    attributes = [a for a in locate.attribute if a.name != "group"]
    for field in ("name", "doc_string", "metadata_props", "input", "output", "attribute"):
        locate.ClearField(field)
    locate.input.extend(["x", "w"])
    locate.output.append("y")
    locate.attribute.extend(attributes)
    result = ModelProto(ir_version=source.ir_version)
    result.opset_import.extend(source.opset_import)
    result.graph.name = "columns"
    result.graph.node.append(locate)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None] * len(layout.shape))
    result.graph.input.append(x)
    result.graph.output.append(onnx.ValueInfoProto(name="y"))
    result.graph.initializer.append(weight)
    return result
