"""The ranges of activations, from what calibration knows and from what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.behind import Loss, Part, loss_of, part_of, plain
from onnxq.calibration.ranges import (
    AUTO,
    Distribution,
    Range,
    bounds_of,
    distribution,
    estimate,
    search_fast,
)
from onnxq.calibration.statistics import TensorStatistics
from onnxq.formats.scheme import Spec
from onnxq.model.functions import function_of, within_function
from onnxq.model.graph import Graph
from onnxq.model.operators import QuantizedRule, operator_of

Floats = NDArray[np.float64]
Gains = Mapping[str, Floats]

SMALLEST = float(np.finfo(np.float32).tiny)

BY_ERROR = (AUTO, "mse")
"""Estimators that clip where it pays."""

ROOM = 1 / 16
"""Room at each end for values that calibration did not see, as a share of the range."""

PROBE = 2.0**-9
"""Change of a value within a function, as a share of the largest, by which its slope is found."""

NEAR, BETWEEN = 1 / 16, 96
"""Magnitude from which on values are looked at that do not occur, and how many of each sign."""


@dataclass(frozen=True)
class Ranges:
    """What is known of the values, and the ranges that follow.

    Attributes:
        graph: who reads which tensor.
        tensors: statistics of each.
        gains: tensor → how much an error in each channel matters at its readers (channels,).
        fixed: tensor → the range it must have, and with it all that share its scale.
        spec: what the values become.
        method: the range estimator.
        whole: tensors whose largest values are what a model is for: `AUTO` leaves room for larger
            ones.
    """

    graph: Graph
    tensors: Mapping[str, TensorStatistics]
    gains: Gains
    fixed: Mapping[str, Range]
    spec: Spec
    method: str
    whole: frozenset[str] = frozenset()
    _parts: dict[str, Part | None] = field(default_factory=dict, repr=False, compare=False)
    _found: dict[tuple[str, ...], Range] = field(default_factory=dict, repr=False, compare=False)

    def of(self, names: Sequence[str]) -> Range:
        """The range that serves all these tensors, of which some are known."""
        settled = [self.fixed[name] for name in names if name in self.fixed]
        if settled:
            return min(low for low, _ in settled), max(high for _, high in settled)
        key = tuple(names)
        if key not in self._found:
            self._found[key] = self._estimated(names)
        return self._found[key]

    def of_spec(self, spec: Spec) -> Ranges:
        """The same of another format; ranges that were fixed for this one clip in no wider one."""
        fixed = self.fixed if spec.clipping_pays else {}
        return replace(self, fixed=fixed, spec=spec, _parts={}, _found={})

    def _estimated(self, names: Sequence[str]) -> Range:
        if self.method == AUTO and not self.whole.isdisjoint(names):
            return self.roomy(names)
        if not self.spec.clipping_pays and self.method in BY_ERROR:
            return self.bounds(names)
        if self.method == AUTO:
            return self.least(names, self.loss(names))
        levels, symmetric = self.spec.levels, self.spec.symmetric
        return estimate(self.pooled(names), self.method, levels=levels, symmetric=symmetric)

    def least(self, names: Sequence[str], loss: Loss, inner: Range = (0.0, 0.0)) -> Range:
        """The range of these tensors that costs least, of those that hold `inner`."""
        bounds = self.bounds(names)
        return search_fast(bounds, loss, inner) if any(bounds) else bounds

    def width(self, names: Sequence[str]) -> float:
        """From end to end; 0 where nothing is known, or all values are zero."""
        if not any(name in self.tensors or name in self.fixed for name in names):
            return 0.0
        low, high = self.of(names)
        return high - low

    def bounds(self, names: Sequence[str]) -> Range:
        """The range that clips none of the values that were seen."""
        known = [self.tensors[name] for name in names if name in self.tensors]
        low, high = min(each.low for each in known), max(each.high for each in known)
        return bounds_of(min(low, 0.0), max(high, 0.0), symmetric=self.spec.symmetric)

    def roomy(self, names: Sequence[str]) -> Range:
        """The range that has room for values beyond those that were seen."""
        low, high = self.bounds(names)
        room = ROOM * (high - low)
        return low - room * (low < 0), high + room * (high > 0)

    def pooled(self, names: Sequence[str]) -> Distribution:
        """The values of all these tensors."""
        parts = [(self.tensors[n], self.gains.get(n)) for n in names if n in self.tensors]
        return distribution(parts)

    def loss(self, names: Sequence[str], power: int = 2) -> Loss:
        """What a range costs these tensors behind what reads them; see `calibration.behind`.

        Those that are only moved on count where they arrive: elements would count twice.
        """
        known = [name for name in names if name in self.tensors]
        ends = [name for name in known if self._ends(name)] or known
        parts = {name: self._part(name) for name in ends}
        alike = [name for name, part in parts.items() if part is None]
        own = [part for part in parts.values() if part is not None]
        return loss_of([*([plain(self.pooled(alike))] if alike else []), *own], self.spec.levels,
                       power)  # fmt: skip

    def _ends(self, name: str) -> bool:
        """Whether something other than a mover of values reads the tensor."""
        return self.graph.is_exposed(name) or not all(
            (row := operator_of(use.node)) is not None and row.quantized is QuantizedRule.SHARED
            for use in self.graph.consumers(name)
        )

    def _part(self, name: str) -> Part | None:
        """The values of a tensor behind the function that reads it; None where they are read as
        they are.
        """
        if name not in self._parts:
            self._parts[name] = self._at_root(name) or self._between(name)
        return self._parts[name]

    def _at_root(self, name: str) -> Part | None:
        """Where all that reads the tensor is a function of it."""
        function = function_of(self.graph, name)
        if function is None:
            return None
        data = self.pooled([name])
        values, counts = _without_gaps(data)
        # An error is up to half a step of the whole range to each side.
        half = max((data.high - data.low) / (self.spec.levels - 1) / 2, SMALLEST)
        image = function.at(values)
        ends = [function.at(values + sign * half) for sign in (-1, 1)]
        if image is None or ends[0] is None or ends[1] is None:
            return None
        return _checked(values, counts, (ends[1] - ends[0]) / (2 * half), image)

    def _between(self, name: str) -> Part | None:
        """Where the tensor is a step within a function of another one, as the gate of a SiLU is."""
        function = within_function(self.graph, name)
        if function is None or function.root not in self.tensors:
            return None
        root = self.pooled([function.root])
        values, image = function.at(root.values, name), function.at(root.values)
        if values is None or image is None:
            return None
        probe = max(PROBE * float(np.abs(values).max(initial=0.0)), SMALLEST)
        changed = function.behind(name, root.values, values + probe)
        return None if changed is None else _checked(values, root.counts, (changed - image) / probe)


def _without_gaps(data: Distribution) -> tuple[Floats, Floats]:
    """Values and counts, with values that do not occur between those that do: a range may end
    there, and the function is not known by its neighbours.
    """
    largest = max(-data.low, data.high)
    if not largest > NEAR:
        return data.values, data.counts
    side = np.geomspace(NEAR, largest, BETWEEN)
    between = np.concatenate([-side, side])
    between = between[(between > data.low) & (between < data.high)]
    return (
        np.concatenate([data.values, between]),
        np.concatenate([data.counts, np.zeros(len(between))]),
    )


def _checked(
    values: Floats, counts: Floats, slope: Floats, image: Floats | None = None
) -> Part | None:
    """A part, unless the function is no number somewhere."""
    arrays = (values, slope) if image is None else (values, slope, image)
    if not all(np.isfinite(each).all() for each in arrays):
        return None
    return part_of(values, counts, slope, image)
