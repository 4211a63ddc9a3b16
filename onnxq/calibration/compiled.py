"""The loops over all values, compiled by numba where it is installed.

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
from onnxq.calibration.halves import FIRST, Halves

Array = NDArray[Any]
Codes = NDArray[np.uint16]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Loops:
    """The compiled loops.

    Attributes:
        take_values: see `kernels.take`.
        count_codes: see `kernels.count`.
        weigh_codes: see `kernels.weigh`.
    """

    take_values: Callable[[Array, int, int, Codes, int, Array, Array, Halves, Array], bool]
    count_codes: Callable[[Codes, int, NDArray[np.uint16], Array], None]
    weigh_codes: Callable[[Array, Floats, Array], None]

    def take(
        self, values: Floats, step: int, codes: Codes, filled: int, minimum: Floats,
        maximum: Floats, owners: Halves, halves: Floats,
    ) -> bool:  # fmt: skip
        """Update extremes, in place, and write the codes of some values; whether all are finite.

        Where one is not, the extremes stay as they were.

        Args:
            values: (repeats, outer, positions, inner); a channel is an (outer, inner).
            step: every so many-th position is coded.
            codes: room for them (outer, positions, inner), of which the first `filled` are taken.
            minimum, maximum: of each channel (channels,).
            owners: the half of the data that each repeat belongs to (repeats,); 2 for both.
            halves: smallest and largest value of each half (2, 2).
        """
        repeats, outer, _, inner = values.shape
        words = values.reshape(repeats, outer, -1).view(np.int32)
        return self.take_values(
            words, step, inner, codes.reshape(outer, -1), filled, minimum, maximum, owners, halves
        )

    def count(self, codes: Codes, filled: int, counts: Array, top: int) -> None:
        """`onnxq.calibration.count.add_counts` of the first `filled` codes of each channel."""
        self.count_codes(codes, filled, _columns(top), counts)

    def weigh(self, values: Floats, gradient: Floats, sums: Array) -> None:
        """Add the squared gradient and the gradient of each value to the sums of its code.

        Args:
            values, gradient: (elements,).
            sums: (2, bins.CODES).
        """
        self.weigh_codes(values.view(np.uint32), gradient, sums)


@lru_cache(maxsize=1)
def loops() -> Loops | None:
    """The compiled loops; None where numba is not installed or cannot be used."""
    try:
        import numba

        from onnxq.calibration import kernels
    except ImportError:  # it also raises this for a numpy that is too new for it
        return None
    for cache in (True, False):
        compiled = numba.njit(nogil=True, cache=cache)
        try:
            found = Loops(*map(compiled, (kernels.take, kernels.count, kernels.weigh)))
            _try(found)
        except (RuntimeError, OSError):  # no folder, or no room, to keep the machine code in
            continue
        return found
    return None


def _try(loops: Loops) -> None:
    """Have them compiled, which takes seconds unless it was done before, and kept."""
    codes = np.zeros((1, 1, 1), np.uint16)
    channel = np.zeros(1, np.float32)
    loops.take(
        np.zeros((1, 1, 1, 1), np.float32), 1, codes, 0, channel, channel,
        FIRST, np.zeros((2, 2), np.float32),
    )  # fmt: skip
    loops.weigh(channel, channel, np.zeros((2, bins.CODES)))
    for width in (np.uint16, np.uint32):
        loops.count(codes, 1, np.zeros((1, 2 + 2 * bins.magnitude_bins(1)), width), 1)


@lru_cache(maxsize=256)
def _columns(top: int) -> NDArray[np.uint16]:
    """`bins.code_table` in a quarter of the memory: it should stay in the cache."""
    return bins.code_table(top).astype(np.uint16)
