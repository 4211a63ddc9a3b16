"""The calibration of an equalized model, from that of the original and the scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.derived import Derived
from onnxq.calibration.statistics import Calibration, TensorStatistics

Exponents = NDArray[np.int64]


def derive_calibration(
    calibration: Calibration, exponents: Mapping[str, NDArray[np.float64]]
) -> tuple[Calibration, tuple[str, ...]]:
    """Shift the histograms by the scales; exact for powers of two.

    Args:
        exponents: tensor → log₂ s, broadcastable to the tensor.

    Returns:
        The calibration of the equalized model, and the tensors it could not follow (real
        scales, or scales along another axis than the one counted), which are left out.
    """
    before = calibration.tensors
    factors = {
        name: _factors(statistics, exponents.get(name, np.zeros(1)))
        for name, statistics in before.items()
    }
    lost = tuple(name for name, found in factors.items() if found is None)
    kept = {name: found for name, found in factors.items() if found is not None}

    def scaled(name: str) -> TensorStatistics:
        return before[name].scaled(kept[name]) if kept[name].any() else before[name]

    return replace(calibration, tensors=Derived(kept, scaled)), lost


def _factors(statistics: TensorStatistics, exponents: NDArray[np.float64]) -> Exponents | None:
    """log₂ of the factor of each channel, or one for all; None where they cannot be followed."""
    whole = np.rint(exponents).astype(np.int64)
    if np.any(whole != exponents):
        return None
    if whole.any() and not counted_along(statistics, exponents.shape):
        return None
    return whole.ravel()


def counted_along(statistics: TensorStatistics, shape: tuple[int, ...]) -> bool:
    """Whether scales of this shape vary along no axis but the one the tensor was counted along."""
    varying = [axis for axis, size in enumerate(shape) if size > 1]
    return not varying or varying == [statistics.axis]
