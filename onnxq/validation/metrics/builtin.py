"""The metrics that every model has: closeness to the float outputs, and accuracy of classes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from onnxq.closeness import as_array, is_float
from onnxq.errors import UsageError
from onnxq.validation.metrics.protocol import Array, Closeness, Metric
from onnxq.validation.tasks import TASK_METRICS


@dataclass
class TopK:
    """Samples whose label is among the `k` classes with the highest scores, %.

    The scores are the first float output, or the first output where none is float. Those that
    hold NaN have no highest one.
    """

    k: int = 1
    hits: int = field(default=0, init=False)
    samples: int = field(default=0, init=False)

    unit = "%"
    needs_labels = True
    takes_numbers = True

    def update(
        self,
        inputs: Mapping[str, Array],  # noqa: ARG002 - the protocol's
        outputs: Mapping[str, Array],
        labels: Any,
        reference: Mapping[str, Array],  # noqa: ARG002 - the protocol's
    ) -> None:
        """Take one batch; see `Metric.update`."""
        arrays = [as_array(each) for each in outputs.values()]
        found = next((each for each in arrays if is_float(each)), arrays[0])
        scores = found.reshape(len(found), -1)
        wanted = _class_indices(labels, scores.shape[1])
        if self.k == 1:
            hits = scores.argmax(axis=1) == wanted
        else:
            best = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
            hits = (best == wanted[:, None]).any(axis=1)
        numbers = (scores == scores).all(axis=1)  # noqa: PLR0124 - NaN differs from itself
        self.hits += int((hits & numbers).sum())
        self.samples += len(wanted)

    def compute(self) -> float:
        """The share of hits, %."""
        return 100 * self.hits / max(self.samples, 1)

    def merge(self, other: TopK) -> None:
        """Add what another instance saw."""
        self.hits += other.hits
        self.samples += other.samples


def _class_indices(labels: Any, classes: int) -> Array:
    """The labels as indices of so many classes.

    Raises:
        UsageError: they are of another kind, or beyond the classes: all would count as wrong.
    """
    hint = (
        "give class indices, one a sample, with the data or with --labels FILE.txt, .csv or .npy, "
        "or --metric sqnr"
    )
    for label in labels:
        if not isinstance(label, (int, np.integer)):
            raise UsageError(
                f"top1 and top5 compare with class indices, a label is {label!r:.40}", hint=hint
            )
        if not 0 <= label < classes:
            raise UsageError(
                f"the label {label} is none of the model's {classes:,} classes, 0 to "
                f"{classes - 1:,}",
                hint=hint,
            )
    return np.asarray(labels, np.int64)


@dataclass
class SampleMean:
    """The mean of what a function gives for each sample.

    Attributes:
        score: (first output, labels or None) of one batch → one number for each sample.
    """

    score: Callable[[Array, Any], Any]
    total: float = field(default=0.0, init=False)
    samples: int = field(default=0, init=False)

    def update(
        self,
        inputs: Mapping[str, Array],  # noqa: ARG002 - the protocol's
        outputs: Mapping[str, Array],
        labels: Any,
        reference: Mapping[str, Array],  # noqa: ARG002 - the protocol's
    ) -> None:
        """Take one batch; see `Metric.update`."""
        values = np.asarray(self.score(next(iter(outputs.values())), labels), np.float64).ravel()
        self.total += float(values.sum())
        self.samples += values.size

    def compute(self) -> float:
        """The mean."""
        return self.total / max(self.samples, 1)


def _relative_error(decibels: float) -> float:
    """RMS of the error over that of the outputs, %: what an SQNR says in the unit of a drop."""
    return float(100 * 10 ** (-decibels / 20))


def _of_relative_error(percent: float) -> float:
    return -20 * math.log10(percent / 100)


METRICS: Mapping[str, Callable[..., Metric]] = MappingProxyType(
    {
        "top1": functools.partial(TopK, k=1),
        "top5": functools.partial(TopK, k=5),
        **TASK_METRICS,
    }
)
"""Name → what makes an instance; the fields of a dataclass are its options."""

CLOSENESS: Mapping[str, Closeness] = MappingProxyType(
    {
        "sqnr": Closeness(
            "sqnr",
            lambda part: part.sqnr,
            _relative_error,
            _of_relative_error,
            unit="dB",
            error_of=lambda part: part.sqnr_error,
        ),
        "cosine": Closeness(
            "cosine",
            lambda part: part.cosine,
            lambda cosine: 100 * (1 - cosine),
            lambda missing: 1 - missing / 100,
        ),
    }
)
"""Name → what it reads off the comparison of outputs, which is made anyway."""
