"""Weights of every weighted operator in one form, output-major.

A weighted node computes, in each of its groups, y[o] = Σ_j Σ_k W[o, j, k] · x[j](k) + b[o]. Its
weight is brought to shape (outputs, inputs of one group, taps); all of equalization, quantization
and bias correction works on that form, whatever the operator's own storage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class WeightLayout:
    """How a node stores its weight, and where its channels lie in its input and output.

    Attributes:
        weight, bias: tensor names; `bias` is "" where there is none.
        data, weight_position, bias_position: where the node reads them; the last is the place of
            the bias also where there is none.
        shape: stored shape of the weight.
        groups: number of groups; output o belongs to group o // (outputs / groups).
        input_axis, output_axis: channel axis of the activation and of the output, counted from
            the end where negative.
        channel_axis: axis of the stored weight that DequantizeLinear calls its axis when the
            weight is quantized per output channel (for ConvTranspose each index serves one
            output of every group).
        transposed, output_last: how the weight is stored: (inputs, outputs of one group, taps…) or
            (taps…, inputs, outputs) instead of (outputs, inputs of one group, taps…).
        takes_bias: whether the operator has an input for one.
    """

    weight: str
    bias: str
    data: int
    weight_position: int
    shape: tuple[int, ...]
    groups: int
    input_axis: int
    output_axis: int
    channel_axis: int
    transposed: bool = False
    output_last: bool = False
    takes_bias: bool = True
    bias_position: int = 2

    @property
    def outputs(self) -> int:
        if self.transposed:
            return self.shape[1] * self.groups
        return self.shape[-1] if self.output_last else self.shape[0]

    @property
    def inputs(self) -> int:
        """Input channels over all groups."""
        if self.transposed:
            return self.shape[0]
        return self.shape[-2] if self.output_last else self.shape[1] * self.groups

    @property
    def is_matrix(self) -> bool:
        """Whether it multiplies as a matrix, or a stack of them, and not as a convolution."""
        return self.output_last or len(self.shape) == 2

    @property
    def per_channel(self) -> bool:
        """Whether kernels take a scale for each channel: those of a stack of matrices do not."""
        return not self.output_last or len(self.shape) == 2

    @property
    def block_axis(self) -> int | None:
        """The axis of the inputs of a stored matrix, along which blocks lie; None for the rest.

        ONNX Runtime has kernels for blocks in matrices alone, and dequantizes other weights whole.
        """
        if len(self.shape) != 2 or self.transposed or self.groups != 1:
            return None
        return 0 if self.output_last else 1

    @property
    def taps(self) -> int:
        if self.output_last:
            return math.prod(self.shape[:-2])
        return math.prod(self.shape[2:])

    @property
    def columns(self) -> int:
        """Numbers that make up one output: inputs per group times taps."""
        return self.inputs // self.groups * self.taps

    def to_output_major(self, weight: Array) -> Array:
        """Stored weight → (outputs, inputs per group, taps)."""
        groups, per_group = self.groups, self.inputs // self.groups
        if self.transposed:
            split = weight.reshape(groups, per_group, self.outputs // groups, self.taps)
            return split.transpose(0, 2, 1, 3).reshape(self.outputs, per_group, self.taps)
        if self.output_last:
            return weight.reshape(self.taps, self.inputs, self.outputs).transpose(2, 1, 0)
        return weight.reshape(self.outputs, per_group, self.taps)

    def from_output_major(self, weight: Array) -> Array:
        """(outputs, inputs per group, taps) → stored weight; the inverse of `to_output_major`."""
        groups, per_group = self.groups, self.inputs // self.groups
        if self.transposed:
            split = weight.reshape(groups, self.outputs // groups, per_group, self.taps)
            stored = split.transpose(0, 2, 1, 3)
        elif self.output_last:
            stored = weight.transpose(2, 1, 0)
        else:
            stored = weight
        return np.ascontiguousarray(stored.reshape(self.shape))

    def of_inputs(self, count: int) -> WeightLayout:
        """The layout of a weight that reads `count` of the inputs only (without groups)."""
        shape = list(self.shape)
        shape[0 if self.transposed else -2 if self.output_last else 1] = count
        return replace(self, shape=tuple(shape))

    def of_outputs(self, count: int) -> WeightLayout:
        """The layout of a weight that makes `count` outputs instead."""
        shape = list(self.shape)
        if self.transposed:
            shape[1] = count // self.groups
        else:
            shape[-1 if self.output_last else 0] = count
        return replace(self, shape=tuple(shape))

    def bias_vector(self, bias: Array) -> Array | None:
        """The bias as (outputs,); None for a Gemm's that differs from row to row."""
        if bias.ndim > 1 and bias.size != bias.shape[-1]:
            return None
        return np.broadcast_to(bias.ravel(), (self.outputs,))

    def scaled(self, weight: Array, rows: Array, columns: Array) -> Array:
        """A weight (outputs, inputs per group, taps), by rows (outputs,) over columns (inputs,)."""
        by_group = weight.reshape(self.groups, -1, *weight.shape[1:])
        result = by_group * rows.reshape(self.groups, -1, 1, 1)
        result /= columns.reshape(self.groups, 1, -1, 1)
        return result.reshape(weight.shape)

    def input_index(self) -> Array:
        """(outputs, inputs per group): which input channel W[o, j] multiplies."""
        per_group = self.inputs // self.groups
        group = np.arange(self.outputs) // (self.outputs // self.groups)
        return group[:, None] * per_group + np.arange(per_group)[None, :]
