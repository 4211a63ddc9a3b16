"""Writes the nodes that carry gradients backwards: names, constants and shapes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from onnxq.model.graph import Graph
from onnxq.model.model import Dimension

MARK = "gradient"
"""How the names of what is written begin."""

Shape = Sequence[Dimension] | None


class Unwritable(Exception):  # noqa: N818 - it is no error, and never leaves the package
    """A rule cannot say what the gradient is; the message is a clause that tells why."""


class Writer:
    """Nodes and constants in the making, beside a graph that stays as it is."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._shapes: dict[str, str] = {}
        taken = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
        taken |= {*graph.inputs, *graph.outputs, *graph.constants}
        self._prefix = MARK
        while any(name.startswith(self._prefix) for name in taken):
            self._prefix += "_"

    def name(self) -> str:
        """A name that nothing else has."""
        return f"{self._prefix}:{len(self.nodes) + len(self.constants)}"

    def ops(self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Write a node with so many outputs."""
        stem = self.name()
        names = [f"{stem}.{index}" for index in range(count)] if count > 1 else [stem]
        self.nodes.append(onnx.helper.make_node(op_type, inputs, names, name=stem, **attributes))
        return names

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Write a node; the name of its output."""
        return self.ops(op_type, inputs, 1, **attributes)[0]

    # --- constants ------------------------------------------------------------------------------

    def constant(self, values: NDArray[Any]) -> str:
        """Small ones are written once."""
        key = (str(values.dtype), values.shape, values.tobytes() if values.size < SMALL else b"")
        if values.size < SMALL and key in self._known:
            return self._known[key]
        self._known[key] = name = self.name()
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    # --- shapes ---------------------------------------------------------------------------------

    def rank(self, name: str) -> int:
        """Raises `Unwritable` where it is unknown."""
        rank = self.graph.rank(name)
        if rank is None:
            raise Unwritable(f"the number of axes of {name!r} is unknown")
        return rank

    def sizes(self, name: str) -> tuple[int, ...] | None:
        """The shape where all of it is known before the run."""
        shape = self.graph.shape(name)
        if shape is None or not all(isinstance(size, int) for size in shape):
            return None
        return tuple(size for size in shape if isinstance(size, int))

    def shape(self, name: str) -> str:
        """The tensor's shape as a tensor."""
        sizes = self.sizes(name)
        if sizes is not None:
            return self.ints(*sizes)
        if name not in self._shapes:
            self._shapes[name] = self.op("Shape", name)
        return self._shapes[name]

    def zeros(self, name: str) -> str:
        return self.op("Expand", self.number(0.0), self.shape(name))

    def like(self, values: str, name: str) -> str:
        """The values in the shape of a tensor, of as many elements."""
        return self.op("Reshape", values, self.shape(name))

    # --- what many rules need -------------------------------------------------------------------

    def reduced(self, op_type: str, values: str, axes: Sequence[int]) -> str:
        """Reduced along axes, which stay with size 1."""
        if op_type == "ReduceSum" or self.graph.model.opset >= AXES_AS_INPUT:
            return self.op(op_type, values, self.ints(*axes), keepdims=1)
        return self.op(op_type, values, axes=list(axes), keepdims=1)

    def transposed(self, name: str, rank: int) -> str:
        """With the last two axes in each other's place."""
        return self.op("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])

    def summed_to(self, gradient: str, have: Shape, name: str) -> str:
        """The gradient of a tensor that was broadcast, from that of what it was broadcast to.

        Args:
            have: shape of the gradient, as far as it is known.
        """
        want = self.graph.shape(name)
        axes = None if have is None or want is None else _broadcast_axes(have, want)
        if axes is None:
            return self._summed_as_it_runs(gradient, name)
        if axes:
            gradient = self.reduced("ReduceSum", gradient, axes)
        return gradient if len(have or ()) == len(want or ()) else self.like(gradient, name)

    def _summed_as_it_runs(self, gradient: str, name: str) -> str:
        """The same where only the run tells which axes were broadcast."""
        have, want = self.op("Shape", gradient), self.shape(name)
        missing = self.op("Sub", self.op("Shape", have), self.op("Shape", want))
        ones = self.op("Expand", self.ints(1), missing)
        padded = self.op("Concat", ones, want, axis=0)
        differ = self.op("Not", self.op("Equal", have, padded))
        axes = self.op("Squeeze", self.op("NonZero", differ), self.ints(0))
        summed = self.op("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
        return self.like(summed, name)

    def scattered(self, gradient: str, places: str, name: str) -> str:
        """The gradient of a tensor whose elements were taken, from that of what was taken.

        Args:
            places: number of the element that each one was, counted through the whole tensor.
        """
        count = self.op("Reshape", self.op("Size", name), self.ints(1))
        zeros = self.op("Expand", self.number(0.0), count)
        flat = [self.op("Reshape", each, self.ints(-1)) for each in (places, gradient)]
        added = self.op("ScatterElements", zeros, *flat, axis=0, reduction="add")
        return self.like(added, name)

    def places(self, name: str) -> str:
        """The number of each element of a tensor, in its shape."""
        zero, one = (self.constant(np.array(value, np.int64)) for value in (0, 1))
        return self.like(self.op("Range", zero, self.op("Size", name), one), name)


SMALL = 64
"""Elements of a constant that is worth looking for."""

AXES_AS_INPUT = 18
"""Opset from which all reductions take their axes as an input."""


def _broadcast_axes(have: Sequence[Dimension], want: Sequence[Dimension]) -> list[int] | None:
    """The axes along which a tensor was repeated; None where only the run tells."""
    missing = len(have) - len(want)
    axes = list(range(missing))
    for axis, (size, wanted) in enumerate(zip(have[missing:], want, strict=True), missing):
        if wanted == 1:
            axes += [axis] if size != 1 else []
        elif wanted is None or wanted != size:
            return None
    return axes
