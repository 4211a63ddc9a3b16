"""Which positions of a tensor are counted: all, or every so many-th where there are plenty.

A histogram of some ten thousand values of each channel tells what one of millions tells, above
all as neighbours in a feature map are alike. So of a tensor with many positions a fixed pattern of
them is counted. What it is depends on the tensor's shape and on the number of samples in the data
only, so that neither order nor batches nor shards matter. Extremes, NaN and Inf are those of all
values in any case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxq.model.model import Dimension

ENOUGH = 1 << 16
"""Values of each channel above which fewer positions are counted."""

PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
"""A prime that divides no side of a map, and is no longer than one, visits every row and column."""


def step_of(shape: Sequence[Dimension] | None, axis: int | None, samples: int | None) -> int:
    """Count every so many-th position of a tensor; 1 for all of them.

    Args:
        shape: with the samples along its first axis.
        axis: of the channels. Without it all are counted: no pattern is known to be fair.
        samples: number of samples in the data; None where unknown.
    """
    if shape is None or axis is None or axis == 0 or samples is None:
        return 1
    sides = sides_of(shape, axis)
    if not sides or not all(isinstance(side, int) for side in shape[1:]):
        return 1
    known = [side for side in sides if isinstance(side, int)]
    per_sample = [int(side) for side in shape[1:] if isinstance(side, int)]
    needed = samples * (math.prod(per_sample) // max(per_sample[axis - 1], 1)) / ENOUGH
    if needed <= 1:
        return 1
    fitting = [
        prime
        for prime in PRIMES
        if prime * prime <= math.prod(known) and all(side % prime or side == 0 for side in known)
    ]
    return next((prime for prime in fitting if prime >= needed), fitting[-1] if fitting else 1)


def sides_of(shape: Sequence[Dimension], axis: int) -> Sequence[Dimension]:
    """The axes along which positions are left out: those after the channels, else those before."""
    after = [side for side in shape[axis + 1 :] if side != 1]
    return after or [side for side in shape[1:axis] if side != 1]
