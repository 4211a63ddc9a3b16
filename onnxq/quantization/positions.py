"""Which output positions of each sample a layer's moments are taken at: evenly spaced real ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.weights import WeightLayout

Array = NDArray[Any]
Index = NDArray[np.int64]

POSITIONS = 64
"""Output positions looked at in each sample; their neighbours tell little that is new. On the
halves of the reference case's calibration images 128 and 256 gave no more, 32 gave 0.2 dB less."""

GOLDEN = (math.sqrt(5) - 1) / 2


def positions(
    first: int, samples: int, count: int, real: NDArray[np.bool_] | None
) -> Iterator[tuple[Index, Index]]:
    """Samples, by their index, and the positions of each: (samples,) and (samples, chosen).

    Samples with another number of positions are apart, those without any left out.

    Args:
        first: number of the first sample.
        count: positions of each.
        real: (samples, count), those that are no padding; None for all.
    """
    rows = np.arange(samples)
    if real is None:
        yield rows, spread(first + rows, count)
        return
    counts = real.sum(axis=1)
    for number in np.unique(counts[counts > 0]).tolist():
        some = np.flatnonzero(counts == number)
        places = np.stack([np.flatnonzero(real[row]) for row in some])
        yield some, np.take_along_axis(places, spread(first + some, number), axis=1)


def spread(samples: Index, count: int) -> Index:
    """(samples, chosen): evenly spaced positions out of `count`, others in each sample."""
    chosen = min(count, POSITIONS)
    offset = (samples * GOLDEN) % 1
    index = (np.arange(chosen) + offset[:, None]) * (count / chosen)
    return np.minimum(index.astype(np.int64), count - 1)


def roots_of(weights: NDArray[np.float32], index: Index) -> NDArray[np.float32]:
    """Roots of what some positions count: (samples, chosen), out of (samples, positions)."""
    return np.asarray(np.sqrt(np.take_along_axis(weights, index, axis=1)))


def by_position(
    real: Array | None, shape: tuple[int, ...], layout: WeightLayout
) -> NDArray[np.bool_] | None:
    """Which positions of a layer's output are no padding: (samples, positions); None for all.

    Args:
        real: an array that the output's shape broadcasts with.
    """
    if real is None:
        return None
    rows = np.moveaxis(np.broadcast_to(real, shape), layout.output_axis, 1)[:, 0]
    return np.asarray(rows.reshape(len(rows), -1))
