"""The noise objective laid out flat, for descent: all terms in a few vector operations.

The maximum over a weight's entries is replaced by a soft one, of which only entries near the peak
take part. Those are few, so they are gathered now and then and the rest is left alone between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.noise import SCALE, NoiseModel

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SHARPNESS = 24.0
"""Exponent p of the p-norm that stands for the maximum while descending."""

REACH = 1.5
"""Distance from the peak, in log magnitude, within which entries are gathered: beyond 0.7 they
weigh nothing (e^(−SHARPNESS·0.7)), and until they are gathered anew they may come nearer."""


@dataclass(frozen=True)
class Segments:
    """Consecutive runs of a flat array: where each starts and, for each item, its run."""

    starts: Indices
    of: Indices

    @classmethod
    def sized(cls, sizes: list[int]) -> Segments:
        lengths = np.array(sizes, np.int64)
        return cls(np.cumsum(lengths) - lengths, np.repeat(np.arange(len(lengths)), lengths))


@dataclass(frozen=True)
class Entries:
    """Weights near the peak of their row or tensor, ordered by it."""

    log_weight: Floats
    rows: Indices
    columns: Indices
    segments: Segments


class Objective:
    """Smoothed noise and its gradient.

    Rows are the outputs of all weights one after the other, columns their input channels, group
    by group; `_segment` maps a row to what shares its quantization step: itself or its tensor.
    """

    def __init__(self, model: NoiseModel) -> None:
        self._model = model
        weights, activations = model.weights, model.activations
        self._row = _flat([term.rows for term in weights])
        self._row_gain = _flat([term.row_gain for term in weights]) / SCALE
        self._column = _flat([term.columns for term in weights])
        self._power = _flat([term.column_power for term in weights])
        shapes = [term.columns.shape for term in weights]
        rows = [len(term.rows) for term in weights]
        self._groups = Segments.sized([size for g, size in shapes for _ in range(g)])
        per_group = [n // g for n, (g, _) in zip(rows, shapes, strict=True) for _ in range(g)]
        self._row_group = Segments.sized(per_group).of
        self._segment = Segments.sized([1] * sum(rows) if model.per_channel else rows).of
        self._log_range = _flat([term.log_range for term in activations])
        self._channel = _flat([term.variables for term in activations])
        self._gain = _flat([term.gain for term in activations]) / SCALE
        self._tensors = Segments.sized([len(term.variables) for term in activations])

    def gather(self, sigma: Floats) -> Entries:
        """The entries that matter around σ."""
        logs, rows, columns = [], [], []
        row_start = column_start = 0
        for term in self._model.weights:
            scaled = term.scaled(sigma)
            peak = term.peaks(scaled, per_channel=self._model.per_channel)
            near = scaled > peak[term.row] - REACH
            logs.append(term.log_weight[near])
            rows.append(np.broadcast_to(term.row, near.shape)[near] + row_start)
            columns.append(np.broadcast_to(term.column, near.shape)[near] + column_start)
            row_start += len(term.rows)
            column_start += term.columns.size
        row = _flat(rows)
        sizes = np.bincount(self._segment[row], minlength=1 + self._segment.max(initial=-1))
        return Entries(
            _flat(logs), self._row[row], self._column[_flat(columns)],
            Segments.sized(sizes.tolist()),
        )  # fmt: skip

    def gradient(self, sigma: Floats, entries: Entries) -> tuple[float, Floats]:
        """The smoothed total and its gradient with respect to σ (variables,)."""
        size = self._model.variables
        total, gradient = 0.0, np.zeros(size)
        if len(self._row):
            values = entries.log_weight + sigma[entries.rows] - sigma[entries.columns]
            level, share = _soft_maximum(values, entries.segments)
            power = self._power * np.exp(2 * sigma[self._column])
            received = np.add.reduceat(power, self._groups.starts)
            noise = np.exp(2 * (level[self._segment] - sigma[self._row])) * self._row_gain
            per_group = np.bincount(self._row_group, noise, len(received))
            noise *= received[self._row_group]
            pull = share * np.bincount(self._segment, noise)[entries.segments.of]
            total += noise.sum()
            gradient += np.bincount(entries.rows, pull, size)
            gradient -= np.bincount(entries.columns, pull, size)
            gradient -= np.bincount(self._row, noise, size)
            gradient += np.bincount(self._column, per_group[self._groups.of] * power, size)
        if len(self._channel):
            values = sigma[self._channel]
            level, share = _soft_maximum(self._log_range + values, self._tensors)
            noise = np.exp(2 * (level[self._tensors.of] - values)) * self._gain
            pull = share * np.bincount(self._tensors.of, noise)[self._tensors.of]
            total += noise.sum()
            gradient += np.bincount(self._channel, pull - noise, size)
        gradient[0] = 0.0
        return float(total), 2 * gradient


def _soft_maximum(values: Floats, segments: Segments) -> tuple[Floats, Floats]:
    """Log of the p-norm of e^values in each segment, and each value's share in it."""
    peak = np.maximum.reduceat(values, segments.starts)
    share = np.exp(SHARPNESS * (values - peak[segments.of]))
    mass = np.add.reduceat(share, segments.starts)
    return peak + np.log(mass) / SHARPNESS, share / mass[segments.of]


def _flat(
    parts: list[Indices] | list[NDArray[np.int32]] | list[Floats] | list[NDArray[np.float32]],
) -> NDArray[Any]:
    return np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, np.int64)
