"""What nodes of a QDQ model become in the integer machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.emulation.bounds import Reach
from onnxq.formats.accumulators import Accumulator, Digit
from onnxq.formats.table import Uniform
from onnxq.model.operators import IntegerForm
from onnxq.model.qdq import Quantization
from onnxq.model.status import Float


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
        digit: of the data, which it multiplies.
    """

    integers: NDArray[np.float32]
    channels: tuple[int, int] | None
    axis: int
    digit: Digit


@dataclass(frozen=True)
class PairSums:
    """Sums of two products each that saturate, as part of a sum of products.

    Attributes:
        weight: of one output a pair, in stored layout; what may not saturate is left out.
        offset: added to what that gives: the data count from the lowest byte.
        members: weight that adds each output's pairs up, of a Conv of one tap or a MatMul.
        groups: of that Conv.
        limits: of a sum.
        count: pairs of an output in all.
    """

    weight: NDArray[np.float32]
    offset: NDArray[np.float32]
    members: NDArray[np.float32]
    groups: int
    limits: Uniform
    count: int

    @property
    def some(self) -> bool:
        """Whether any may saturate."""
        return self.members.size > 0


@dataclass(frozen=True)
class Accumulation:
    """A weighted node, or a MatMul of two activations: Σ w·x + b in the accumulator.

    Attributes:
        data: the activations; the second one stands in for a weight.
        parts: the weight, cut so that float32 holds the sums of each part; empty for two
            activations.
        step: value of one step of the sum, float32: data scale × weight scale.
        bias: whole numbers added to the sum; None where there is none.
        float_bias: float32, added after the sum is dequantized; None where there is none.
            All three are shaped to broadcast along the output's last axes.
        reach: where the sum, bias included, can get; from the weights.
        accumulator: what the sum is computed in.
        requantization: None where the result is a float tensor.
        pairs: what saturates, on a machine whose sums of pairs do.
    """

    data: tuple[Quantization, ...]
    parts: tuple[WeightPart, ...]
    step: NDArray[np.float32]
    bias: NDArray[np.int32] | None
    float_bias: NDArray[np.float32] | None
    reach: Reach
    accumulator: Accumulator
    requantization: Requantization | None
    pairs: PairSums | None = None
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
class IntegerProduct:
    """A MatMulInteger: Σ (x − zero point) · w in the accumulator, which is its result.

    Attributes:
        data, zero_point: tensors of integers; the latter is "" where there is none.
        parts: the weight less its zero point, cut so that float32 holds the sums of each part.
        reach: where the sum can get.
        pairs: as of an `Accumulation`.
    """

    data: str
    zero_point: str
    parts: tuple[WeightPart, ...]
    reach: Reach
    accumulator: Accumulator
    requantization: None = None
    pairs: PairSums | None = None
    form: IntegerForm = IntegerForm.ACCUMULATE


@dataclass(frozen=True)
class AsWritten:
    """Integers in, integers out, computed as Q/DQ says: dequantize, apply, round once."""

    form: IntegerForm
    fused: tuple[str, ...] = ()
    format: str = ""


@dataclass(frozen=True)
class Fused:
    """An activation that is part of another node's kernel."""

    into: str


Integer = Accumulation | Product | Average | IntegerProduct
Status = Integer | AsWritten | Fused | Float
