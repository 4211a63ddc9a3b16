"""How far an SQNR may be off, from how much samples differ: the jackknife's standard error.

The samples are dealt to 64 buckets in turn, and each bucket is left out once. Up to 64 samples each
has a bucket to itself; of more, groups are left out. So memory does not grow with the samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BUCKETS = 64
"""Parts of the samples that are left out one at a time."""


def dealt(values: Array, start: int = 0) -> Array:
    """(…, buckets): each sample's values on the last axis, added up by bucket.

    Args:
        values: (…, samples).
        start: number of the first sample.
    """
    found = np.zeros((BUCKETS, *values.shape[:-1]))
    places = (start + np.arange(values.shape[-1])) % BUCKETS
    np.add.at(found, places, np.moveaxis(values, -1, 0))
    return np.moveaxis(found, 0, -1)


def joined(first: Array, second: Array, samples: int) -> Array:
    """Two parts of the data together, the first of which has so many samples."""
    return np.asarray(first + np.roll(second, samples % BUCKETS, axis=-1))


def standard_error(signal: Array, noise: Array, counts: Array) -> float:
    """The jackknife's standard error of 10·log₁₀(Σ signal / Σ noise), dB.

    NaN where it cannot be told: of one sample, without noise, or if one sample has all of it.

    Args:
        signal, noise, counts: powers, and samples, by bucket.
    """
    there = counts > 0
    groups = int(there.sum())
    if groups < 2:
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        left = 10 * np.log10(_without_each(signal[there]) / _without_each(noise[there]))
    if not np.isfinite(left).all():
        return math.nan
    return float(np.sqrt((groups - 1) / groups * np.square(left - left.mean()).sum()))


def _without_each(values: Array) -> Array:
    """The sum of all but each; added up, not subtracted, which would leave rounding errors."""
    before = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    behind = np.concatenate([np.cumsum(values[::-1])[:-1][::-1], [0.0]])
    return np.asarray(before + behind)
