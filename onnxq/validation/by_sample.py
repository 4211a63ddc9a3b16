"""How far each sample's outputs are off: kept while a comparison runs, read when it is done.

A sample's error counts against the signal of all samples in the same output, or group of its slices
(`onnxq.closeness`), and the worst of these counts. So a sample in which there is nothing to see, of
a detector for example, is not called bad for small errors on small numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import OutputCloseness, as_array, is_float
from onnxq.closeness.parts import Part
from onnxq.data.batching import samples_in
from onnxq.data.masks import real_positions

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_SLICES = 128
"""Slices of an axis whose noise is kept for each sample."""

MOST_SAMPLES = 20_000
"""Samples that are kept apart; those behind them are not looked at one by one."""


@dataclass(frozen=True)
class BySample:
    """The samples of one model under one execution.

    Attributes:
        errors: (samples,) dB of the noise below the signal: infinite where there is none, minus
            infinity where an output is not finite, NaN where the outputs could not be compared.
            Empty for the float model.
        answers: (samples,) the class with the highest score; () where the data have no labels.
        labels: (samples,) the right class; () where the data have none.
    """

    errors: Floats
    answers: tuple[int, ...]
    labels: tuple[int, ...]

    def worst(self, count: int) -> list[int]:
        """The numbers of the samples that are furthest off, the worst first."""
        order = np.argsort(self.errors, kind="stable")
        return [int(each) for each in order[:count] if self.errors[each] < math.inf]

    @property
    def by_class(self) -> dict[int, tuple[int, int]]:
        """Class → samples of it, and how many of them are answered right."""
        found: dict[int, tuple[int, int]] = {}
        for label, answer in zip(self.labels, self.answers, strict=True):
            samples, right = found.get(label, (0, 0))
            found[label] = samples + 1, right + (label == answer)
        return dict(sorted(found.items()))


class Recorder:
    """A metric for `onnxq.commands.validate` that keeps what its instances saw.

    It gives the number of samples, which nobody needs; its column is to be left out.
    """

    __name__ = "by_sample"

    def __init__(self) -> None:
        self._made: list[_Seen] = []

    def __call__(self) -> _Seen:
        self._made.append(_Seen())
        return self._made[-1]

    def rows(self, outputs: Sequence[Sequence[OutputCloseness]]) -> tuple[BySample, ...]:
        """What was seen, in the order of the comparison's rows, the float model's first.

        Args:
            outputs: those of each row.
        """
        used = [each for each in self._made if each.samples]
        return tuple(
            seen.finish([part for output in found for part in output.parts])
            for seen, found in zip(used, outputs, strict=True)
        )


@dataclass
class _Seen:
    """A metric, see `onnxq.validation.metrics.Metric`."""

    samples: int = field(default=0, init=False)
    _noise: dict[str, list[Floats]] = field(default_factory=dict, init=False)
    _slices: dict[tuple[str, int], list[Floats]] = field(default_factory=dict, init=False)
    _answers: list[int] = field(default_factory=list, init=False)
    _labels: list[int] = field(default_factory=list, init=False)

    def update(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        labels: Any | None,
        reference: Mapping[str, Array],
    ) -> None:
        """Take one batch."""
        count = samples_in(inputs)
        if self.samples + count > MOST_SAMPLES:
            return
        self.samples += count
        real = real_positions(inputs)
        for name, wanted in reference.items():
            self._compare(name, as_array(wanted), as_array(outputs[name]), count, real)
        if labels is not None and all(isinstance(each, (int, np.integer)) for each in labels):
            self._answer(outputs, labels, count)

    def compute(self) -> float:
        """How many samples it saw."""
        return float(self.samples)

    def _compare(
        self, name: str, wanted: Array, got: Array, count: int, real: NDArray[np.bool_] | None
    ) -> None:
        if not is_float(wanted):
            return
        if wanted.shape != got.shape or wanted.shape[:1] != (count,):
            self._noise.setdefault(name, []).append(np.full(count, np.nan))
            return
        x, y = wanted.astype(np.float64), got.astype(np.float64)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, np.square(x - y))
        error[np.isnan(error)] = np.inf  # what is not finite in one only
        values = np.full(count, max(error[0].size, 1), np.float64)
        if real is not None and wanted.shape[:2] == real.shape:
            error[~real] = 0.0
            values *= np.maximum(real.mean(axis=1), 1e-9)
        self._noise.setdefault(name, []).append(error.reshape(count, -1).sum(axis=1) / values)
        for axis in range(1, wanted.ndim):
            if 1 < wanted.shape[axis] <= MOST_SLICES:
                others = tuple(each for each in range(1, wanted.ndim) if each != axis)
                mean = error.sum(axis=others) * wanted.shape[axis] / values[:, None]
                self._slices.setdefault((name, axis), []).append(mean)

    def _answer(self, outputs: Mapping[str, Array], labels: Any, count: int) -> None:
        arrays = [as_array(each) for each in outputs.values()]
        scores = next((each for each in arrays if is_float(each)), arrays[0])
        if scores.shape[:1] == (count,):
            self._answers += scores.reshape(count, -1).argmax(axis=1).tolist()
            self._labels += [int(each) for each in labels]

    def finish(self, parts: Sequence[Part]) -> BySample:
        """Weigh each part's noise by its signal."""
        ratios = [found / part.rms**2 for part in parts if part.rms > 0
                  and (found := self._of(part)) is not None]  # fmt: skip
        if not ratios:
            return BySample(np.empty(0), tuple(self._answers), tuple(self._labels))
        with np.errstate(divide="ignore"):
            errors = -10 * np.log10(np.stack(ratios).max(axis=0))
        return BySample(errors, tuple(self._answers), tuple(self._labels))

    def _of(self, part: Part) -> Floats | None:
        """(samples,) mean square error; None where it was not kept."""
        if part.axis is None:
            found = self._noise.get(part.output)
            return None if found is None else np.concatenate(found)
        kept = self._slices.get((part.output, part.axis))
        if kept is None or sum(map(len, kept)) != self.samples:
            return None
        return np.concatenate([each[:, list(part.slices)].mean(axis=1) for each in kept])
