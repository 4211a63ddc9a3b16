"""Gradients of softmax, normalizations, reductions and pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxq.gradients.products import Needed, Window, spread, window_of
from onnxq.gradients.writer import Unwritable, Writer
from onnxq.model.graph import Node
from onnxq.model.operators import reduced_axes
from onnxq.refusal import Refusal

Found = Mapping[int, str]
Rule = Callable[[Writer, Node, Sequence[str], Needed], Found]


# --- softmax and normalizations -----------------------------------------------------------------


def softmax(w: Writer, node: Node, gradient: str) -> str:
    axis = int(node.attributes.get("axis", -1))
    weighted = w.op("Mul", gradient, node.output)
    total = w.reduced("ReduceSum", weighted, [axis])
    return w.op("Sub", weighted, w.op("Mul", node.output, total))


def log_softmax(w: Writer, node: Node, gradient: str) -> str:
    total = w.reduced("ReduceSum", gradient, [int(node.attributes.get("axis", -1))])
    return w.op("Sub", gradient, w.op("Mul", w.op("Exp", node.output), total))


def _only_data(needed: Needed) -> None:
    if needed != {0}:
        raise Unwritable("its scale or its bias is computed at run time")


def _normalized(
    w: Writer, x: str, scaled: str, axes: Sequence[int], epsilon: float, *, center: bool
) -> str:
    """Gradient of x behind (x − mean) / √(variance + ε), or x / √(mean square + ε).

    Args:
        scaled: the gradient of what is normalized, in the shape of x.
    """
    if center:
        x = w.op("Sub", x, w.reduced("ReduceMean", x, axes))
    power = w.reduced("ReduceMean", w.op("Mul", x, x), axes)
    size = w.op("Sqrt", w.op("Add", power, w.number(epsilon)))
    unit = w.op("Div", x, size)
    along = w.reduced("ReduceMean", w.op("Mul", scaled, unit), axes)
    rest = w.op("Sub", scaled, w.op("Mul", unit, along))
    if center:
        rest = w.op("Sub", rest, w.reduced("ReduceMean", scaled, axes))
    return w.op("Div", rest, size)


def _epsilon(node: Node) -> float:
    return float(node.attributes.get("epsilon", 1e-5))


def trailing_norm(*, center: bool) -> Rule:
    """Of a normalization over the last axes, with a scale along them."""

    def rule(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
        _only_data(needed)
        rank = w.rank(node.input(0))
        axes = range(int(node.attributes.get("axis", -1)) % rank, rank)
        scaled = w.op("Mul", gradients[0], node.input(1))
        return {0: _normalized(w, node.input(0), scaled, axes, _epsilon(node), center=center)}

    return rule


def _by_channel(w: Writer, name: str, rank: int) -> str:
    """A value of each channel in a shape that broadcasts along axis 1."""
    return w.op("Reshape", name, w.ints(1, -1, *[1] * (rank - 2)))


def instance_norm(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    _only_data(needed)
    x = node.input(0)
    rank = w.rank(x)
    scaled = w.op("Mul", gradients[0], _by_channel(w, node.input(1), rank))
    return {0: _normalized(w, x, scaled, range(2, rank), _epsilon(node), center=True)}


def group_norm(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    _only_data(needed)
    if w.graph.model.opset < SCALES_BY_CHANNEL:
        raise Unwritable(f"it has a scale for each group before opset {SCALES_BY_CHANNEL}")
    x = node.input(0)
    groups = w.ints(0, int(node.attributes["num_groups"]), -1)
    scaled = w.op("Mul", gradients[0], _by_channel(w, node.input(1), w.rank(x)))
    apart, weighed = (w.op("Reshape", each, groups) for each in (x, scaled))
    return {0: w.like(_normalized(w, apart, weighed, [2], _epsilon(node), center=True), x)}


SCALES_BY_CHANNEL = 21
"""Opset from which a GroupNormalization has a scale for each channel."""


def batch_norm(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    _only_data(needed)
    spread_of = w.op("Sqrt", w.op("Add", node.input(4), w.number(_epsilon(node))))
    gain = _by_channel(w, w.op("Div", node.input(1), spread_of), w.rank(node.input(0)))
    return {0: w.op("Mul", gradients[0], gain)}


# --- reductions ---------------------------------------------------------------------------------


Back = Callable[[Writer, str, str, str], str]
"""(writer, x, y, gradient of y), y and its gradient with all axes of x → gradient of x."""


def reduction(back: Back) -> Rule:
    """The rule of an operator that reduces along axes, or along all but the first two."""

    def rule(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
        x = node.input(0)
        rank = w.rank(x)
        axes = reduced_axes(w.graph, node, rank)
        if isinstance(axes, Refusal):
            raise Unwritable(axes.reason)
        y, gradient = node.output, gradients[0]
        if axes and not node.attributes.get("keepdims", 1):
            y, gradient = (w.op("Unsqueeze", each, w.ints(*axes)) for each in (y, gradient))
        return {0: back(w, x, y, gradient)}

    return rule


def global_pool(back: Back) -> Rule:
    def rule(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
        return {0: back(w, node.input(0), node.output, gradients[0])}

    return rule


def of_sum(w: Writer, x: str, _y: str, gradient: str) -> str:
    return w.op("Expand", gradient, w.shape(x))


def of_mean(w: Writer, x: str, y: str, gradient: str) -> str:
    before, after = w.sizes(x), w.sizes(y)
    if before is not None and after is not None:
        share = w.number(math.prod(after) / max(math.prod(before), 1))
    else:
        counts = [w.op("Cast", w.op("Size", name), to=1) for name in (y, x)]
        share = w.op("Div", *counts)
    return of_sum(w, x, y, w.op("Mul", gradient, share))


def of_extreme(w: Writer, x: str, y: str, gradient: str) -> str:
    return w.op("Where", w.op("Equal", x, y), gradient, w.number(0.0))


def of_absolutes(w: Writer, x: str, _y: str, gradient: str) -> str:
    return w.op("Mul", gradient, w.op("Sign", x))


def of_length(w: Writer, x: str, y: str, gradient: str) -> str:
    return w.op("Mul", w.op("Div", gradient, y), x)


def of_squares(w: Writer, x: str, _y: str, gradient: str) -> str:
    return w.op("Mul", gradient, w.op("Mul", x, w.number(2.0)))


# --- pools --------------------------------------------------------------------------------------


def max_pool(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    if node.attributes.get("storage_order", 0):
        raise Unwritable("it counts columns first")
    _, places = w.ops("MaxPool", [node.input(0)], 2, **node.attributes)
    return {0: w.scattered(gradients[0], places, node.input(0))}


def average_pool(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    """Each element that was averaged gets its part; of every channel by itself."""
    x, kernel = node.input(0), tuple(node.attributes["kernel_shape"])
    window = window_of(w, node, kernel)
    if node.attributes.get("ceil_mode", 0) and not _fills(w, x, window):
        raise Unwritable("its last windows may reach beyond its input")
    ones = w.constant(np.ones((1, 1, *kernel), np.float32))
    counts = w.number(math.prod(kernel))
    if any(window.before + window.after) and not node.attributes.get("count_include_pad", 0):
        counts = _counts(w, x, ones, window)
    shared = w.op("Div", gradients[0], counts)
    return {0: _each_channel(w, node, shared, ones, window)}


def _fills(w: Writer, x: str, window: Window) -> bool:
    """Whether the windows are known to end with the input, so that none is added for a rest."""
    sizes = (w.graph.shape(x) or ())[2:]
    ends = zip(sizes, window.before, window.after, window.extent, window.strides, strict=False)
    rests = [
        isinstance(size, int) and (size + before + after - extent) % stride == 0
        for size, before, after, extent, stride in ends
    ]
    return len(rests) == len(window.kernel) and all(rests)


def _counts(w: Writer, x: str, ones: str, window: Window) -> str:
    """How many elements of the input each window holds (1, 1, …)."""
    axes = tuple(range(2, 2 + len(window.kernel)))
    inner = w.op("Gather", w.shape(x), w.ints(*axes), axis=0)
    filled = w.op("Expand", w.number(1.0), w.op("Concat", w.ints(1, 1), inner, axis=0))
    return w.op(
        "Conv", filled, ones, strides=list(window.strides), dilations=list(window.dilations),
        kernel_shape=list(window.kernel), pads=[*window.before, *window.after],
    )  # fmt: skip


def _each_channel(w: Writer, node: Node, shared: str, ones: str, window: Window) -> str:
    """The transposed convolution with ones, of each channel as a sample of its own."""
    axes = tuple(range(2, 2 + len(window.kernel)))
    inner = w.op("Gather", w.op("Shape", shared), w.ints(*axes), axis=0)
    apart = w.op("Reshape", shared, w.op("Concat", w.ints(-1, 1), inner, axis=0))
    return w.like(spread(w, apart, ones, window, 1, node), node.input(0))
