"""Costs as a calibration file holds them: of each tensor few arrays, in single precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.costs import Costs, TensorCosts, ends_of
from onnxq.calibration.statistics import TensorStatistics
from onnxq.refusal import Refusal

Arrays = Mapping[str, NDArray[Any]]

SCALED = Refusal("equalization scaled it after its costs were measured")

ARRAYS = ("cost_positions", "cost_power", "cost_products")
"""What a tensor's arrays are called."""


def rounded(costs: Costs, tensors: Mapping[str, TensorStatistics]) -> Costs:
    """The costs as they come back from a file, so that nothing depends on whether they did."""
    return replace(
        costs,
        tensors={
            name: read(tensors[name], header_of(each), arrays_of(each))
            for name, each in costs.tensors.items()
        },
    )


def of_same(
    costs: Costs, before: Mapping[str, TensorStatistics], after: Mapping[str, TensorStatistics]
) -> Costs:
    """The costs that hold for a model that computes the same.

    Args:
        before: statistics of the model that they were measured on.
        after: of the other one. Where its values are scaled, the costs are others.
    """
    kept = {
        name: each for name, each in costs.tensors.items()
        if name in after and before[name].has_extremes_of(after[name])
    }  # fmt: skip
    scaled = dict.fromkeys(costs.tensors.keys() - kept.keys(), SCALED)
    return Costs(costs.samples, kept, {**costs.refused, **scaled})


def header_of(costs: TensorCosts) -> dict[str, Any]:
    """What is no array: samples, and the largest of each array, by which it is divided."""
    largest = [float(np.abs(each).max(initial=0.0)) for each in (costs.power, costs.products)]
    return {"samples": costs.samples, "largest": [each or 1.0 for each in largest]}


def arrays_of(costs: TensorCosts) -> dict[str, NDArray[Any]]:
    """The bins that have a power, and one half of the symmetric products."""
    power, products = header_of(costs)["largest"]
    used = np.flatnonzero(costs.power)
    half = costs.products[np.triu_indices(len(costs.products))]
    found = (
        np.diff(used, prepend=0).astype(np.uint32),
        (costs.power[used] / power).astype(np.float32),
        (half / products).astype(np.float32),
    )
    return dict(zip(ARRAYS, found, strict=True))


def read(statistics: TensorStatistics, header: Mapping[str, Any], arrays: Arrays) -> TensorCosts:
    """The costs of a tensor of these statistics.

    Raises:
        ValueError: arrays that do not fit them.
    """
    positions, power, half = (arrays[name] for name in ARRAYS)
    below, above = ends_of(-statistics.low), ends_of(statistics.high)
    size = len(below) + len(above)
    if half.shape != (size * (size + 1) // 2,) or positions.shape != power.shape:
        raise ValueError("costs of other sizes than the tensor's range says")
    row = np.zeros(1 + 2 * bins.magnitude_bins(statistics.top))
    row[np.cumsum(positions.astype(np.int64))] = power
    products = np.zeros((size, size))
    products.T[np.triu_indices(size)] = products[np.triu_indices(size)] = half
    first, second = map(float, header["largest"])
    return TensorCosts(
        int(header["samples"]), statistics.top, row * first, below, above, products * second
    )
