"""The noise objective laid out flat, for descent: all terms in a few vector operations.

The maximum over a weight's entries is replaced by a soft one, of which only entries near the peak
take part. Those are few, so they are gathered now and then and the rest is left alone between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.noise import NoiseModel

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SHARPNESS = 24.0
"""Exponent p of the p-norm that stands for the maximum while descending."""

WEIGHTLESS = 0.7
"""Distance from the peak, in log magnitude, beyond which entries weigh nothing: e^(−24·0.7)."""

MARGIN = 0.8
"""How much further entries are gathered, and how far a variable may move until they are gathered
anew. Only variables that move apart by more could bring another entry near the peak."""


@dataclass(frozen=True)
class Segments:
    """Consecutive runs of a flat array: where each starts and how long it is."""

    starts: Indices
    sizes: Indices

    @classmethod
    def sized(cls, sizes: Sequence[int] | Indices) -> Segments:
        lengths = np.array(sizes, np.int64)
        return cls(np.cumsum(lengths) - lengths, lengths)

    @property
    def of(self) -> Indices:
        """For each item its run."""
        return self.spread(np.arange(len(self.sizes)))

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """For each item the value of its run."""
        return np.repeat(values, self.sizes)


@dataclass(frozen=True)
class Entries:
    """Weights near the peak of their row or tensor, row by row.

    Attributes:
        log_weight, columns: of each entry, and the variable of its column.
        runs: the entries of each row that has any.
        rows: variable of each of these rows.
        steps: those of these rows that share a quantization step.
        around: the variables (σ) where they were gathered.
    """

    log_weight: Floats
    columns: Indices
    runs: Segments
    rows: Indices
    steps: Segments
    around: Floats


class Objective:
    """Smoothed noise and its gradient.

    Rows are the outputs of all weights one after the other, columns their input channels, group
    by group; `_segment` maps a row to what shares its quantization step: itself or its tensor.
    """

    def __init__(self, model: NoiseModel) -> None:
        self._model = model
        weights, activations = model.weights, model.activations
        self._row = _flat([term.rows for term in weights])
        self._row_gain = _flat([term.row_gain for term in weights]) / model.weight_divisor
        self._column = _flat([term.columns for term in weights])
        self._power = _flat([term.column_power for term in weights])
        shapes = [term.columns.shape for term in weights]
        rows = [len(term.rows) for term in weights]
        self._groups = Segments.sized([size for g, size in shapes for _ in range(g)])
        per_group = [n // g for n, (g, _) in zip(rows, shapes, strict=True) for _ in range(g)]
        self._row_group = Segments.sized(per_group).of
        steps = [[1] * n if t.per_channel else [n] for n, t in zip(rows, weights, strict=True)]
        self._segment = Segments.sized([size for sizes in steps for size in sizes]).of
        self._log_range = _flat([term.log_range for term in activations])
        self._channel = _flat([term.variables for term in activations])
        self._gain = _flat([term.gain for term in activations]) / model.activation_divisor
        self._tensors = Segments.sized([len(term.variables) for term in activations])

    def gather(self, sigma: Floats) -> Entries:
        """The entries that matter around σ."""
        logs, rows, columns = [], [], []
        row_start = column_start = 0
        for term in self._model.weights:
            scaled = term.scaled(sigma)
            peak = term.peaks(scaled)
            near = scaled > peak[term.row] - (WEIGHTLESS + MARGIN)
            logs.append(term.log_weight[near])
            rows.append(np.broadcast_to(term.row, near.shape)[near] + row_start)
            columns.append(np.broadcast_to(term.column, near.shape)[near] + column_start)
            row_start += len(term.rows)
            column_start += term.columns.size
        sizes = np.bincount(_flat(rows), minlength=len(self._row))
        present = np.flatnonzero(sizes)
        step = self._segment[present]
        return Entries(
            _flat(logs), self._column[_flat(columns)], Segments.sized(sizes[present]),
            self._row[present],
            Segments.sized(np.bincount(step, minlength=1 + self._segment.max(initial=-1))),
            sigma,
        )  # fmt: skip

    @staticmethod
    def holds(entries: Entries, sigma: Floats) -> bool:
        """Whether the entries are still those that matter."""
        return float(np.abs(sigma - entries.around).max(initial=0.0)) <= MARGIN

    def gradient(self, sigma: Floats, entries: Entries) -> tuple[float, Floats]:
        """The smoothed total and its gradient with respect to σ (variables,)."""
        size = self._model.variables
        total, gradient = 0.0, np.zeros(size)
        if len(self._row):
            level, share = _soft_maximum(entries.log_weight - sigma[entries.columns], entries.runs)
            level, row_share = _soft_maximum(level + sigma[entries.rows], entries.steps)
            power = self._power * np.exp(2 * sigma[self._column])
            received = np.add.reduceat(power, self._groups.starts)
            noise = np.exp(2 * (level[self._segment] - sigma[self._row])) * self._row_gain
            per_group = np.bincount(self._row_group, noise, len(received))
            noise *= received[self._row_group]
            pull = row_share * entries.steps.spread(np.bincount(self._segment, noise))
            total += noise.sum()
            gradient += np.bincount(entries.rows, pull, size)
            gradient -= np.bincount(entries.columns, share * entries.runs.spread(pull), size)
            gradient -= np.bincount(self._row, noise, size)
            gradient += np.bincount(self._column, self._groups.spread(per_group) * power, size)
        if len(self._channel):
            values = sigma[self._channel]
            level, share = _soft_maximum(self._log_range + values, self._tensors)
            noise = np.exp(2 * (self._tensors.spread(level) - values)) * self._gain
            pull = share * self._tensors.spread(np.add.reduceat(noise, self._tensors.starts))
            total += noise.sum()
            gradient += np.bincount(self._channel, pull - noise, size)
        gradient[0] = 0.0
        return float(total), 2 * gradient


def _soft_maximum(values: Floats, segments: Segments) -> tuple[Floats, Floats]:
    """Log of the p-norm of e^values in each segment, and each value's share in it."""
    peak = np.maximum.reduceat(values, segments.starts)
    share = values - segments.spread(peak)
    share *= SHARPNESS
    np.exp(share, out=share)
    mass = np.add.reduceat(share, segments.starts)
    share /= segments.spread(mass)
    return peak + np.log(mass) / SHARPNESS, share


def _flat(
    parts: list[Indices] | list[NDArray[np.int32]] | list[Floats] | list[NDArray[np.float32]],
) -> NDArray[Any]:
    return np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, np.int64)
