"""Gradients of what moves, drops, repeats or interpolates elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.gradients.products import Needed
from onnxq.gradients.writer import Unwritable, Writer
from onnxq.model.graph import Node
from onnxq.model.session import open_session, run

Found = Mapping[int, str]


def reshape(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    return {0: w.like(gradients[0], node.input(0))}


def transpose(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    perm = node.attributes.get("perm")
    if perm is None:
        return {0: w.op("Transpose", gradients[0])}
    return {0: w.op("Transpose", gradients[0], perm=np.argsort(perm).tolist())}


def expand(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    return {0: w.summed_to(gradients[0], w.graph.shape(node.output), node.input(0))}


def concat(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    axis, sizes = int(node.attributes["axis"]), [w.graph.shape(name) for name in node.inputs]
    along = [shape[axis] if shape else None for shape in sizes]
    known = [size for size in along if isinstance(size, int)]
    if len(known) == len(along):
        lengths = w.ints(*known)
    else:
        place = w.ints(axis % w.rank(node.output))
        each = [w.op("Gather", w.shape(name), place, axis=0) for name in node.inputs]
        lengths = w.op("Concat", *each, axis=0)
    if len(node.inputs) == 1:
        return {0: gradients[0]}
    parts = w.ops("Split", [gradients[0], lengths], len(node.inputs), axis=axis)
    return {place: parts[place] for place in needed}


def split(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    parts = [
        gradient or w.zeros(name) for gradient, name in zip(gradients, node.outputs, strict=True)
    ]
    axis = int(node.attributes.get("axis", 0))
    return {0: w.op("Concat", *parts, axis=axis)}


def slices(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    pads = _cut_off(w, node)
    if pads is not None:
        return {0: w.op("Pad", gradients[0], w.ints(*pads))}
    places = w.op("Slice", w.places(node.input(0)), *node.inputs[1:])
    return {0: w.scattered(gradients[0], places, node.input(0))}


def _cut_off(w: Writer, node: Node) -> list[int] | None:
    """What a Slice without steps cuts off before and after; None for one with, or where unknown."""
    shape = w.graph.shape(node.input(0))
    values = [w.graph.constant(name) for name in node.inputs[1:]]
    if shape is None or any(value is None for value in values):
        return None
    starts, ends, *rest = (value.tolist() for value in values if value is not None)
    axes = rest[0] if rest else list(range(len(starts)))
    if len(rest) > 1 and set(rest[1]) != {1}:
        return None
    pads = [0] * (2 * len(shape))
    for start, end, axis in zip(starts, ends, axes, strict=True):
        size, place = shape[axis], axis % len(shape)
        if not isinstance(size, int):
            return None
        first, last, _ = slice(start, end).indices(size)
        pads[place], pads[place + len(shape)] = first, size - max(first, last)
    return pads


def gather(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    if needed != {0}:
        raise Unwritable("its indices are computed from values")
    x, axis = node.input(0), int(node.attributes.get("axis", 0))
    indices, shape = w.graph.constant(node.input(1)), w.graph.shape(x)
    size = shape[axis] if shape else None
    if indices is not None and indices.size == 1 and indices.ndim < 2 and isinstance(size, int):
        gradient = gradients[0]
        if not indices.ndim:
            gradient = w.op("Unsqueeze", gradient, w.ints(axis % w.rank(x)))
        return {
            0: w.op("Pad", gradient, w.ints(*_around(int(indices.item()), size, axis, w.rank(x))))
        }
    places = w.op("Gather", w.places(x), node.input(1), axis=axis)
    return {0: w.scattered(gradients[0], places, x)}


def _around(index: int, size: int, axis: int, rank: int) -> list[int]:
    pads = [0] * (2 * rank)
    pads[axis % rank], pads[axis % rank + rank] = index % size, size - 1 - index % size
    return pads


def gather_elements(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    if needed != {0}:
        raise Unwritable("its indices are computed from values")
    axis = int(node.attributes.get("axis", 0))
    places = w.op("GatherElements", w.places(node.input(0)), node.input(1), axis=axis)
    return {0: w.scattered(gradients[0], places, node.input(0))}


def largest(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    """Of the values that a TopK gives beside their places."""
    if needed != {0} or len(node.outputs) < 2 or not node.outputs[1]:
        raise Unwritable("it does not tell which elements it selects")
    axis = int(node.attributes.get("axis", -1))
    zeros = w.zeros(node.input(0))
    return {0: w.op("ScatterElements", zeros, node.outputs[1], gradients[0], axis=axis)}


def pad(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    if node.attributes.get("mode", b"constant") != b"constant":
        raise Unwritable("it repeats values at the border")
    if needed != {0}:
        raise Unwritable("what it pads with is computed at run time")
    back = w.op("Neg", node.input(1))
    axes = node.input(3)
    return {0: w.op("Pad", gradients[0], back, *(("", axes) if axes else ()))}


def depth_to_space(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    block, x = int(node.attributes["blocksize"]), node.input(0)
    deep = w.op("SpaceToDepth", gradients[0], blocksize=block)
    if node.attributes.get("mode", b"DCR") != b"CRD":
        return {0: deep}
    # Of each channel its block comes together, where the other order has all channels together.
    channels = (w.graph.shape(node.output) or (None, None))[1]
    if not isinstance(channels, int):
        raise Unwritable(f"the channels of {node.output!r} are unknown")
    apart = w.op("Reshape", deep, w.ints(0, block * block, channels, -1))
    return {0: w.like(w.op("Transpose", apart, perm=[0, 2, 1, 3]), x)}


def space_to_depth(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    block = int(node.attributes["blocksize"])
    return {0: w.op("DepthToSpace", gradients[0], blocksize=block)}


# --- einsum -------------------------------------------------------------------------------------


def einsum(w: Writer, node: Node, gradients: Sequence[str], needed: Needed) -> Found:
    """Of an operand: the same sum with the result in its place."""
    equation = node.attributes["equation"].decode().replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise Unwritable("its equation repeats or leaves out letters")
    found = {}
    for place in sorted(needed):
        others = [term for n, term in enumerate(terms) if n != place]
        if set(terms[place]) - set("".join([result, *others])):
            raise Unwritable("its equation sums an operand by itself")
        names = [name for n, name in enumerate(node.inputs) if n != place]
        asked = f"{','.join([result, *others])}->{terms[place]}"
        found[place] = w.op("Einsum", gradients[0], *names, equation=asked)
    return found


# --- resizing -----------------------------------------------------------------------------------


def resize(w: Writer, node: Node, gradients: Sequence[str], _needed: Needed) -> Found:
    """Each axis is a product with a matrix, which the operator itself makes of a unit matrix."""
    x, before, after = node.input(0), w.graph.shape(node.input(0)), w.graph.shape(node.output)
    if node.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        raise Unwritable("it crops")
    if node.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Unwritable("it keeps the aspect ratio")
    rank = w.rank(x)
    factors = _factors(w, node, rank)
    repeats = _repeats(node, factors)
    if repeats is not None:
        return {0: _pooled(w, gradients[0], repeats)}
    if before is None or after is None:
        raise Unwritable("its sizes are known at run time only")
    gradient = gradients[0]
    for axis, (size, wanted) in enumerate(zip(before, after, strict=True)):
        factor = None if factors is None else factors[axis]
        if factor == 1 or (factor is None and size == wanted and size is not None):
            continue
        if not isinstance(size, int) or not isinstance(wanted, int):
            raise Unwritable("its sizes are known at run time only")
        matrix = w.constant(_matrix(w, node, size, factor, wanted))
        gradient = _along(w, gradient, matrix, axis, rank)
    return {0: w.like(gradient, x)}


def _factors(w: Writer, node: Node, rank: int) -> list[float] | None:
    """The scale of each axis; None where sizes are given, or only the run tells."""
    scales = w.graph.constant(node.input(2))
    if scales is None or not scales.size:
        return None
    axes = node.attributes.get("axes", range(rank))
    given = {axis % rank: float(scale) for axis, scale in zip(axes, scales, strict=True)}
    return [given.get(axis, 1.0) for axis in range(rank)]


def _repeats(node: Node, factors: Sequence[float] | None) -> list[int] | None:
    """How often each value is repeated along each axis behind that of the channels; None where
    that is not all it does.
    """
    nearest = node.attributes.get("mode", b"nearest") == b"nearest"
    if not nearest or factors is None or len(factors) < 3 or tuple(factors[:2]) != (1, 1):
        return None
    mode = node.attributes.get("coordinate_transformation_mode", b"half_pixel")
    rounding = node.attributes.get("nearest_mode", b"round_prefer_floor")
    copies = (mode == b"asymmetric" and rounding == b"floor") or (
        mode == b"half_pixel" and rounding.startswith(b"round")
    )
    whole = all(factor.is_integer() and factor > 0 for factor in factors)
    return [int(factor) for factor in factors[2:]] if whole and copies else None


def _pooled(w: Writer, gradient: str, repeats: list[int]) -> str:
    mean = w.op("AveragePool", gradient, kernel_shape=repeats, strides=repeats)
    return w.op("Mul", mean, w.number(float(np.prod(repeats))))


def _matrix(w: Writer, node: Node, size: int, factor: float | None, wanted: int) -> NDArray[Any]:
    """(wanted, size): what the operator does along one axis."""
    unit = np.eye(size, dtype=np.float32)[None, :, None]
    scale = wanted / size if factor is None else factor
    # With two rows: what has the size of its input is copied whatever the scales are.
    given = onnx.numpy_helper.from_array(np.array([1, 1, 2, scale], np.float32), "scales")
    left_out = {"axes", "keep_aspect_ratio_policy"}
    attributes = {k: v for k, v in node.attributes.items() if k not in left_out}
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)], "matrix",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, unit.shape)],
        [onnx.ValueInfoProto(name="y")], [given],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", w.graph.model.opset)]
    proto = onnx.helper.make_model(body, opset_imports=opset, ir_version=8)
    try:
        (found,) = run(open_session(proto, optimize=False), None, {"x": unit})
    except ModelError as error:
        raise Unwritable(f"what it does is not known: {error.message}") from None
    if found.shape[-1] != wanted:
        raise Unwritable("its sizes do not follow from its scales")
    return np.ascontiguousarray(found[0, :, 0].T)


def _along(w: Writer, gradient: str, matrix: str, axis: int, rank: int) -> str:
    """The gradient times a matrix along an axis."""
    if axis == rank - 1:
        return w.op("MatMul", gradient, matrix)
    perm = [place for place in range(rank) if place != axis] + [axis]
    last = w.op("MatMul", w.op("Transpose", gradient, perm=perm), matrix)
    return w.op("Transpose", last, perm=np.argsort(perm).tolist())
