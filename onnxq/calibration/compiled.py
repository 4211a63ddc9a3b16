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
"""Numbers that the inner loops go through, or more, to keep vector units busy."""

WHOLE = 256
"""Numbers of a feature map up to which the inner loops go through all of it."""

LARGEST = np.int32(np.iinfo(np.int32).max)
SMALLEST = np.int32(np.iinfo(np.int32).min)
INFINITY = np.int32(np.float32(np.inf).view(np.int32))
MINUS_INFINITY = np.int32(-1 - INFINITY)
"""In the order of `_take`, where INFINITY is what it is."""

Array = NDArray[Any]
Codes = NDArray[np.uint16]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Loops:
    """The compiled loops.

    Attributes:
        take_values: see `_take`.
        count_codes: see `_count`.
    """

    take_values: Callable[[Array, int, int, Codes, int, Array, Array, Array], bool]
    count_codes: Callable[[Codes, int, NDArray[np.uint16], Array], None]

    def take(
        self, values: Floats, step: int, codes: Codes, filled: int, minimum: Floats,
        maximum: Floats, half: Floats,
    ) -> bool:  # fmt: skip
        """Update extremes, in place, and write the codes of some values; whether all are finite.

        Where one is not, the extremes stay as they were.

        Args:
            values: (repeats, outer, positions, inner); a channel is an (outer, inner).
            step: every so many-th position is coded.
            codes: room for them (outer, positions, inner), of which the first `filled` are taken.
            minimum, maximum: of each channel (channels,).
            half: smallest and largest of all.
        """
        repeats, outer, _, inner = values.shape
        words = values.reshape(repeats, outer, -1).view(np.int32)
        return self.take_values(
            words, step, inner, codes.reshape(outer, -1), filled, minimum, maximum, half
        )

    def count(self, codes: Codes, filled: int, counts: Array, top: int) -> None:
        """`onnxq.calibration.count.add_counts` of the first `filled` codes of each channel."""
        self.count_codes(codes, filled, _columns(top), counts)


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


def _take(
    words: Array, step: int, inner: int, codes: Codes, filled: int, minimum: Floats,
    maximum: Floats, half: Floats,
) -> bool:  # fmt: skip
    """`Loops.take` of the words of float32 numbers, as int32 (repeats, outer, positions·inner).

    A float32 is a sign and a magnitude. With the magnitude's bits turned over where it is negative,
    the words as integers are in the order of the numbers; turned over again they are words.
    """
    repeats, outer, size = words.shape
    whole = size if size <= WHOLE else inner * max(1, LANES // inner)
    lanes, first = (whole, 0) if step == 1 else (step * inner, step // 2 * inner)
    low, high = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    least, most = np.empty(outer * inner, np.int32), np.empty(outer * inner, np.int32)
    for block in range(outer):
        low[:], high[:] = LARGEST, SMALLEST
        written = filled * inner
        for repeat in range(repeats):
            plane = words[repeat, block]
            for start in range(0, size, lanes):
                part = plane[start : start + lanes]
                for lane in range(part.size):
                    word = part[lane]
                    # numba takes the result of integers for 64 bits wide.
                    place = np.int32(word ^ ((word >> np.int32(31)) & LARGEST))
                    low[lane] = min(low[lane], place)
                    high[lane] = max(high[lane], place)
                # Its values are still in the cache.
                coded = part if step == 1 else part[first : first + inner]
                out = codes[block, written : written + coded.size]
                for lane in range(coded.size):
                    out[lane] = (coded[lane] >> 18) & 0x3FFF
                written += coded.size
        for start in range(inner, lanes, inner):
            for lane in range(inner):
                low[lane] = min(low[lane], low[start + lane])
                high[lane] = max(high[lane], high[start + lane])
        least[block * inner : (block + 1) * inner] = low[:inner]
        most[block * inner : (block + 1) * inner] = high[:inner]
    if least.min() <= MINUS_INFINITY or most.max() >= INFINITY:
        return False
    least ^= (least >> np.int32(31)) & LARGEST
    most ^= (most >> np.int32(31)) & LARGEST
    smallest, largest = least.view(np.float32), most.view(np.float32)
    # + 0: of −0 and +0 either may be the smaller one.
    minimum[:] = np.minimum(minimum, smallest) + np.float32(0)
    maximum[:] = np.maximum(maximum, largest) + np.float32(0)
    half[0], half[1] = min(half[0], smallest.min()), max(half[1], largest.max())
    return True


def _count(codes: Codes, filled: int, columns: NDArray[np.uint16], counts: Array) -> None:
    outer, _, inner = codes.shape
    for block in range(outer):
        block_codes = codes[block]
        if inner == 1:
            row = counts[block]
            for position in range(filled):
                row[columns[block_codes[position, 0]]] += 1
        else:
            for position in range(filled):
                for lane in range(inner):
                    counts[block * inner + lane, columns[block_codes[position, lane]]] += 1
