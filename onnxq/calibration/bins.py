"""Fixed histogram bins: the leading bits of a float32 are the bin's number.

A magnitude's bin is its exponent and the top 5 bits of its mantissa: 32 bins an octave, whatever
the data. So one pass is enough, histograms add exactly, and multiplying values by 2^k shifts their
histogram by 32·k bins without error: the calibration of an equalized model follows from that of
the original.

A histogram row has `tiny` (|x| < 2^FLOOR, zero included), then the positive bins of
[2^FLOOR, 2^top), then the negative ones. NaN and infinities are counted apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS_PER_OCTAVE = 32
FLOOR = -32
"""Exponent of the smallest magnitude told from zero: far below any step that matters."""
CEILING = 128
"""Exponent above every finite float32."""

Counts = NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.int64]

SCHEMA = f"float32-leading-bits/{BINS_PER_OCTAVE}/{FLOOR}"
"""Names the bins in calibration files; files of another schema are refused."""


def magnitude_bins(top: int) -> int:
    """Number of bins of one sign below 2^top."""
    return (top - FLOOR) * BINS_PER_OCTAVE


def top_of(largest: float) -> int:
    """Smallest window top, an exponent, that holds the finite magnitude `largest`."""
    if largest < 2.0**FLOOR:
        return FLOOR + 1
    return int(np.frexp(np.float32(largest))[1])


@lru_cache(maxsize=256)
def lookup_table(top: int) -> NDArray[np.intp]:
    """Column in a histogram row for each high half-word of a float32 (65,536 entries).

    The high half-word is sign, exponent and 7 bits of mantissa. The column after the last is for
    NaN and infinities.
    """
    half = np.arange(1 << 16, dtype=np.int64)
    negative = half >> 15
    # 7 mantissa bits → 5: drop two.
    magnitude = ((half & 0x7FFF) >> 2) - (FLOOR + 127) * BINS_PER_OCTAVE
    width = magnitude_bins(top)
    column = np.where(magnitude < 0, 0, 1 + negative * width + np.minimum(magnitude, width - 1))
    not_finite = (half & 0x7F80) == 0x7F80
    return np.where(not_finite, 1 + 2 * width, column).astype(np.intp)


def edges(top: int) -> NDArray[np.float64]:
    """The magnitude_bins(top) + 1 edges of the positive bins, ascending."""
    octave = 1 + np.arange(BINS_PER_OCTAVE) / BINS_PER_OCTAVE
    exponents = np.arange(FLOOR, top)
    inner = np.exp2(exponents)[:, None] * octave[None, :]
    return np.append(inner.ravel(), np.exp2(top))


def centers(top: int) -> NDArray[np.float64]:
    """The centers of the positive bins, ascending."""
    ends = edges(top)
    result: NDArray[np.float64] = (ends[:-1] + ends[1:]) / 2
    return result


def column_values(top: int) -> NDArray[np.float64]:
    """The value that each column of a histogram row stands for: 0, or the center of its bin."""
    middle = centers(top)
    return np.concatenate([[0.0], middle, -middle])


def high_half(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The leading 16 bits of each float32, as a copy of the same shape."""
    words = np.ascontiguousarray(values).view(np.uint16)
    # On a little-endian machine the high half-word comes second.
    offset = 1 if np.little_endian else 0
    return words.reshape(*values.shape, 2)[..., offset].copy()


def write_codes(values: NDArray[np.float32], out: NDArray[np.uint16]) -> None:
    """Write the code of each value: its leading 14 bits, sign, exponent and 5 bits of mantissa."""
    np.right_shift(values.view(np.uint32), 18, out=out, casting="unsafe")


@lru_cache(maxsize=256)
def code_table(top: int) -> NDArray[np.intp]:
    """Column in a histogram row for each code (16,384 entries)."""
    return np.ascontiguousarray(lookup_table(top)[::4])


CODES = 1 << 14
"""Codes that there are."""


def by_column(sums: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """Sums over the values of each code (…, CODES) as those of each column of a histogram row.

    What lies above the window belongs to its last bin; NaN and infinities are left out.
    """
    width, first = magnitude_bins(top), (FLOOR + 127) * BINS_PER_OCTAVE
    last = (CEILING + 127) * BINS_PER_OCTAVE
    signs = sums.reshape(*sums.shape[:-1], 2, CODES // 2)
    result = np.empty((*sums.shape[:-1], 1 + 2 * width))
    result[..., 0] = signs[..., :first].sum(axis=(-2, -1))
    bins = result[..., 1:].reshape(*sums.shape[:-1], 2, width)
    bins[...] = signs[..., first : first + width]
    bins[..., -1] += signs[..., first + width : last].sum(axis=-1)
    return result


def narrowest(counts: NDArray[Any]) -> Counts:
    """The counts in 16 or 32 bits, where every row's sum fits: histograms fill the memory.

    What has that width already is not copied.
    """
    if counts.dtype == np.uint16:
        return counts
    largest = int(counts.sum(axis=1).max(initial=0))
    if largest <= np.iinfo(np.uint16).max:
        return counts.astype(np.uint16)
    if largest <= np.iinfo(np.int32).max:
        return counts.astype(np.int32, copy=False)
    return counts.astype(np.int64, copy=False)


def regrow(counts: NDArray[Any], old: int, new: int) -> NDArray[Any]:
    """The same rows in the wider window [2^FLOOR, 2^new); columns after the bins stay last."""
    if new == old:
        return counts
    width, wider = magnitude_bins(old), magnitude_bins(new)
    result = np.zeros((len(counts), counts.shape[1] + 2 * (wider - width)), counts.dtype)
    result[:, : 1 + width] = counts[:, : 1 + width]
    result[:, 1 + wider : 1 + wider + width] = counts[:, 1 + width : 1 + 2 * width]
    result[:, 1 + 2 * wider :] = counts[:, 1 + 2 * width :]
    return result


def shift(counts: Counts, top: int, exponents: NDArray[np.int64]) -> tuple[Counts, int]:
    """Rows and window top of the histogram of 2^exponents[c] · x, exact down to 2^FLOOR."""
    new_top = min(top + max(0, int(exponents.max(initial=0))), CEILING)
    grown = regrow(counts, top, new_top)
    width = magnitude_bins(new_top)
    result = np.zeros_like(grown)
    for octave in np.unique(exponents):
        step = BINS_PER_OCTAVE * int(octave)
        here = np.flatnonzero(exponents == octave)[:, None]
        target = np.arange(max(step, 0), min(width + step, width))
        for start in (1, 1 + width):
            result[here, start + target] = grown[here, start + target - step]
    result[:, 0] = grown.sum(axis=1) - result[:, 1:].sum(axis=1)
    return result, new_top
