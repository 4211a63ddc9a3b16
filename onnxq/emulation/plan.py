"""The plan of the integer machine: what each node of a QDQ model computes, and why some stay float.

docs/emulation.md defines the machine; `onnxq.emulation.write` builds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.emulation.bounds import Reach, exact_parts, product_reach, reach
from onnxq.emulation.qdq import (
    NotInteger,
    QdqGraph,
    Quantization,
    is_dequantize,
    is_quantize,
)
from onnxq.model.graph import Node
from onnxq.model.operators import (
    IntegerForm,
    activation_bounds,
    fused_activations,
    operator_of,
    weight_layout,
)
from onnxq.model.weights import WeightLayout
from onnxq.quantization.plan import Float

Array = NDArray[Any]

SAME_SCALE = 1e-5
"""Relative difference up to which an int32 bias counts as being in steps of the accumulator."""


@dataclass(frozen=True)
class Requantization:
    """The one rounding that ends an integer kernel.

    Attributes:
        node: the QuantizeLinear it replaces.
        to: scale and zero point of the result.
        low, high: integers to which the fused activations limit the result; the type's own limits
            where there are none.
        fused: those activations.
    """

    node: str
    to: Quantization
    low: int
    high: int
    fused: tuple[str, ...]


@dataclass(frozen=True)
class WeightPart:
    """Some terms of a weight; the others are zero or left out.

    Attributes:
        integers: the weight less its zero point as float32, in stored layout.
        channels: first and last but one of the input channels it reads; None for all.
        axis: their axis in the data, counted from the end where negative.
    """

    integers: NDArray[np.float32]
    channels: tuple[int, int] | None
    axis: int


@dataclass(frozen=True)
class Accumulation:
    """A weighted node, or a MatMul of two activations: Σ w·x + b in int32.

    Attributes:
        data: the activations; the second one stands in for a weight.
        parts: the weight, cut so that float32 holds the sums of each part; empty for two
            activations.
        step: value of one step of the sum, float32: data scale × weight scale.
        bias: int32, added to the sum; None where there is none.
        float_bias: float32, added after the sum is dequantized; None where there is none.
            All three are shaped to broadcast along the output's last axes.
        reach: where the sum, bias included, can get; from the weights.
        requantization: None where the result is a float tensor.
    """

    data: tuple[Quantization, ...]
    parts: tuple[WeightPart, ...]
    step: NDArray[np.float32]
    bias: NDArray[np.int32] | None
    float_bias: NDArray[np.float32] | None
    reach: Reach
    requantization: Requantization | None
    form: IntegerForm = IntegerForm.ACCUMULATE


@dataclass(frozen=True)
class Product:
    """Two activations multiplied value by value."""

    data: tuple[Quantization, Quantization]
    reach: Reach
    requantization: Requantization
    form: IntegerForm = IntegerForm.PRODUCT


@dataclass(frozen=True)
class Average:
    """Sums over a window, or over all positions, divided by how many there are.

    Attributes:
        window: attributes of the convolution with ones that sums; None for all positions.
        channels, rank: of the data.
        count: values in each sum; 0 where it differs by position or is known at run time only.
    """

    data: Quantization
    window: Mapping[str, Any] | None
    channels: int
    rank: int
    count: int
    reach: Reach
    requantization: Requantization
    form: IntegerForm = IntegerForm.AVERAGE


@dataclass(frozen=True)
class AsWritten:
    """Eight bits in, eight bits out, computed as Q/DQ says: dequantize, apply, round once."""

    form: IntegerForm
    fused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fused:
    """An activation that is part of another node's kernel."""

    into: str


Integer = Accumulation | Product | Average
Status = Integer | AsWritten | Fused | Float


_REAL = frozenset(
    {
        onnx.TensorProto.UNDEFINED,
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
)
"""Element types of real values; of the first nothing is known."""


def plan_emulation(graph: QdqGraph) -> Mapping[str, Status]:
    """What becomes of each node, Q and DQ aside.

    Args:
        graph: of a normalized QDQ model with inferred shapes.
    """
    plan: dict[str, Status] = {}
    for node in graph.nodes:
        if node.name in plan or is_quantize(node) or is_dequantize(node):
            continue
        try:
            status = _status(graph, node)
        except NotInteger as reason:
            status = Float(str(reason))
        plan[node.name] = status
        plan |= {name: Fused(node.name) for name in _fused(status)}
    return plan


def _fused(status: Status) -> tuple[str, ...]:
    if isinstance(status, AsWritten):
        return status.fused
    if isinstance(status, Integer) and status.requantization is not None:
        return status.requantization.fused
    return ()


def _status(graph: QdqGraph, node: Node) -> Status:
    row = operator_of(node)
    if row is None:
        raise NotInteger(f"{node.op_type} has no row in the operator table")
    if not any(graph.elem_type(name) in _REAL for name in node.outputs if name):
        raise NotInteger("its result is not a float tensor")
    if row.integer_form is IntegerForm.NONE:
        raise NotInteger(f"{node.op_type} has no integer form")
    return _PLANNERS[row.integer_form](graph, node)


def _requantization(graph: QdqGraph, node: Node) -> Requantization:
    """The rounding behind the node and the activations fused into it; raises `NotInteger`."""
    fused = fused_activations(graph, node)
    quantizer, to = graph.quantizer(fused[-1].output if fused else node.output)
    info = np.iinfo(to.parameters.zero_point.dtype)
    low, high = float(info.min), float(info.max)
    for activation in fused:
        bounds = activation_bounds(graph, activation)
        if bounds is None:
            raise NotInteger("the bounds of its activation are computed at run time")
        # Rounding keeps the order, so limits may be rounded instead of values.
        first, second = (_rounded(limit, to) for limit in bounds)
        low, high = (min(max(end, first), second) for end in (low, high))
    return Requantization(quantizer.name, to, int(low), int(high), tuple(a.name for a in fused))


def _rounded(value: float, to: Quantization) -> float:
    """A real limit as an integer of the type, saturated."""
    info, zero = np.iinfo(to.parameters.zero_point.dtype), int(to.parameters.zero_point)
    if not math.isfinite(value):
        return float(info.min if value < 0 else info.max)
    steps = float(np.rint(np.float32(value) / to.parameters.scale))
    return min(max(steps + zero, float(info.min)), float(info.max))


# --- sums of products ------------------------------------------------------------------------


def _accumulation(graph: QdqGraph, node: Node) -> Accumulation:
    row = operator_of(node)
    assert row is not None  # noqa: S101 - _status saw to it
    layout = weight_layout(graph, node)
    if isinstance(layout, str):
        if row.contracts:
            return _contraction(graph, node)
        raise NotInteger(layout)
    data, weight = graph.operand(node.input(layout.data)), graph.standing_for(layout.weight)
    if not weight.is_8_bit:
        raise NotInteger(f"its weight is {weight.parameters.dtype}, not 8-bit")
    axis = weight.parameters.axis
    if axis is not None and axis % len(layout.shape) != layout.channel_axis:
        raise NotInteger(f"its weight has scales along axis {axis}, which is not its outputs'")
    factors = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if factors[0] != 1 or (layout.bias and factors[1] != 1):
        raise NotInteger("it multiplies its product or its bias by a factor")
    return _weighted(graph, node, layout, data, weight)


def _weighted(
    graph: QdqGraph, node: Node, layout: WeightLayout, data: Quantization, weight: Quantization
) -> Accumulation:
    stored = graph.constant(weight.integers)
    assert stored is not None  # noqa: S101 - its layout is known
    zero = weight.parameters.zero_point.astype(np.int16)
    shape = [1] * stored.ndim
    shape[layout.channel_axis] = zero.size
    integers = layout.to_canonical(stored.astype(np.int16) - zero.reshape(shape))
    flat = integers.reshape(layout.outputs, -1)
    step = np.asarray(data.parameters.scale * weight.parameters.scale, np.float32)
    if step.ndim:
        # A ConvTranspose's channel serves one output of every group.
        step = _trailing(layout, np.tile(step, layout.outputs // step.size))
    bias, float_bias = _biases(graph, layout, step)
    parts = tuple(_part(layout, integers, run) for run in exact_parts(flat, data.interval))
    return Accumulation(
        (data,), parts, step, bias, float_bias,
        reach(flat, data.interval, None if bias is None else bias.ravel()),
        _requantization_or_none(graph, node) if float_bias is None else None,
    )  # fmt: skip


def _part(layout: WeightLayout, integers: Array, terms: tuple[int, int]) -> WeightPart:
    """The terms of a run, and of the inputs only those they read.

    Args:
        layout: of the whole weight.
        integers: the whole weight, (outputs, inputs per group, taps).
        terms: start and stop among inputs × taps.
    """
    outputs, inputs, taps = integers.shape
    first, last = 0, inputs
    if layout.groups == 1:
        first, last = terms[0] // taps, -(-terms[1] // taps)
    piece = np.zeros((outputs, (last - first) * taps), np.float32)
    inside = slice(terms[0] - first * taps, terms[1] - first * taps)
    piece[:, inside] = integers.reshape(outputs, -1)[:, slice(*terms)]
    whole = (first, last) == (0, inputs)
    stored = layout if whole else layout.of_inputs(last - first)
    return WeightPart(
        stored.from_canonical(piece.reshape(outputs, last - first, taps)),
        None if whole else (first, last), layout.input_axis,
    )  # fmt: skip


def _requantization_or_none(graph: QdqGraph, node: Node) -> Requantization | None:
    try:
        return _requantization(graph, node)
    except NotInteger:
        return None


def _biases(
    graph: QdqGraph, layout: WeightLayout, step: NDArray[np.float32]
) -> tuple[NDArray[np.int32] | None, NDArray[np.float32] | None]:
    """The bias as part of the sum, or as a float; at most one of them."""
    if not layout.bias:
        return None, None
    value = graph.constant(layout.bias)
    if value is None:
        raise NotInteger("its bias is computed at run time")
    vector = _bias_in_steps(graph, layout, step)
    if vector is not None:
        return _trailing(layout, vector), None
    return None, _trailing(layout, value.astype(np.float32))


def _trailing(layout: WeightLayout, values: Array) -> Array:
    """A value for each output, shaped to broadcast along the last axes of the node's output."""
    spatial = 0 if layout.output_last else len(layout.shape) - 2
    return values.reshape(-1, *[1] * spatial) if spatial else values


def _bias_in_steps(
    graph: QdqGraph, layout: WeightLayout, step: NDArray[np.float32]
) -> NDArray[np.int32] | None:
    """The int32 bias, if its steps are those of the sum."""
    try:
        found = graph.standing_for(layout.bias)
    except NotInteger:
        return None
    integers, zero = graph.constant(found.integers), found.parameters.zero_point
    if integers is None or zero.dtype != np.int32 or zero.any():
        return None
    vector = layout.bias_vector(integers)
    ratio = found.parameters.scale / step.ravel().astype(np.float64)
    if vector is None or not (np.abs(ratio - 1) <= SAME_SCALE).all():
        return None
    return vector.astype(np.int32)


def _contraction(graph: QdqGraph, node: Node) -> Accumulation:
    """A MatMul of two activations."""
    first, second = (graph.operand(node.input(position)) for position in (0, 1))
    rows, columns = graph.shape(node.input(0)), graph.shape(node.input(1))
    sizes = [rows[-1] if rows else None, columns[-2:][0] if columns else None]
    terms = next((float(size) for size in sizes if isinstance(size, int)), math.inf)
    step = np.asarray(first.parameters.scale * second.parameters.scale, np.float32)
    return Accumulation(
        (first, second), (), step, None, None,
        product_reach(terms, first.interval, second.interval),
        _requantization_or_none(graph, node),
    )  # fmt: skip


# --- products and averages -------------------------------------------------------------------


def _product(graph: QdqGraph, node: Node) -> Product:
    first, second = (graph.operand(node.input(position)) for position in (0, 1))
    reached = product_reach(1, first.interval, second.interval)
    return Product((first, second), reached, _requantization(graph, node))


def _average(graph: QdqGraph, node: Node) -> Average:
    data, requantization = graph.operand(node.input(0)), _requantization(graph, node)
    shape = graph.shape(node.input(0))
    if shape is None or not isinstance(shape[1], int):
        raise NotInteger("the number of its channels is known at run time only")
    kernel = node.attributes.get("kernel_shape")
    sizes = [size for size in (kernel or shape[2:]) if isinstance(size, int)]
    terms = math.prod(sizes) if len(sizes) == len(shape) - 2 else math.inf
    window, same = None, math.isfinite(terms)
    if kernel:
        window, pads = _window(graph, node)
        same = not pads or bool(node.attributes.get("count_include_pad", 0))
    return Average(
        data, window, shape[1], len(shape), int(terms) if same else 0,
        product_reach(terms, data.interval, (0, 1)), requantization,
    )  # fmt: skip


_WINDOW = ("kernel_shape", "strides", "pads", "auto_pad", "dilations")


def _window(graph: QdqGraph, node: Node) -> tuple[Mapping[str, Any], bool]:
    """Attributes of the convolution that sums what the pooling node averages; whether it pads."""
    given = node.attributes
    attributes = {key: given[key] for key in _WINDOW if key in given}
    axes = len(given["kernel_shape"])
    pads = list(given.get("pads", [0] * 2 * axes))
    automatic = given.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}
    if given.get("ceil_mode", 0):
        sizes = [s for s in (graph.shape(node.input(0)) or ())[2:] if isinstance(s, int)]
        if automatic or given.get("count_include_pad", 0):
            raise NotInteger("it counts pads and rounds its size up")
        if len(sizes) != axes:
            raise NotInteger("it rounds a size up that is known at run time only")
        pads = _pads_for_ceil(given, pads, sizes)
        attributes["pads"] = pads
    return attributes, automatic or any(pads)


def _pads_for_ceil(attributes: Mapping[str, Any], pads: list[int], sizes: list[int]) -> list[int]:
    """Pads with which rounding the size down gives the size that was rounded up.

    Args:
        attributes: of the pooling node.
        pads: its pads, all begins and then all ends.
        sizes: of its input along the pooled axes.
    """
    axes, result = len(sizes), list(pads)
    for axis, size in enumerate(sizes):
        stride, dilation = (attributes.get(k, [1] * axes)[axis] for k in ("strides", "dilations"))
        reached = (attributes["kernel_shape"][axis] - 1) * dilation + 1
        steps = math.ceil((size + pads[axis] + pads[axes + axis] - reached) / stride)
        if steps * stride >= size + pads[axis]:
            steps -= 1  # A window that would begin in the pads behind is none.
        missing = steps * stride + reached - (size + pads[axis] + pads[axes + axis])
        result[axes + axis] += max(missing, 0)
    return result


# --- the rest --------------------------------------------------------------------------------


def _as_written(graph: QdqGraph, node: Node) -> AsWritten:
    row = operator_of(node)
    assert row is not None  # noqa: S101 - _status saw to it
    for name in row.data_of(node):
        if graph.constant(name) is None:
            graph.operand(name)
    outputs = [name for name in node.outputs if name and graph.elem_type(name) in _REAL]
    if len(outputs) > 1:
        for name in outputs:
            graph.quantizer(name)
        return AsWritten(row.integer_form)
    return AsWritten(row.integer_form, _requantization(graph, node).fused)


_PLANNERS: Mapping[IntegerForm, Callable[[QdqGraph, Node], Integer | AsWritten]] = {
    IntegerForm.ACCUMULATE: _accumulation,
    IntegerForm.PRODUCT: _product,
    IntegerForm.AVERAGE: _average,
    IntegerForm.VALUE: _as_written,
    IntegerForm.MOVE: _as_written,
}
