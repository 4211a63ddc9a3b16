"""Errors of tensors, and their sums of squares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW = 1 << 10
"""Values summed in float32 before float64 takes over."""


def difference(got: NDArray[Any], wanted: NDArray[Any]) -> NDArray[Any]:
    """The error, got − wanted; of two shapes, which the data gave, −wanted, as if nothing came."""
    return got - wanted if got.shape == wanted.shape else -wanted


def power(values: NDArray[Any]) -> float:
    """Σ x², to some six digits: the squares of a row at a time in float32, the rows in float64."""
    flat = values.ravel()
    if flat.dtype != np.float32:
        return float(np.square(flat, dtype=np.float64).sum())
    whole = len(flat) // ROW * ROW
    rows = flat[:whole].reshape(-1, ROW)
    total = float(np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64))
    total += float(np.square(flat[whole:], dtype=np.float64).sum())
    # Squares beyond float32's range.
    return total if np.isfinite(total) else float(np.square(flat, dtype=np.float64).sum())
