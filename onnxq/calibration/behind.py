"""The error of a range behind what reads the tensor.

With f what all readers of a tensor make of its values together, a range [l, u] of n levels, step
Δ = (u − l)/(n − 1), costs at power p, to be summed over the values x,

    |f'(x)|^p · min((Δ/2)^p/(p + 1), |x|^p)  +  |f(x) − f(min(max(x, l), u))|^p.

The first term is the mean p-th power of a rounding error, which is uniform over a step and never
larger than the value; the second is what clipping changes, as the finite difference that it is.
With f the identity and p = 2 that is the expected squared error.

Where f is flat the second term counts `ALIKE` times: clipping adds the same small number to most
positions of a map, which adds up behind it as rounding does not, and a little room costs next to
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.ranges import Distribution, Range

Floats = NDArray[np.float64]

FLAT = 0.1
"""Slope up to which a function is flat, as a SiLU is from −0.9 down."""

ALIKE = 64
"""What errors count that many positions have alike."""


@dataclass(frozen=True)
class Part:
    """Values of one tensor, or of several that are read alike, as their readers see them.

    Attributes:
        values: one for each bin, ascending (bins,).
        counts: how many there are of each, weighted (bins,).
        slope: |f'| at each (bins,), or (1,) for all.
        image: f at each (bins,); None where f is slope · x at each.
    """

    values: Floats
    counts: Floats
    slope: Floats
    image: Floats | None = None


Loss = Callable[[Range], float]


def plain(data: Distribution) -> Part:
    """Values that are read as they are."""
    return part_of(data.values, data.counts, np.ones(1))


def part_of(values: Floats, counts: Floats, slope: Floats, image: Floats | None = None) -> Part:
    """The same of bins in any order."""
    order = np.argsort(values, kind="stable")
    return Part(
        values[order], counts[order], np.abs(slope[order] if slope.size > 1 else slope),
        None if image is None else image[order],
    )  # fmt: skip


def loss_of(parts: Sequence[Part], levels: int, power: int = 2) -> Loss:
    """What a range costs all these values together.

    Args:
        levels: number of quantization levels.
        power: p, 2 or more.
    """
    losses = [_loss(part, levels, power) for part in parts]
    return lambda candidate: sum(loss(candidate) for loss in losses)


def _loss(part: Part, levels: int, power: int) -> Loss:
    values, counts, image = part.values, part.counts, part.image
    slopes = part.slope**power * counts
    magnitudes = np.abs(values) ** power
    clipped = counts if image is None else np.where(part.slope < FLAT, ALIKE, 1) * counts

    def moved(bins: slice, end: float) -> float:
        """What the values beyond an end of the range cost."""
        if image is not None:
            return float(
                clipped[bins] @ np.abs(image[bins] - np.interp(end, values, image)) ** power
            )
        return float(slopes[bins] @ np.abs(values[bins] - end) ** power)

    def loss(candidate: Range) -> float:
        low, high = candidate
        rounding = ((high - low) / (levels - 1) / 2) ** power / (power + 1)
        inside = float(slopes @ np.minimum(rounding, magnitudes))
        below, above = np.searchsorted(values, low), np.searchsorted(values, high, side="right")
        return inside + moved(slice(0, below), low) + moved(slice(above, None), high)

    return loss
