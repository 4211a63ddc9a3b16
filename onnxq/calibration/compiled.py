"""The loops over all values, compiled by numba where it is installed (`pip install 'onnxq[fast]'`).

They give the bits that the numpy ways give, in half the time: each value is read from memory once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins

LANES = 128
"""Numbers that the inner loops go through, or more."""

Array = NDArray[Any]
Codes = NDArray[np.uint16]


@dataclass(frozen=True)
class Loops:
    """The compiled loops.

    Attributes:
        take_values: see `_take`.
        count_codes: see `_count`.
    """

    take_values: Callable[[Array, Array, Array, Array, int, int, Codes], None]
    count_codes: Callable[[Codes, NDArray[np.uint16], Array], None]

    def take(
        self, values: NDArray[np.float32], step: int, codes: Codes
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Smallest and largest value of each channel (channels,); writes the codes of some.

        Where a value is NaN or infinite, one of the two is no finite number.

        Args:
            values: (repeats, outer, positions, inner); a channel is an (outer, inner).
            step: every so many-th position is coded.
            codes: room for them (outer, repeats·positions coded, inner).
        """
        repeats, outer, _, inner = values.shape
        lanes = inner * max(1, LANES // inner)
        least = np.full((outer, lanes), np.iinfo(np.int32).max, np.int32)
        most = np.full((outer, lanes), np.iinfo(np.int32).min, np.int32)
        farthest = np.zeros((outer, lanes), np.uint32)
        words = values.reshape(repeats, outer, -1).view(np.int32)
        self.take_values(words, least, most, farthest, step, inner, codes.reshape(outer, -1))
        each = outer, -1, inner
        return _extremes(
            least.reshape(each).min(axis=1).ravel(), most.reshape(each).max(axis=1).ravel(),
            farthest.reshape(each).max(axis=1).ravel(),
        )  # fmt: skip

    def count(self, codes: Codes, counts: Array, top: int) -> None:
        """`onnxq.calibration.count.add_counts`."""
        self.count_codes(codes, _columns(top), counts)


@lru_cache(maxsize=1)
def loops() -> Loops | None:
    """The compiled loops; None where numba is not installed or cannot be used."""
    try:
        import numba
    except ImportError:  # it also raises this for a numpy that is too new for it
        return None
    for cache in (True, False):
        compiled = numba.njit(nogil=True, cache=cache)
        try:
            return Loops(compiled(_take), compiled(_count))
        except RuntimeError:  # no folder to keep the machine code in
            continue
    return None


@lru_cache(maxsize=256)
def _columns(top: int) -> NDArray[np.uint16]:
    """`bins.code_table` in a quarter of the memory: it should stay in the cache."""
    return bins.code_table(top).astype(np.uint16)


def _extremes(
    least: NDArray[np.int32], most: NDArray[np.int32], farthest: NDArray[np.uint32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The smallest and largest number, from the extremes of the words as integers.

    A float32 is a sign and a magnitude. So positive ones are in the order of their words, negative
    ones in the opposite order, and as unsigned integers the negative ones come last.
    """
    smallest = np.where(farthest >> 31 == 1, farthest, least.view(np.uint32))
    largest = np.where(most >= 0, most, least)
    return smallest.view(np.float32), largest.view(np.float32)


def _take(
    words: Array, least: Array, most: Array, farthest: Array, step: int, inner: int, codes: Codes
) -> None:
    """Update the extremes of the words of float32 numbers, and write codes.

    Args:
        words: int32 (repeats, outer, positions·inner).
        least, most: of the words; farthest: of the words as uint32. Each (outer, lanes), a
            multiple of `inner` and so long that a processor's vector units are busy.
        codes: (outer, repeats·positions coded·inner).
    """
    repeats, outer, size = words.shape
    lanes = least.shape[1]
    stride, first = step * inner, step // 2 * inner
    runs, length = ((size - first + stride - 1) // stride, inner) if step > 1 else (1, size)
    for repeat in range(repeats):
        for block in range(outer):
            plane, low, high, far = words[repeat, block], least[block], most[block], farthest[block]
            for start in range(0, size, lanes):
                part = plane[start : start + lanes]
                for lane in range(part.size):
                    word = part[lane]
                    low[lane] = min(low[lane], word)
                    high[lane] = max(high[lane], word)
                    far[lane] = max(far[lane], np.uint32(word))
            # Its values are still in the cache.
            for run in range(runs):
                part = plane[first + run * stride :]
                out = codes[block, (repeat * runs + run) * length :]
                for lane in range(length):
                    out[lane] = (part[lane] >> 18) & 0x3FFF


def _count(codes: Codes, columns: NDArray[np.uint16], counts: Array) -> None:
    outer, positions, inner = codes.shape
    for block in range(outer):
        block_codes = codes[block]
        if inner == 1:
            row = counts[block]
            for position in range(positions):
                row[columns[block_codes[position, 0]]] += 1
        else:
            for position in range(positions):
                for lane in range(inner):
                    counts[block * inner + lane, columns[block_codes[position, lane]]] += 1
