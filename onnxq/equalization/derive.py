"""The calibration of an equalized model, from that of the original and the scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration, TensorStatistics


def derive_calibration(
    calibration: Calibration, octaves: Mapping[str, NDArray[np.float64]]
) -> tuple[Calibration, tuple[str, ...]]:
    """Shift the histograms by the scales; exact for powers of two.

    Args:
        octaves: tensor → log₂ s, broadcastable to the tensor.

    Returns:
        The calibration of the equalized model, and the tensors it could not follow (real
        scales, or scales along another axis than the one counted), which are left out.
    """
    tensors: dict[str, TensorStatistics] = {}
    lost = []
    for name, statistics in calibration.tensors.items():
        scaled = _scale(statistics, octaves.get(name, np.zeros(1)))
        if scaled is None:
            lost.append(name)
        else:
            tensors[name] = scaled
    return replace(calibration, tensors=tensors), tuple(lost)


def _scale(statistics: TensorStatistics, octaves: NDArray[np.float64]) -> TensorStatistics | None:
    if not np.any(octaves):
        return statistics
    whole = np.rint(octaves).astype(np.int64)
    if np.any(whole != octaves):
        return None
    if whole.size == 1:
        return statistics.scaled(whole.ravel())
    varying = [axis for axis, size in enumerate(octaves.shape) if size > 1]
    if varying != [statistics.axis]:
        return None
    return statistics.scaled(whole.ravel())
