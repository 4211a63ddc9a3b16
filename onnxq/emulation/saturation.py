"""Pairs of products that a machine without VNNI adds up in 16 bits, where they saturate.

Its instruction (vpmaddubsw) multiplies unsigned bytes of activations by signed ones of weights,
adds each product to its neighbour's and keeps 16 bits. Neighbours are as kernels pack a layer's
inputs: two by two through the channels of one tap after the other. Depthwise convolutions have
kernels of their own, which widen first. Activations count from the lowest number of their format,
not from the zero point, also in the padding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxq.emulation.layers import PairSums
from onnxq.formats.accumulators import pair_sums_of
from onnxq.formats.table import BYTE, Format
from onnxq.model.weights import WeightLayout

Integers = NDArray[np.int64]


def pair_sums(
    layout: WeightLayout, integers: Integers, data: Format, weight: Format, zero: int
) -> PairSums | None:
    """The pairs of a layer that may saturate; None where such a machine adds exactly.

    Args:
        integers: the weight, (outputs, inputs per group, taps).
        zero: what the data are less than the bytes that are multiplied.
    """
    limits = pair_sums_of(data, weight)
    depthwise = layout.groups > 1 and layout.groups == layout.inputs == layout.outputs
    if limits is None or layout.transposed or depthwise:
        return None
    outputs, inputs, taps = integers.shape
    row = integers.transpose(0, 2, 1).reshape(outputs, -1).astype(np.int64)
    two = np.pad(row, ((0, 0), (0, row.shape[1] % 2))).reshape(outputs, -1, 2)
    largest = (1 << BYTE) - 1
    high, low = (largest * end(two, 0).sum(axis=2) for end in (np.maximum, np.minimum))
    owner, pair = np.nonzero((high > limits.highest) | (low < limits.lowest))
    # Groups of a convolution have as many pairs each, some of them of zeros.
    group = owner // (outputs // layout.groups)
    place = np.arange(len(owner)) - np.searchsorted(group, group)
    room = int(np.bincount(group, minlength=1).max(initial=0))
    weights = np.zeros((layout.groups * room, two.shape[1], 2), np.float32)
    weights[group * room + place, pair] = two[owner, pair]
    flat = weights.reshape(len(weights), 2 * two.shape[1])[:, : inputs * taps]
    members = np.zeros((outputs, room), np.float32)
    members[owner, place] = 1
    spatial = 0 if layout.output_last else len(layout.shape) - 2
    by_output = flat.reshape(len(flat), taps, inputs).transpose(0, 2, 1)
    return PairSums(
        layout.of_outputs(len(flat)).from_output_major(by_output),
        np.asarray((zero * flat.sum(axis=1)).reshape(-1, *[1] * spatial), np.float32),
        members.reshape(outputs, room, *[1] * spatial) if spatial else members.T,
        layout.groups, limits, two.shape[1],
    )  # fmt: skip
