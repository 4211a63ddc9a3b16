"""Gradients of the inputs of convolutions and products of matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxq.gradients.writer import Unwritable, Writer
from onnxq.model.graph import Node

Needed = frozenset[int]
Found = Mapping[int, str]


@dataclass(frozen=True)
class Window:
    """What a convolution or a pool sees at a time, along each of its axes.

    Attributes:
        before, after: padding.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """From the first element that is seen to the last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def window_of(w: Writer, node: Node, kernel: Sequence[int]) -> Window:
    """Raises `Unwritable` where its padding is known at run time only."""
    axes, attributes = len(kernel), node.attributes
    strides = tuple(attributes.get("strides") or (1,) * axes)
    dilations = tuple(attributes.get("dilations") or (1,) * axes)
    mode = attributes.get("auto_pad", b"NOTSET")
    pads = tuple(attributes.get("pads") or (0,) * (2 * axes))
    if b"SAME" in mode:
        pads = _same(w, node, Window(tuple(kernel), strides, dilations, (), ()), mode)
    elif mode == b"VALID":
        pads = (0,) * (2 * axes)
    return Window(tuple(kernel), strides, dilations, pads[:axes], pads[axes:])


def _same(w: Writer, node: Node, window: Window, mode: bytes) -> tuple[int, ...]:
    """The padding with which an output has ⌈size / stride⌉ elements."""
    sizes = (w.graph.shape(node.input(0)) or ())[2:]
    if len(sizes) != len(window.kernel):
        raise Unwritable("its padding is known at run time only")
    before, after = [], []
    for size, stride, extent in zip(sizes, window.strides, window.extent, strict=True):
        if not isinstance(size, int):
            raise Unwritable("its padding is known at run time only")
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        smaller = total // 2
        before.append(smaller if mode == b"SAME_UPPER" else total - smaller)
        after.append(total - before[-1])
    return (*before, *after)


def convolution(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    """Of the input: each element gets what its products got."""
    if needed != {0}:
        raise Unwritable("its weight is computed at run time")
    shape = w.sizes(node.input(1))
    if shape is None:
        raise Unwritable("the shape of its weight is unknown")
    window, group = window_of(w, node, shape[2:]), int(node.attributes.get("group", 1))
    turned = _turned(w, node, window, group)
    if turned is not None:
        return {0: turned_product(w, gradients[0], turned, window, group)}
    return {0: spread(w, gradients[0], node.input(1), window, group, node)}


def _turned(w: Writer, node: Node, window: Window, group: int) -> str | None:
    """A constant weight with inputs and outputs exchanged and its taps in reverse.

    With it the gradient is a convolution too, for which runtimes have faster kernels than for a
    transposed one. None where one with strides would be needed.
    """
    values = w.graph.constant(node.input(1))
    enough = all(
        max(pads) < extent
        for *pads, extent in zip(window.before, window.after, window.extent, strict=True)
    )
    if values is None or max(window.strides) > 1 or not enough:
        return None
    outputs, inputs, *taps = values.shape
    apart = values.reshape(group, outputs // group, inputs, *taps).swapaxes(1, 2)
    joined = apart.reshape(group * inputs, outputs // group, *taps)
    return w.constant(np.ascontiguousarray(np.flip(joined, tuple(range(2, joined.ndim)))))


def turned_product(w: Writer, gradient: str, weight: str, window: Window, group: int) -> str:
    before, after = (
        [extent - 1 - pad for extent, pad in zip(window.extent, pads, strict=True)]
        for pads in (window.before, window.after)
    )
    return w.op(
        "Conv", gradient, weight, group=group, dilations=list(window.dilations),
        kernel_shape=list(window.kernel), pads=before + after,
    )  # fmt: skip


def spread(w: Writer, gradient: str, weight: str, window: Window, group: int, node: Node) -> str:
    """A transposed convolution of the gradient, in the shape of the node's input."""
    sizes, made = w.graph.shape(node.input(0)), w.graph.shape(node.output)
    settings: dict[str, Any] = {
        "group": group,
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "kernel_shape": list(window.kernel),
    }
    ends = _ends(sizes and sizes[2:], made and made[2:], window)
    if ends is not None:
        rest, cut = [max(end, 0) for end in ends], [max(-end, 0) for end in ends]
        return w.op(
            "ConvTranspose", gradient, weight, **settings,
            output_padding=rest, pads=[*window.before, *cut],
        )  # fmt: skip
    # What does not fill a stride is cut off as it runs.
    rest = [stride - 1 for stride in window.strides]
    whole = w.op("ConvTranspose", gradient, weight, **settings, output_padding=rest)
    axes = tuple(range(2, 2 + len(window.kernel)))
    starts = w.ints(*window.before)
    inner = w.op("Gather", w.shape(node.input(0)), w.ints(*axes), axis=0)
    return w.op("Slice", whole, starts, w.op("Add", inner, starts), w.ints(*axes))


def _ends(
    sizes: Sequence[object] | None, made: Sequence[object] | None, window: Window
) -> list[int] | None:
    """Elements that are missing (cut off, if negative) at the ends; None where unknown."""
    if sizes is None or made is None:
        return None
    found = []
    for size, count, stride, extent, before in zip(
        sizes, made, window.strides, window.extent, window.before, strict=True
    ):
        if not isinstance(size, int) or not isinstance(count, int):
            return None
        found.append(size + before - (count - 1) * stride - extent)
    return found


def transposed_convolution(
    w: Writer, node: Node, gradients: Sequence[str], needed: Needed
) -> Found:
    if needed != {0}:
        raise Unwritable("its weight is computed at run time")
    shape = w.sizes(node.input(1))
    if shape is None:
        raise Unwritable("the shape of its weight is unknown")
    if node.attributes.get("output_shape") or b"SAME" in node.attributes.get("auto_pad", b""):
        raise Unwritable("its padding follows from the shape of its output")
    window = window_of(w, node, shape[2:])
    return {
        0: w.op(
            "Conv", gradients[0], node.input(1), group=int(node.attributes.get("group", 1)),
            strides=list(window.strides), dilations=list(window.dilations),
            kernel_shape=list(window.kernel), pads=[*window.before, *window.after],
        )
    }  # fmt: skip


def gemm(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    gradient, (a, b) = gradients[0], node.inputs[:2]
    turn_a, turn_b = (int(node.attributes.get(name, 0)) for name in ("transA", "transB"))
    alpha, beta = (float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    found = {}
    if 0 in needed and turn_a:
        found[0] = w.op("Gemm", b, gradient, transA=turn_b, transB=1, alpha=alpha)
    elif 0 in needed:
        found[0] = w.op("Gemm", gradient, b, transB=1 - turn_b, alpha=alpha)
    if 1 in needed and turn_b:
        found[1] = w.op("Gemm", gradient, a, transA=1, transB=turn_a, alpha=alpha)
    elif 1 in needed:
        found[1] = w.op("Gemm", a, gradient, transA=1 - turn_a, alpha=alpha)
    if 2 in needed:
        scaled = w.op("Mul", gradient, w.number(beta))
        found[2] = w.summed_to(scaled, w.graph.shape(node.output), node.input(2))
    return found


def matrices(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    """Of stacks of matrices, which may be broadcast; a vector counts as a row or as a column."""
    gradient, ranks = gradients[0], [w.rank(name) for name in node.inputs]
    missing = [axis for axis, rank in zip((-2, -1), ranks, strict=True) if rank == 1]
    if missing:
        gradient = w.op("Unsqueeze", gradient, w.ints(*missing))
    a, b = (
        w.op("Unsqueeze", name, w.ints(place)) if ranks[place] == 1 else name
        for place, name in enumerate(node.inputs)
    )
    found = {}
    if 0 in needed:
        found[0] = w.op("MatMul", gradient, w.transposed(b, max(ranks[1], 2)))
    if 1 in needed:
        found[1] = w.op("MatMul", w.transposed(a, max(ranks[0], 2)), gradient)
    stack = w.graph.shape(node.output)
    for place, made in found.items():
        name, own = node.inputs[place], w.graph.shape(node.inputs[place])
        if missing:
            # Shapes of matrices are not those of the vectors that they were made of.
            found[place] = w.like(w.summed_to(made, None, (a, b)[place]), name)
        else:
            known = None if stack is None or own is None else (*stack[:-2], *own[-2:])
            found[place] = w.summed_to(made, known, name)
    return found
