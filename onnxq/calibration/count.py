"""Count codes into histogram rows: two ways with the same result, the faster one is taken.

Where the processor sorts 16-bit integers in its vector unit (AVX-512 VBMI2, through numpy), sorting
each channel and measuring the runs of equal codes is faster than counting one by one.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins

BLOCK = 1 << 17
"""Values or codes to treat at once, so that they and what is made of them stay in the cache."""


def add_counts(codes: NDArray[np.uint16], counts: NDArray[Any], top: int) -> None:
    """Add the counts of `codes` to `counts`, in place.

    Args:
        codes: (outer, values, inner), see `bins.write_codes`; a channel is an (outer, inner).
        counts: (outer·inner, 2 + 2·magnitude_bins(top)), integers wide enough for the sum, the
            last column for NaN and Inf.
        top: exponent above every finite magnitude.
    """
    add = add_runs if sorting_is_fast() else add_one_by_one
    outer, values, inner = codes.shape
    step = max(1, BLOCK // (values * inner))
    for first in range(0, outer, step):
        block = codes[first : first + step]
        rows = block.transpose(0, 2, 1).reshape(len(block) * inner, values)
        add(rows, counts[first * inner : (first + step) * inner], top)


def add_runs(codes: NDArray[np.uint16], counts: NDArray[Any], top: int) -> None:
    """`add_counts` of (channels, values) by sorting."""
    codes = np.sort(codes, axis=1)
    last = np.empty(codes.shape, np.bool_)
    last[:, -1] = True
    np.not_equal(codes[:, 1:], codes[:, :-1], out=last[:, :-1])
    ends = np.flatnonzero(last)
    cells = bins.code_table(top)[codes.ravel()[ends]]
    cells += ends // codes.shape[1] * counts.shape[1]
    # Several codes share the column of tiny magnitudes, so plain indexing would lose counts.
    np.add.at(counts.reshape(-1), cells, np.diff(ends, prepend=-1).astype(counts.dtype))


def add_one_by_one(codes: NDArray[np.uint16], counts: NDArray[Any], top: int) -> None:
    """`add_counts` of (channels, values) by looking each code up."""
    channels, width = counts.shape
    cells = bins.code_table(top).take(codes, mode="clip")
    cells += (np.arange(channels) * width)[:, None]
    found = np.bincount(cells.ravel(), minlength=counts.size).reshape(counts.shape)
    counts += found.astype(counts.dtype)


@lru_cache(maxsize=1)
def sorting_is_fast() -> bool:
    """Measured once, in a millisecond; the result only decides the speed."""
    values = np.random.default_rng(0).standard_normal((16, 2048)).astype(np.float32)
    # Half of all activations are what a ReLU gives.
    values[::2] = np.maximum(values[::2], 0)
    sample = np.empty(values.shape, np.uint16)
    bins.write_codes(values, sample)
    seconds = {}
    for way in (add_runs, add_one_by_one):
        counts = np.zeros((16, 2 + 2 * bins.magnitude_bins(4)), np.int64)
        tries = []
        for _ in range(8):
            started = time.thread_time()
            way(sample, counts, 4)
            tries.append(time.thread_time() - started)
        seconds[way] = min(tries)
    return seconds[add_runs] < seconds[add_one_by_one]
