"""THE table of operator knowledge: one row for each ONNX operator onnxq understands.

A row says how a positive scale per channel passes through the operator (equalization), whether
quantized values pass through it (placement), and which of its inputs is a weight. An operator
without a row is a barrier to scales and stays in float. What a node's attributes decide is told by
the small functions of this file; nothing elsewhere compares operator names.

Each row is proved by tests that run the operator in ONNX Runtime.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.model.graph import Graph, Node, nodes_in
from onnxq.model.weights import WeightLayout
from onnxq.refusal import Refusal


class ScaleRule(enum.Enum):
    """What happens to a channel scale s > 0 at an operator."""

    LINEAR = "linear"
    """Weighted: the weight's columns absorb 1/s of the input, its rows give any s to the output."""
    AFFINE = "affine"
    """Normalization with scale and bias: they give any s to the output; the input stays pinned."""
    BATCH_NORM = "batch-norm"
    """Inference batch norm: takes any s at its input and gives any other to its output."""
    HOMOGENEOUS = "homogeneous"
    """f(s·x) = s·f(x) along every axis the operator does not mix."""
    CLIP = "clip"
    """Homogeneous if its bounds are 0 or infinite; else its bounds must move with the scale."""
    TIE = "tie"
    """Elementwise among operands that must all carry the same s; constants are multiplied by s."""
    PRODUCT = "product"
    """s_out = s_a · s_b: a constant passes the other's scale, or one for each channel takes it and
    gives any; of two activations one is pinned."""
    MOVE = "move"
    """Elements move unchanged; scales move with them."""
    INVARIANT = "invariant"
    """f(s·x) = f(x) along every axis the operator does not compare: no scale comes out."""
    OBSERVE = "observe"
    """The values do not matter (Shape, Size): no constraint."""
    BARRIER = "barrier"
    """Not homogeneous: scales stop here."""


class QuantizedRule(enum.Enum):
    """What a quantized value may do at an operator."""

    WEIGHTED = "weighted"
    """A kernel that sums products; its activation and weight are quantized."""
    OWN = "own"
    """Has a quantized kernel; the output has a range of its own."""
    SHARED = "shared"
    """Passes quantized values through: output and data inputs share one scale and zero point."""
    FLOAT = "float"
    """Stays in float."""


class OffsetRule(enum.Enum):
    """What happens to a constant c added to an operator's input, alike at every position."""

    ABSORBS = "absorbs"
    """Weighted: the bias takes W·c, if no padding is read beside the input."""
    KEEPS = "keeps"
    """f(x + c) = f(x) + c."""
    ADDS = "adds"
    """The offsets of the operands add up."""
    LIMITS = "limits"
    """Bounds move along: f(x + c) with bounds + c is f(x) + c."""
    STOPS = "stops"
    """No such rule."""


class IntegerForm(enum.Enum):
    """What an integer machine computes where an operator's operands and result are integers."""

    ACCUMULATE = "accumulate"
    """Products of integers are summed in the accumulator; the sum is rounded once."""
    PRODUCT = "product"
    """The product of two integers is rounded once."""
    AVERAGE = "average"
    """Integers are summed in the accumulator; the sum is divided and rounded once."""
    VALUE = "value"
    """Each result depends on one value of each operand (a table, or rescaled operands); rounded
    once."""
    MOVE = "move"
    """Integers move, or the largest is picked; rounded only where the scale changes."""
    NONE = "none"
    """No integer form: float."""


_IMPLIED = {
    QuantizedRule.WEIGHTED: IntegerForm.ACCUMULATE,
    QuantizedRule.SHARED: IntegerForm.MOVE,
}


class Rearrangement(enum.Enum):
    """What an operator does to the places of its elements, whose values it leaves as they are."""

    NONE = "none"
    """It computes, drops or repeats elements."""
    AXES = "axes"
    """It adds, drops or reorders whole axes: the output has each element once."""
    ELEMENTS = "elements"
    """The output has each element once, at any place."""


LayoutOf = Callable[[Graph, Node], "WeightLayout | Refusal"]
AxesOf = Callable[[Graph, Node, int], "tuple[int, ...] | Refusal"]


PowerOf = Callable[[Graph, Node], "float | None"]


def _no_axes(_graph: Graph, _node: Node, _rank: int) -> tuple[int, ...]:
    return ()


def _always(_node: Node) -> bool:
    return True


def _never(_graph: Graph, _node: Node) -> bool:
    return False


@dataclass(frozen=True)
class Operator:
    """One row.

    Attributes:
        op_type: the operator's name in the default domain.
        scale, quantized: see the enumerations.
        layout: for weighted operators, the weight's layout, or the reason there is none.
        mixed_axes: axes (of the data input of the given rank) along which the operator combines
            elements, so that their scales must agree; or the reason no scale passes this node.
        data_inputs: positions that carry activations; None means all. The rest are parameters.
        with_bias: the operator that multiplies matrices as this one does and takes a bias besides.
        of_several: the operator that computes the same of any number of operands.
        reshapes: its second input is the shape of its output.
        contracts: multiplies two activation matrices where no operand is a constant weight.
        divides, subtracts: its second operand is a divisor, or is subtracted.
        looks_up: its second input holds indices along an axis of its first.
        takes_part: each output is a part of its data input, with a range that may be smaller.
        rearranges: see `Rearrangement`.
        copies: the output is its data input.
        chooses: a condition says which values pass: not all need to.
        power: see `degree`.
        by_value: see `elementwise`; for operators that no integer machine computes.
        surrounded: a function that runtimes know by the constants around it and replace, with
            them, by one kernel: the Erf or Tanh of a Gelu.
        trailing: its scale and bias lie along the last axes, not along axis 1.
        fuses: runs inside the weighted operator before it, on every target.
        limits: keeps the smaller (-1) or the larger (1) of its operands: with a constant one, a
            bound. 0 for other operators.
        bounds: fixed range of the output, where the function has one.
        fills_bounds: kernels on quantized values write it over all of its bounds, whatever was
            seen.
        offset: see `OffsetRule`; where `offset_rule` finds padding in the way, it stops.
        float32_kernel: what ONNX Runtime's CPU provider makes of it between DQ and Q. The kernel
            takes float32 scales only, and ONNX Runtime does not look at their type: with float16
            ones the model does not load (1.31).
        averages: each output lies between the smallest and the largest of its inputs and zero.
        keeps_rule: whether a node's attributes leave it its rule; without it the node stays
            in float.
        form: what an integer machine computes; see `integer_form`.
        stores: role → position of weights (directions, rows, inputs) of an operator that computes
            in float; they may be stored as numbers with a scale for each row.
        by_run: ONNX Runtime's operator that computes the same with such numbers, transposed, and
            with activations that it quantizes as it runs; see `FACTORS_BY_RUN`.
        channels_first: whether ONNX Runtime's CPU kernel refuses a node whose channels lie along
            the last axis.
        batch_dependent: ONNX Runtime's CPU kernels may round a sample otherwise in a batch of
            another size: the order of a sum follows the alignment of the data or the threads.
    """

    op_type: str
    scale: ScaleRule
    quantized: QuantizedRule
    layout: LayoutOf | None = None
    mixed_axes: AxesOf = _no_axes
    data_inputs: tuple[int, ...] | None = (0,)
    fuses: bool = False
    limits: int = 0
    with_bias: str = ""
    of_several: str = ""
    reshapes: bool = False
    contracts: bool = False
    divides: bool = False
    subtracts: bool = False
    looks_up: bool = False
    takes_part: bool = False
    rearranges: Rearrangement = Rearrangement.NONE
    copies: bool = False
    chooses: bool = False
    surrounded: bool = False
    power: PowerOf | None = None
    by_value: bool = False
    trailing: bool = False
    bounds: tuple[float, float] | None = None
    fills_bounds: bool = False
    float32_kernel: str = ""
    averages: bool = False
    offset: OffsetRule = OffsetRule.STOPS
    keeps_rule: Callable[[Node], bool] = _always
    form: IntegerForm = IntegerForm.NONE
    stores: tuple[tuple[str, int], ...] = ()
    by_run: str = ""
    channels_first: Callable[[Graph, Node], bool] = _never
    batch_dependent: bool = False

    @property
    def integer_form(self) -> IntegerForm:
        """The form; what is weighted accumulates, what passes quantized values on moves them."""
        return _IMPLIED.get(self.quantized, self.form)

    @property
    def elementwise(self) -> bool:
        """Whether each element of the output depends on one element of each operand."""
        return self.by_value or self.form in {IntegerForm.VALUE, IntegerForm.PRODUCT}

    @property
    def keeps_elements(self) -> bool:
        """Whether the output has each element of the data input once, and no others."""
        return self.copies or self.rearranges is not Rearrangement.NONE

    def data_of(self, node: Node) -> tuple[str, ...]:
        """The tensors at the data inputs that the node has."""
        positions = range(len(node.inputs)) if self.data_inputs is None else self.data_inputs
        return tuple(name for name in map(node.input, positions) if name)


# --- what attributes decide ------------------------------------------------------------------


def _conv(graph: Graph, node: Node) -> WeightLayout | Refusal:
    return _convolution(graph, node, transposed=False)


def _conv_transpose(graph: Graph, node: Node) -> WeightLayout | Refusal:
    return _convolution(graph, node, transposed=True)


def _convolution(graph: Graph, node: Node, *, transposed: bool) -> WeightLayout | Refusal:
    shape = _weight_shape(graph, node, 1)
    if isinstance(shape, Refusal):
        return shape
    if len(shape) < 2:
        return Refusal("its weight has fewer than two axes")
    return WeightLayout(
        node.input(1), node.input(2), 0, 1, shape, node.attributes.get("group", 1),
        input_axis=1, output_axis=1, channel_axis=1 if transposed else 0, transposed=transposed,
    )  # fmt: skip


def _gemm(graph: Graph, node: Node) -> WeightLayout | Refusal:
    shape = _right_shape(graph, node)
    if isinstance(shape, Refusal):
        return shape
    output_last = not node.attributes.get("transB", 0)
    return WeightLayout(
        node.input(1), node.input(2), 0, 1, shape, 1,
        input_axis=0 if node.attributes.get("transA", 0) else 1, output_axis=1,
        channel_axis=1 if output_last else 0, output_last=output_last,
    )  # fmt: skip


def _matmul(graph: Graph, node: Node) -> WeightLayout | Refusal:
    shape = _right_shape(graph, node)
    if isinstance(shape, Refusal):
        return shape
    if len(shape) < 2:
        return Refusal("its weight is a vector")
    return WeightLayout(
        node.input(1), "", 0, 1, shape, 1, input_axis=-1, output_axis=-1,
        channel_axis=len(shape) - 1, output_last=True, takes_bias=False,
    )  # fmt: skip


def _right_shape(graph: Graph, node: Node) -> tuple[int, ...] | Refusal:
    """Of a constant on the right; on the left it multiplies rows, which no target quantizes."""
    shape = _weight_shape(graph, node, 1)
    left = isinstance(shape, Refusal) and graph.constant(node.input(0)) is not None
    return Refusal("its constant is the left operand") if left else shape


def _weight_shape(graph: Graph, node: Node, position: int) -> tuple[int, ...] | Refusal:
    value = graph.constant(node.input(position))
    if value is None:
        return Refusal("its weight is not a constant")
    if not graph.is_float(node.input(position)):
        return Refusal(f"its weight is {value.dtype}, not float32")
    return tuple(value.shape)


def _spatial_axes(_graph: Graph, _node: Node, rank: int) -> tuple[int, ...]:
    return tuple(range(2, rank))


def reduced_axes(graph: Graph, node: Node, rank: int) -> tuple[int, ...] | Refusal:
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        value = graph.constant(node.input(1))
        if value is None:
            return Refusal("its axes are computed at run time")
        axes = value.tolist()
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return ()
        axes = range(rank)
    return tuple(sorted(axis % rank for axis in axes))


def _compared_axis(_graph: Graph, node: Node, rank: int) -> tuple[int, ...]:
    return (node.attributes.get("axis", 0) % rank,)


def _padded_axes(graph: Graph, node: Node, rank: int) -> tuple[int, ...] | Refusal:
    pads = graph.constant(node.input(1))
    if pads is None:
        return Refusal("its pads are computed at run time")
    mode = node.attributes.get("mode", b"constant")
    if mode == b"constant" and node.input(2):
        fill = graph.constant(node.input(2))
        if fill is None or fill.size != 1 or fill.item() != 0:
            return Refusal("it pads with a value other than 0")
    axes = graph.constant(node.input(3))
    if node.input(3) and axes is None:
        return Refusal("its axes are computed at run time")
    padded = list(range(rank)) if axes is None else [int(axis) % rank for axis in axes]
    half = len(padded)
    return tuple(
        sorted(axis for i, axis in enumerate(padded) if pads[i] != 0 or pads[i + half] != 0)
    )


def _resized_axes(graph: Graph, node: Node, rank: int) -> tuple[int, ...] | Refusal:
    """All but the axes whose scale is exactly 1; an equal size alone does not say so."""
    crops = node.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    if crops and node.attributes.get("extrapolation_value", 0.0) != 0:
        return Refusal("it fills with an extrapolation value other than 0")
    before, after = graph.shape(node.input(0)), graph.shape(node.output)
    if before is None or after is None:
        return Refusal("its shape is unknown")
    roi, scales = graph.constant(node.input(1)), graph.constant(node.input(2))
    if node.input(2) and scales is None:
        return Refusal("its scales are computed at run time")
    axes = [axis % rank for axis in node.attributes.get("axes", range(rank))]

    def untouched(position: int, axis: int) -> bool:
        if crops and (roi is None or (roi[position], roi[position + len(axes)]) != (0, 1)):
            return False
        if scales is not None and scales.size:
            return bool(scales[position] == 1)
        # A dynamic batch keeps its name.
        return before[axis] == after[axis] and before[axis] is not None

    return tuple(sorted(axis for i, axis in enumerate(axes) if not untouched(i, axis)))


def _copies_samples(node: Node) -> bool:
    return bool(node.attributes.get("mode", b"nearest") == b"nearest")


def _resizes_channels_first(graph: Graph, node: Node) -> bool:
    """Cubic shrinking has no other kernel, unless against aliasing; and whoever reorders the axes
    takes scales and sizes to be there for all of them (1.32).
    """
    if "axes" in node.attributes:
        return True
    cubic = node.attributes.get("mode") == b"cubic" and not node.attributes.get("antialias", 0)
    return cubic and not _enlarges(graph, node)


def _enlarges(graph: Graph, node: Node) -> bool:
    """Whether no axis becomes smaller, as far as is known before the run."""
    scales = graph.constant(node.input(2))
    if scales is not None and scales.size:
        return bool(scales.min() >= 1)
    before, after = graph.shape(node.input(0)), graph.shape(node.output)
    if before is None or after is None:
        return False
    for old, new in zip(before, after, strict=True):
        known = isinstance(old, int) and isinstance(new, int) and old <= new
        # A dynamic batch keeps its name.
        if not known and (old is None or old != new):
            return False
    return True


def _lp_pooled_axes(graph: Graph, node: Node, rank: int) -> tuple[int, ...] | Refusal:
    if node.attributes.get("p", 2) not in {1, 2}:
        return Refusal("its root is not exact")
    return _spatial_axes(graph, node, rank)


def _dropout(graph: Graph, node: Node, _rank: int) -> tuple[int, ...] | Refusal:
    training = graph.constant(node.input(2))
    if node.input(2) and (training is None or bool(training.item())):
        return Refusal("it runs in training mode")
    return ()


def _prelu(graph: Graph, node: Node, _rank: int) -> tuple[int, ...] | Refusal:
    if graph.constant(node.input(1)) is None:
        return Refusal("its slope is computed at run time")
    return ()


def clip_bounds(graph: Graph, node: Node) -> tuple[float, float] | None:
    """Lower and upper bound of a Clip, ±∞ where absent; None where computed at run time."""
    bounds = []
    for position, absent in ((1, -math.inf), (2, math.inf)):
        if not node.input(position):
            bounds.append(absent)
            continue
        value = graph.constant(node.input(position))
        if value is None or value.size != 1:
            return None
        bounds.append(float(value.item()))
    return bounds[0], bounds[1]


def _product_with_itself(_graph: Graph, node: Node) -> float | None:
    return 2.0 if len(node.inputs) == 2 and node.input(0) == node.input(1) else None


def _exponent(graph: Graph, node: Node) -> float | None:
    value = graph.constant(node.input(1))
    return float(value.item()) if value is not None and value.size == 1 else None


def _always_power(exponent: float) -> PowerOf:
    return lambda _graph, _node: exponent


# --- the table -------------------------------------------------------------------------------

_S, _I, _O, _F, _R = ScaleRule, QuantizedRule, OffsetRule, IntegerForm, Rearrangement

_RECURRENT = (("Input weights", 1), ("Recurrent weights", 2))

_ROWS = (
    # weighted
    Operator("Conv", _S.LINEAR, _I.WEIGHTED, layout=_conv,
             mixed_axes=_spatial_axes, offset=_O.ABSORBS),
    Operator("ConvTranspose", _S.LINEAR, _I.WEIGHTED, layout=_conv_transpose,
             mixed_axes=_spatial_axes, batch_dependent=True),
    Operator("Gemm", _S.LINEAR, _I.WEIGHTED, layout=_gemm, offset=_O.ABSORBS),
    Operator("MatMul", _S.LINEAR, _I.WEIGHTED, layout=_matmul, contracts=True, with_bias="Gemm"),
    # normalization
    Operator("BatchNormalization", _S.BATCH_NORM, _I.FLOAT),
    Operator("InstanceNormalization", _S.AFFINE, _I.FLOAT),
    Operator("GroupNormalization", _S.AFFINE, _I.FLOAT, batch_dependent=True),
    Operator("LayerNormalization", _S.AFFINE, _I.FLOAT, trailing=True),
    Operator("RMSNormalization", _S.AFFINE, _I.FLOAT, trailing=True, batch_dependent=True),
    # activations
    Operator("Relu", _S.HOMOGENEOUS, _I.OWN, form=_F.VALUE, fuses=True, averages=True,
             offset=_O.LIMITS),
    Operator("LeakyRelu", _S.HOMOGENEOUS, _I.OWN, form=_F.VALUE),
    Operator("PRelu", _S.HOMOGENEOUS, _I.FLOAT, form=_F.VALUE, mixed_axes=_prelu),
    Operator("Clip", _S.CLIP, _I.OWN, form=_F.VALUE, fuses=True, offset=_O.LIMITS),
    Operator("Sigmoid", _S.BARRIER, _I.OWN, form=_F.VALUE, bounds=(0.0, 1.0)),
    Operator("HardSigmoid", _S.BARRIER, _I.FLOAT, form=_F.VALUE, bounds=(0.0, 1.0)),
    Operator("HardSwish", _S.BARRIER, _I.FLOAT, form=_F.VALUE),
    Operator("Softmax", _S.BARRIER, _I.OWN, bounds=(0.0, 1.0), fills_bounds=True),
    Operator("Tanh", _S.BARRIER, _I.OWN, form=_F.VALUE, bounds=(-1.0, 1.0), surrounded=True),
    Operator("Gelu", _S.BARRIER, _I.FLOAT, form=_F.VALUE),
    Operator("Elu", _S.BARRIER, _I.FLOAT, form=_F.VALUE, batch_dependent=True),
    Operator("Erf", _S.BARRIER, _I.FLOAT, form=_F.VALUE, surrounded=True),
    Operator("Abs", _S.HOMOGENEOUS, _I.FLOAT, form=_F.VALUE),
    Operator("Neg", _S.HOMOGENEOUS, _I.FLOAT, form=_F.VALUE),
    Operator("Softplus", _S.BARRIER, _I.FLOAT, by_value=True, batch_dependent=True),
    Operator("Exp", _S.BARRIER, _I.FLOAT, by_value=True, batch_dependent=True),
    Operator("Pow", _S.BARRIER, _I.FLOAT, power=_exponent, by_value=True, batch_dependent=True),
    Operator("Sqrt", _S.BARRIER, _I.FLOAT, power=_always_power(0.5), by_value=True),
    Operator("Log", _S.BARRIER, _I.FLOAT, power=_always_power(0.0), by_value=True,
             batch_dependent=True),
    # elementwise with several operands
    Operator("Add", _S.TIE, _I.OWN, form=_F.VALUE, data_inputs=None, offset=_O.ADDS,
             of_several="Sum"),
    Operator("Sub", _S.TIE, _I.FLOAT, form=_F.VALUE, data_inputs=None, subtracts=True),
    Operator("Sum", _S.TIE, _I.FLOAT, form=_F.VALUE, data_inputs=None, offset=_O.ADDS),
    Operator("Mean", _S.TIE, _I.FLOAT, form=_F.VALUE, data_inputs=None),
    Operator("Max", _S.TIE, _I.FLOAT, form=_F.VALUE,
             data_inputs=None, limits=1, offset=_O.LIMITS),
    Operator("Min", _S.TIE, _I.FLOAT, form=_F.VALUE,
             data_inputs=None, limits=-1, offset=_O.LIMITS),
    Operator("Where", _S.TIE, _I.FLOAT, form=_F.VALUE, data_inputs=(1, 2), chooses=True),
    Operator("Mul", _S.PRODUCT, _I.OWN, form=_F.PRODUCT, data_inputs=None,
             power=_product_with_itself),
    Operator("Div", _S.PRODUCT, _I.FLOAT, form=_F.VALUE, data_inputs=None, divides=True),
    # pooling and reduction
    Operator("MaxPool", _S.HOMOGENEOUS, _I.SHARED,
             mixed_axes=_spatial_axes, averages=True, offset=_O.KEEPS),
    Operator("AveragePool", _S.HOMOGENEOUS, _I.OWN, form=_F.AVERAGE,
             mixed_axes=_spatial_axes, averages=True, offset=_O.KEEPS),
    Operator("LpPool", _S.HOMOGENEOUS, _I.FLOAT, mixed_axes=_lp_pooled_axes, batch_dependent=True),
    Operator("GlobalAveragePool", _S.HOMOGENEOUS, _I.OWN, form=_F.AVERAGE, mixed_axes=_spatial_axes,
             averages=True, offset=_O.KEEPS),
    Operator("GlobalMaxPool", _S.HOMOGENEOUS, _I.FLOAT, form=_F.MOVE, mixed_axes=_spatial_axes,
             averages=True, offset=_O.KEEPS),
    Operator("ReduceMean", _S.HOMOGENEOUS, _I.FLOAT, mixed_axes=reduced_axes, offset=_O.KEEPS,
             batch_dependent=True),
    Operator("ReduceSum", _S.HOMOGENEOUS, _I.FLOAT, mixed_axes=reduced_axes, batch_dependent=True),
    Operator("ReduceMax", _S.HOMOGENEOUS, _I.FLOAT, form=_F.MOVE,
             mixed_axes=reduced_axes, offset=_O.KEEPS),
    Operator("ReduceMin", _S.HOMOGENEOUS, _I.FLOAT, form=_F.MOVE,
             mixed_axes=reduced_axes, offset=_O.KEEPS),
    Operator("ReduceL1", _S.HOMOGENEOUS, _I.FLOAT, mixed_axes=reduced_axes, batch_dependent=True),
    Operator("ReduceL2", _S.HOMOGENEOUS, _I.FLOAT, mixed_axes=reduced_axes,
             power=_always_power(1.0), batch_dependent=True),
    Operator("ReduceSumSquare", _S.BARRIER, _I.FLOAT, power=_always_power(2.0),
             batch_dependent=True),
    # padding and resizing
    Operator("Pad", _S.HOMOGENEOUS, _I.SHARED, mixed_axes=_padded_axes, averages=True),
    Operator("Resize", _S.HOMOGENEOUS, _I.SHARED, mixed_axes=_resized_axes,
             keeps_rule=_copies_samples, channels_first=_resizes_channels_first),
    # data movement
    Operator("Identity", _S.HOMOGENEOUS, _I.SHARED, averages=True, offset=_O.KEEPS, copies=True),
    Operator("Dropout", _S.HOMOGENEOUS, _I.SHARED,
             mixed_axes=_dropout, averages=True, offset=_O.KEEPS, copies=True),
    Operator("Concat", _S.MOVE, _I.SHARED, data_inputs=None, float32_kernel="QLinearConcat"),
    Operator("Split", _S.MOVE, _I.SHARED, offset=_O.KEEPS, takes_part=True),
    Operator("Slice", _S.MOVE, _I.SHARED, offset=_O.KEEPS, takes_part=True),
    Operator("Gather", _S.MOVE, _I.SHARED, offset=_O.KEEPS, looks_up=True, takes_part=True),
    Operator("Flatten", _S.MOVE, _I.SHARED, offset=_O.KEEPS, rearranges=_R.ELEMENTS),
    Operator("Reshape", _S.MOVE, _I.SHARED, offset=_O.KEEPS, reshapes=True,
             rearranges=_R.ELEMENTS),
    Operator("Transpose", _S.MOVE, _I.SHARED, offset=_O.KEEPS, rearranges=_R.AXES),
    Operator("Squeeze", _S.MOVE, _I.SHARED, offset=_O.KEEPS, rearranges=_R.AXES),
    Operator("Unsqueeze", _S.MOVE, _I.SHARED, offset=_O.KEEPS, rearranges=_R.AXES),
    Operator("Expand", _S.MOVE, _I.SHARED, offset=_O.KEEPS),
    Operator("DepthToSpace", _S.MOVE, _I.SHARED, offset=_O.KEEPS, rearranges=_R.ELEMENTS),
    Operator("SpaceToDepth", _S.MOVE, _I.SHARED, offset=_O.KEEPS, rearranges=_R.ELEMENTS),
    # recurrent
    Operator("LSTM", _S.BARRIER, _I.FLOAT, stores=_RECURRENT, batch_dependent=True,
             by_run="DynamicQuantizeLSTM"),
    Operator("GRU", _S.BARRIER, _I.FLOAT, stores=_RECURRENT, batch_dependent=True),
    # the scale, or the value, does not matter
    Operator("Sign", _S.INVARIANT, _I.FLOAT),
    Operator("ArgMax", _S.INVARIANT, _I.FLOAT, mixed_axes=_compared_axis),
    Operator("ArgMin", _S.INVARIANT, _I.FLOAT, mixed_axes=_compared_axis),
    Operator("Shape", _S.OBSERVE, _I.FLOAT),
    Operator("Size", _S.OBSERVE, _I.FLOAT),
)  # fmt: skip

OPERATORS = {row.op_type: row for row in _ROWS}

_DECIDING = {"NonMaxSuppression": (0, 1), "TopK": (0,), "GridSample": (1,), "RoiAlign": (1,)}
"""Operator → the positions of inputs that say which of several is taken, or where one is read."""


def operator_of(node: Node) -> Operator | None:
    """The node's row; None for an operator the table does not know."""
    row = OPERATORS.get(node.op_type) if node.domain == "" else None
    if row is None or row.keeps_rule(node):
        return row
    return replace(row, quantized=QuantizedRule.FLOAT)


def is_weighted(node: Node) -> bool:
    """Whether the operator multiplies its input with a weight."""
    row = operator_of(node)
    return row is not None and row.quantized is QuantizedRule.WEIGHTED


def is_product(graph: Graph, node: Node) -> bool:
    """Whether it multiplies two activations as matrices, as attention does."""
    row = operator_of(node)
    return (
        row is not None
        and row.contracts
        and all(name and graph.constant(name) is None for name in map(node.input, (0, 1)))
    )


def has_weight(graph: Graph, node: Node) -> bool:
    """Whether a weighted operator multiplies by a weight, and not by an activation."""
    return is_weighted(node) and not is_product(graph, node)


def data_of(graph: Graph, node: Node) -> tuple[str, ...]:
    """The tensors at the node's data inputs, both operands of a product among them."""
    if is_product(graph, node):
        return node.input(0), node.input(1)
    row = operator_of(node)
    return () if row is None else row.data_of(node)


def deciding_inputs(node: Node) -> tuple[str, ...]:
    """The inputs whose values say which of several is taken, or which place of another is read."""
    positions = () if node.domain else _DECIDING.get(node.op_type, ())
    return tuple(filter(None, map(node.input, positions)))


def stores(node: Node) -> bool:
    """Whether the operator computes in float with weights that may be stored as numbers."""
    row = operator_of(node)
    return row is not None and bool(row.stores)


def weighted_inside(node: Node) -> int:
    """How many nodes with a weight lie in the bodies of an If, Loop or Scan."""
    bodies = [body for body in node.attributes.values() if isinstance(body, onnx.GraphProto)]
    inner = [each for body in bodies for each in nodes_in(body.node) if not each.domain]
    rows = [OPERATORS.get(each.op_type) for each in inner]
    return sum(row is not None and row.quantized is QuantizedRule.WEIGHTED for row in rows)


def needs_channels_first(graph: Graph, node: Node) -> bool:
    """Whether ONNX Runtime's CPU provider runs it only where channels lie along axis 1."""
    row = operator_of(node)
    return row is not None and row.channels_first(graph, node)


def is_trailing_norm(node: Node) -> bool:
    """Whether it normalizes along the last axes, as LayerNormalization does."""
    row = operator_of(node)
    return row is not None and row.trailing


def turns_matrix(node: Node) -> bool:
    """Whether it swaps the axes of a matrix."""
    row = operator_of(node)
    axes = row is not None and row.rearranges is Rearrangement.AXES
    return axes and list(node.attributes.get("perm", ())) == [1, 0]


def offset_rule(node: Node) -> OffsetRule:
    """What the node does with a constant added to its input."""
    row = operator_of(node)
    if row is None:
        return OffsetRule.STOPS
    pads = any(node.attributes.get("pads", ())) or b"SAME" in node.attributes.get("auto_pad", b"")
    # Only what pads with zeros is in the way: MaxPool ignores its border.
    averages = row.averages and row.quantized is QuantizedRule.OWN
    zeros = row.offset is OffsetRule.ABSORBS or averages
    return OffsetRule.STOPS if pads and zeros else row.offset


def degree(graph: Graph, node: Node) -> float | None:
    """The power of its data input that a node computes.

    2 for a square, 1 for the root of a sum of squares, 0 for a logarithm, which grows less than
    any; None where it is none of them.
    """
    row = operator_of(node)
    return row.power(graph, node) if row is not None and row.power is not None else None


CLIP, CAST = "Clip", "Cast"
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
DYNAMIC = "DynamicQuantize"
"""How the names of operators begin, ONNX's and ONNX Runtime's, that find scales as they run."""

DYNAMIC_QUANTIZE, INTEGER_PRODUCT = f"{DYNAMIC}Linear", "MatMulInteger"
_DOMAINS = frozenset({"", "com.microsoft"})


def is_quantize(node: Node) -> bool:
    return node.op_type == QUANTIZE and node.domain in _DOMAINS


def is_dequantize(node: Node) -> bool:
    return node.op_type == DEQUANTIZE and node.domain in _DOMAINS


def is_dynamic_quantize(node: Node) -> bool:
    """Whether it quantizes a tensor by the range that it has in that run."""
    return node.op_type == DYNAMIC_QUANTIZE and node.domain == ""


def is_integer_product(node: Node) -> bool:
    """Whether it multiplies matrices of integers."""
    return node.op_type == INTEGER_PRODUCT and node.domain == ""


BY_RUN_DOMAIN = "com.microsoft"
FACTORS_BY_RUN = 8
"""Where operators that take another's place (`Operator.by_run`) read scale and zero point of each
stored weight, in the order of `Operator.stores`."""

_STANDS_FOR = {row.by_run: row for row in _ROWS if row.by_run}


def stands_for(node: Node) -> Operator | None:
    """The row of the operator whose place it takes with numbers; None for any other node."""
    return _STANDS_FOR.get(node.op_type) if node.domain == BY_RUN_DOMAIN else None


QUANTIZED_NAMES = re.compile(
    r"[Qq]uantize|^QLinear|Integer|^Q(Attention|Gemm|MoE|Ordered)|NBits|Bnb4"
)
"""Names of the operators that only quantized models have, ONNX's and ONNX Runtime's."""


def is_of_quantized_models(op_type: str) -> bool:
    """Whether an operator reads, writes or makes quantized numbers."""
    return QUANTIZED_NAMES.search(op_type) is not None


def weight_layout(graph: Graph, node: Node) -> WeightLayout | Refusal:
    """The layout of the node's constant weight, or the reason it has none."""
    row = operator_of(node)
    if row is None or row.layout is None:
        return Refusal(f"{node.op_type} has no weight")
    layout = row.layout(graph, node)
    if isinstance(layout, Refusal):
        return layout
    return _contradiction(graph, node, layout) or layout


def no_numbers(graph: Graph, layout: WeightLayout) -> Refusal | None:
    """What no scale makes numbers of: NaN or infinities in a weight; None where it has none."""
    weight = graph.value(layout.weight)
    # Extremes take no memory, and are NaN where anything is.
    finite = np.isfinite([weight.min(), weight.max()]).all()
    return None if finite else Refusal("its weight holds NaN or Inf")


def _contradiction(graph: Graph, node: Node, layout: WeightLayout) -> Refusal | None:
    """What keeps the parts of a weighted node from fitting together; None if they do."""
    groups = layout.groups
    if groups < 1 or min(layout.shape, default=0) < 1:
        return Refusal("its weight is empty")
    if layout.outputs % groups or layout.inputs % groups:
        return Refusal(f"its channels do not divide into {groups} groups")
    shape, axis = graph.shape(node.input(layout.data)) or (), layout.input_axis
    channels = shape[axis] if -len(shape) <= axis < len(shape) else None
    if isinstance(channels, int) and channels != layout.inputs:
        return Refusal(f"its input has {channels} channels, its weight takes {layout.inputs}")
    bias = graph.constant(layout.bias) if layout.bias else None
    if bias is not None and bias.shape[-1:] not in {(), (1,), (layout.outputs,)}:
        return Refusal("its bias does not fit its weight")
    return None


def fused_activations(graph: Graph, node: Node) -> tuple[Node, ...]:
    """The activations behind the node that run inside its kernel, in order."""
    found: list[Node] = []
    name = node.output
    uses = graph.consumers(name)
    while len(uses) == 1 and not graph.is_exposed(name):
        row = operator_of(uses[0].node)
        if row is None or not row.fuses or uses[0].position != 0:
            break
        found.append(uses[0].node)
        name = uses[0].node.output
        uses = graph.consumers(name)
    return tuple(found)


def kernel_output(graph: Graph, node: Node) -> str:
    """What the node's kernel writes once the activations behind it are fused into it."""
    fused = fused_activations(graph, node)
    return fused[-1].output if fused else node.output


def activation_bounds(graph: Graph, activation: Node) -> tuple[float, float] | None:
    """Interval to which a fusing activation limits its result; None where only run time tells."""
    row = operator_of(activation)
    clips = row is not None and row.scale is ScaleRule.CLIP
    return clip_bounds(graph, activation) if clips else (0.0, math.inf)


def saturated_output(graph: Graph, node: Node) -> str:
    """The same once constant bounds behind it, one for each channel, have been applied too."""
    name = kernel_output(graph, node)
    uses = graph.consumers(name)
    while len(uses) == 1 and not graph.is_exposed(name) and _bound(graph, uses[0].node) is not None:
        name = uses[0].node.output
        uses = graph.consumers(name)
    return name


def _bound(graph: Graph, node: Node) -> NDArray[Any] | None:
    """The constant operand of a Min or Max of two; None for any other node."""
    row = operator_of(node)
    if row is None or not row.limits or len(node.inputs) != 2:
        return None
    found = [value for name in node.inputs if (value := graph.constant(name)) is not None]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Limit:
    """One number that keeps a tensor from falling below it (`lower`) or from exceeding it.

    Attributes:
        position: which input of the node is the tensor.
    """

    value: float
    lower: bool
    position: int


def limit(graph: Graph, node: Node) -> Limit | None:
    """What a Min or Max with one constant number limits; None for any other node."""
    row, bound = operator_of(node), _bound(graph, node)
    if row is None or bound is None or bound.size != 1 or not graph.is_float(node.output):
        return None
    position = 0 if graph.constant(node.input(0)) is None else 1
    # One with more axes than the tensor would add axes to it.
    if bound.ndim > (graph.rank(node.input(position)) or 0) or not math.isfinite(bound.item()):
        return None
    return Limit(float(bound.item()), row.limits > 0, position)


def saturation(graph: Graph, node: Node) -> NDArray[Any] | None:
    """Value at which the node's output stops following its input, from below; None for none.

    Returns:
        One number (1,), or an array that broadcasts to the output.
    """
    row = operator_of(node)
    if row is not None and row.scale is ScaleRule.CLIP:
        bounds = clip_bounds(graph, node)
        return None if bounds is None or math.isinf(bounds[1]) else np.array([bounds[1]])
    return _bound(graph, node)


def fused_bounds(graph: Graph, node: Node) -> tuple[float, float]:
    """Interval to which the activations fused behind the node limit its output; ±∞ for none."""
    low, high = -math.inf, math.inf
    for activation in fused_activations(graph, node):
        bounds = activation_bounds(graph, activation)
        if bounds is not None:
            low, high = max(low, bounds[0]), min(high, bounds[1])
    return low, high


def rearranged(graph: Graph, name: str) -> tuple[list[str], Node | None]:
    """The tensors that hold the same elements as this one, from it on back, and the node that
    computes the first of them; None where that is an input.
    """
    path, node = [name], graph.producers.get(name)
    while node is not None and (row := operator_of(node)) is not None and row.keeps_elements:
        path.append(node.input(0))
        node = graph.producers.get(path[-1])
    return path, node


def depends_on_batch(graph: Graph, node: Node) -> bool:
    """Whether a sample's bits may depend on how many samples ONNX Runtime computes at once.

    True of operators without a row, of which nothing is known, where they compute with floats.
    A scalar holds no samples, whatever is made of it, such as the places of a detector's anchors.
    """
    if not _has_float(graph, node.outputs) or not _has_float(graph, node.inputs):
        return False
    if all(graph.rank(name) == 0 for name in node.inputs if name):
        return False
    row = operator_of(node)
    if row is None:
        return not (is_quantize(node) or is_dequantize(node) or node.op_type == CAST)
    # A constant matrix is packed in advance, and a stack of matrices has one for each sample. By
    # any other one few rows are multiplied by kernels of their own.
    rank = graph.rank(node.input(1)) or 0
    matrix = row.layout in {_gemm, _matmul} and not graph.is_constant(node.input(1)) and rank < 3
    return row.batch_dependent or matrix


def _has_float(graph: Graph, names: Iterable[str]) -> bool:
    kinds = (graph.elem_type(name) for name in names if name)
    return any(
        not kind or onnx.helper.tensor_dtype_to_np_dtype(kind).kind not in "iub" for kind in kinds
    )
