"""A starting point for the solver that does not depend on how the model is scaled now.

Each free class gets the power of two that brings the power of its channel into [1, 4): measured, or
as the weights suggest it for inputs of power 1. Models that differ only by powers of two on their
classes are then one and the same to the solver, bit for bit: so equalizing an equalized model
finds the same scales and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.equalization.sensitivity import channels, from_inputs, snap, squares_of
from onnxq.equalization.sites import ClipSite, ConstantSite, LinearSite, ScaleClasses, scales_of
from onnxq.equalization.union import Ids
from onnxq.model.graph import Graph

Floats = NDArray[np.float64]


def starting_exponents(
    graph: Graph,
    classes: ScaleClasses,
    calibration: Calibration | None,
    pinned: AbstractSet[int] = frozenset(),
) -> dict[int, int]:
    """Class root → log₂ of the scale that leads to the starting form.

    Classes that nothing but zeros makes are absent: their scale means nothing.

    Args:
        pinned: roots that keep their scale although they are free classes.
    """
    exponents: dict[int, int] = {}
    powers: dict[int, float] = {}
    measured = _measured_powers(classes, calibration)
    # What a pinned class holds is at most what its Clip lets through.
    limits = _largest(
        np.concatenate([np.zeros(1, np.int64), *(site.pattern.ravel() for site in classes.clips)]),
        np.concatenate([np.zeros(1), *(_limit(site) for site in classes.clips)]),
    )
    for site in classes.makers:
        if isinstance(site, LinearSite):
            ids, made = site.output_ids, _linear_power(graph, site, exponents, powers)
        elif site.makes:
            ids, made = _constant_power(graph, site, exponents)
        else:
            continue
        for root, suggested in _largest(ids, made).items():
            power = measured.get(root, suggested)
            if root in pinned:
                powers[root] = min(power, limits.get(root, math.inf))
            elif root in exponents:
                powers[root] = max(powers[root], math.ldexp(power, 2 * exponents[root]))
            elif root and power > 0:
                # frexp gives [½, 1) · 2^e.
                exponents[root] = -((math.frexp(power)[1] - 1) // 2)
                powers[root] = math.ldexp(power, 2 * exponents[root])
    return exponents


def _measured_powers(classes: ScaleClasses, calibration: Calibration | None) -> dict[int, float]:
    """Class root → E[x²] where the first weight that reads it does; silent channels are absent."""
    found: dict[int, float] = {}
    tensors = calibration.tensors if calibration else {}
    for site in classes.linears:
        statistics = tensors.get(site.node.input(site.layout.data))
        if statistics is None:
            continue
        power = snap(channels(statistics.mean_square, site))
        for root, value in _largest(site.input_ids, power).items():
            if value > 0:
                found.setdefault(root, value)
    return found


def _limit(site: ClipSite) -> Floats:
    finite = [bound for bound in site.bounds if math.isfinite(bound)]
    high = max(map(abs, finite)) if len(finite) == 2 or site.bounds[0] == 0 else math.inf
    return np.full(site.pattern.size, high * high)


def _linear_power(
    graph: Graph, site: LinearSite, exponents: dict[int, int], powers: dict[int, float]
) -> Floats:
    """Σ_j W² E[x_j²] + b² of each output, for inputs in that form."""
    received = np.array([powers.get(root, 1.0) for root in site.input_ids.tolist()])
    received /= scales_of(site.input_ids, exponents) ** 2
    squares = squares_of(site.layout.to_output_major(graph.value(site.layout.weight)))
    made = from_inputs(squares.reshape(site.layout.groups, -1, squares.shape[1]), received)
    bias = graph.constant(site.layout.bias)
    if bias is not None and bias.size in {1, len(made)}:
        made = made + np.square(bias.ravel().astype(np.float64))
    return made


def _constant_power(
    graph: Graph, site: ConstantSite, exponents: dict[int, int]
) -> tuple[Ids, Floats]:
    value = _constant(graph, site.node.inputs[site.position])
    if site.divisor is not None:
        value = value / scales_of(site.divisor, exponents)
    ids, made = np.broadcast_arrays(site.pattern, np.square(value))
    return ids, made


def _largest(ids: Ids, powers: Floats) -> dict[int, float]:
    result: dict[int, float] = {}
    for root, power in zip(ids.ravel().tolist(), powers.ravel().tolist(), strict=True):
        result[root] = max(power, result.get(root, 0.0))
    return result


def _constant(graph: Graph, name: str) -> NDArray[Any]:
    return graph.value(name).astype(np.float64)
