"""Metrics: accuracy against labels, and closeness to the float model's outputs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import UsageError
from onnxq.python_files import load_callable
from onnxq.refusal import Refusal

Array = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A number computed from batches.

    Attributes:
        name: as given to `--metric`.
        unit: "%" or "dB" or "".
        needs_labels: compares outputs with labels; else with the float model's outputs.
        terms: (outputs, labels or reference) of one batch → sums that add over batches.
        finish: sums → the metric's value.
        drop: (value of the float model, of a quantized one) → how far it fell.
        drop_unit: unit of that.
    """

    name: str
    unit: str
    needs_labels: bool
    terms: Callable[[Array, Array], Array]
    finish: Callable[[Array], float]
    drop: Callable[[float, float], float] = operator.sub
    drop_unit: str = ""


def _top(k: int) -> Callable[[Array, Array], Array]:
    def terms(outputs: Array, labels: Array) -> Array:
        scores = outputs.reshape(len(outputs), -1)
        if k == 1:
            hits = scores.argmax(axis=1) == labels
        else:
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            hits = (best == labels[:, None]).any(axis=1)
        return np.array([hits.sum(), len(labels)], np.float64)

    return terms


def _percent(sums: Array) -> float:
    return float(100 * sums[0] / max(sums[1], 1))


def _powers(outputs: Array, reference: Array) -> Array:
    exact, got = reference.astype(np.float64), outputs.astype(np.float64)
    return np.array([np.square(exact).sum(), np.square(exact - got).sum()])


def _decibels(sums: Array) -> float:
    if sums[1] == 0:
        return float("inf")
    return float(10 * np.log10(max(sums[0], 1e-300) / sums[1]))


def _relative_error(_: float, decibels: float) -> float:
    """RMS of the error over that of the outputs, %: what an SQNR says in the unit of a drop."""
    return float(100 * 10 ** (-decibels / 20))


def _products(outputs: Array, reference: Array) -> Array:
    exact = reference.reshape(len(reference), -1).astype(np.float64)
    got = outputs.reshape(len(outputs), -1).astype(np.float64)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(got, axis=1)
    cosines = np.where(norms > 0, (exact * got).sum(axis=1) / np.maximum(norms, 1e-300), 1.0)
    return np.array([cosines.sum(), len(cosines)])


def _mean(sums: Array) -> float:
    return float(sums[0] / max(sums[1], 1))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "top1": Metric("top1", "%", True, _top(1), _percent, drop_unit="%"),
        "top5": Metric("top5", "%", True, _top(5), _percent, drop_unit="%"),
        "sqnr": Metric("sqnr", "dB", False, _powers, _decibels, _relative_error, "%"),
        "cosine": Metric("cosine", "", False, _products, _mean, lambda _, value: 1 - value),
    }
)


def metric_named(name: str) -> Metric:
    """A built-in metric, or the user's `file.py:function`.

    The function takes (outputs, labels) of one batch, the first output and int64 labels or None,
    and returns one number for each sample; the metric is their mean. Its file is run only because
    the user named it.

    Raises:
        UsageError: no such metric, file or function; computing the metric raises it too where the
            function fails.
    """
    if name in METRICS:
        return METRICS[name]
    path, separator, function = name.rpartition(":")
    if not separator or not path.endswith(".py"):
        raise UsageError(
            f"unknown metric {name!r}", hint=f"one of {', '.join(METRICS)}, or FILE.py:function"
        )
    score = load_callable(Path(path), function)
    if isinstance(score, Refusal):
        raise UsageError(f"metric {name!r}: {score}")

    def terms(outputs: Array, labels: Array) -> Array:
        try:
            values = np.asarray(score(outputs, labels), np.float64).ravel()
        except Exception as error:  # whatever the user's function raises
            raise UsageError(f"metric {name!r} failed: {_brief(error)}") from error
        return np.array([values.sum(), values.size])

    return Metric(function, "", True, terms, _mean)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
