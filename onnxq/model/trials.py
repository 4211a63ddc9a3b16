"""Inputs to try a model without data: to learn shapes, or to compare two versions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.model.model import Model, TensorSpec
from onnxq.model.session import exact_equal, open_session, run, with_outputs

Values = dict[str, NDArray[np.generic]]

SIZES = (((2, 32), (3, 64)), ((1, 32), (1, 64)), ((2, 1), (3, 1)), ((1, 224), (2, 224)))
"""Pairs of sizes, (first axis, all others), for axes of unknown size. What differs between the two
runs of a pair depends on them; the next pair is for models that do not run with the one before."""


def trial_feeds(model: Model, sizes: tuple[int, int], *, seed: int = 0) -> Values:
    """Normal floats, integers 0 and 1, empty texts."""
    generator = np.random.default_rng(seed)
    return {spec.name: _values(spec, sizes, generator) for spec in model.inputs}


def _values(
    spec: TensorSpec, sizes: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.generic]:
    first, others = sizes
    shape = [
        size if isinstance(size, int) else others if axis else first
        for axis, size in enumerate(spec.shape or ())
    ]
    if spec.dtype.kind == "O":
        return np.full(shape, "", object)
    if spec.dtype.kind in "biu":
        return generator.integers(0, 2, shape).astype(spec.dtype)
    return generator.standard_normal(shape).astype(spec.dtype)


def run_trials(model: Model, names: list[str]) -> list[Values]:
    """The tensors `names` for a pair of `SIZES` with which the model runs; [] where none does.

    The larger one of the pair may fail: then there is one result. The model runs as it is written.
    Values that are no tensors are left out.
    """
    try:
        session = open_session(with_outputs(model, names), optimize=False)
    except ModelError:
        return []
    for pair in SIZES:
        found: list[Values] = []
        for sizes in pair:
            try:
                results = run(session, names, trial_feeds(model, sizes))
            except ModelError:
                break
            found.append(
                {n: r for n, r in zip(names, results, strict=True) if isinstance(r, np.ndarray)}
            )
        if found:
            return found
    return []


def difference(wanted: NDArray[np.generic], found: NDArray[np.generic]) -> float:
    """rms(found − wanted) / rms(wanted); 0 where equal, infinite where they do not compare."""
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return math.inf
    if exact_equal(wanted, found):
        return 0.0
    if wanted.dtype.kind != "f":
        return math.inf
    exact = wanted.astype(np.float64)
    signal = float(np.square(exact).mean())
    noise = float(np.square(found.astype(np.float64) - exact).mean())
    return math.sqrt(noise / signal) if math.isfinite(noise) and signal > 0 else math.inf
