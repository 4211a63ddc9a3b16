"""What scales that are searched rather than solved are made of: the sizes of channels, in bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SILENT = 12
"""Bits below the largest channel at which others count as silent: they may wake."""


def bits(values: Floats) -> Floats:
    """log₂ of sizes; what is silent counts as `SILENT` bits below the largest."""
    largest = float(values.max(initial=0.0)) or 1.0
    return np.asarray(np.log2(np.maximum(values, largest * 2.0**-SILENT)))
