"""Collects second moments of a layer, sample by sample, in two halves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.ahead import map_ahead
from onnxq.data.shelf import Values
from onnxq.model.weights import WeightLayout
from onnxq.quantization.columns import Columns, pick
from onnxq.quantization.moments import Moments
from onnxq.quantization.positions import by_position, positions, roots_of

Array = NDArray[Any]
Floats = NDArray[np.float64]
_Block = tuple[Array, Array, Array, Array | None]
"""Numbers of samples, their columns, their targets and the roots of their weights."""

PENDING = 1 << 23
"""Numbers to collect before they are multiplied: few large products are faster than many small."""

FEW = 2
"""Positions are few where there are at least so many times as many columns."""

WIDE = 2048
"""Columns from which on sums of products are kept in float32, as exact as each of the products is:
of 4,608 columns a matrix of float64 takes 170 MB."""

ORDINARY = 32
"""Largest exponent of values whose squares float32 holds as well as those near 1."""


# Values that are not finite show in the result, `Moments.is_finite`.
@np.errstate(over="ignore", invalid="ignore")
def collect_moments(
    layout: WeightLayout,
    columns: Columns,
    inputs: Sequence[Array],
    targets: Sequence[Array],
    *,
    centered: bool,
    bias: Array | None = None,
    real: Sequence[Array | None] = (),
    weights: Sequence[Array] | None = None,
) -> tuple[Moments, Moments] | None:
    """Moments of every other sample, and of those between; None for fewer than two samples.

    Args:
        inputs, targets: activations and outputs of the layer, group by group.
        bias: (outputs,) to take from the targets first.
        real: of each group which targets are no padding, see `by_position`; () for all of all.
        weights: of each group (samples, positions), what errors there count; None for all alike.
    """
    activations, outputs = Values.of(inputs), Values.of(targets)
    halves = (_Collector(centered), _Collector(centered))
    origins: list[Array] = []
    sizes = [shape[0] if len(shape) > 1 else 1 for shape in outputs.shapes]

    def look(group: int) -> list[_Block]:
        # No row of any sample may have come here, as to an expert that a router leaves out.
        if 0 in outputs.shapes[group]:
            return []
        first = sum(sizes[:group])
        kept = by_position(real[group], outputs.shapes[group], layout) if real else None
        blocks = []
        for chosen in max(outputs.pieces(group), activations.pieces(group), key=len):
            x, t = activations.rows(group, chosen), outputs.rows(group, chosen)
            rows = np.moveaxis(np.atleast_2d(t), layout.output_axis, 1)
            rows = rows.reshape(len(rows), layout.outputs, -1)
            start = first + chosen.start
            here = None if kept is None else kept[chosen]
            for some, index in positions(start, len(rows), rows.shape[2], here):
                # Most often all of them, which need no copy.
                taken = slice(None) if len(some) == len(rows) else some
                picked = pick(rows[taken], index[:, None], layout.groups)
                if bias is not None:
                    picked -= bias.astype(np.float32).reshape(layout.groups, -1, 1, 1)
                found = columns.of(np.atleast_2d(x)[taken], index)
                roots = roots_of(weights[group][chosen][some], index) if weights else None
                blocks.append((start + some, found, picked, roots))
        return _joined(blocks) if kept is None else blocks

    for block in chain.from_iterable(map_ahead(look, range(len(sizes)), ahead=1)):
        if not origins:
            # Far from 0 float32 sums of squares would swallow what the covariance is made of.
            origins = [v.mean(axis=(2, 3), keepdims=True) * centered for v in block[1:3]]
        _hand_out(block, origins, halves)
    if not all(half.pending or half.has_multiplied for half in halves):
        return None
    basis = _basis(halves)
    fitted, unseen = map_ahead(lambda half: half.moments(basis), halves)
    return fitted, unseen


def _hand_out(block: _Block, origins: Sequence[Array], halves: Sequence[_Collector]) -> None:
    """Give each half its samples, counted from the origins and times the roots."""
    numbers, found, wanted, roots = block
    for values, origin in zip((found, wanted), origins, strict=True):
        np.subtract(values, origin, out=values)
        if roots is not None:
            np.multiply(values, roots, out=values)
    for half, collector in enumerate(halves):
        chosen = numbers % 2 == half
        if chosen.any():
            some = None if roots is None else roots[chosen]
            collector.add(found[:, :, chosen], wanted[:, :, chosen], some)


def _joined(blocks: Sequence[_Block]) -> list[_Block]:
    """The samples of a group in one block."""
    numbers, found, wanted, roots = zip(*blocks, strict=True)
    if len(numbers) == 1:
        return list(blocks)
    joined = None if roots[0] is None else np.concatenate(roots)
    return [(np.concatenate(numbers), np.concatenate(found, 2), np.concatenate(wanted, 2), joined)]


def _basis(halves: Sequence[_Collector]) -> Floats | None:
    """An orthonormal basis of all columns: (groups, columns, positions); None if they are many."""
    parts = [columns for half in halves for columns, _, _ in half.pending]
    positions = sum(part[0, 0].size for part in parts)
    if any(half.has_multiplied for half in halves) or FEW * positions > parts[0].shape[1]:
        return None
    joined, _ = _side_by_side(parts)
    if not np.isfinite(joined).all():
        return None
    return np.asarray(np.linalg.qr(joined.astype(np.float64)).Q)


class _Collector:
    """Adds up products, many columns at a time.

    Attributes:
        pending: columns, targets and roots of weights that are not multiplied yet.
    """

    def __init__(self, centered: bool) -> None:
        self._centered = centered
        self._total: Moments | None = None
        self.pending: list[tuple[Array, Array, Array | None]] = []

    @property
    def has_multiplied(self) -> bool:
        return self._total is not None

    def add(self, columns: Array, targets: Array, roots: Array | None = None) -> None:
        """Columns and targets of some samples: (groups, columns or outputs, samples, chosen), both
        times the roots (samples, chosen).
        """
        self.pending.append((columns, targets, roots))
        if sum(x.size + t.size for x, t, _ in self.pending) > PENDING:
            self._multiply(None)

    def moments(self, basis: Floats | None) -> Moments:
        """Of all that was added."""
        return self._multiply(basis) if self.pending or self._total is None else self._total

    def _multiply(self, basis: Floats | None) -> Moments:
        """Multiply what is pending, at least one sample; the total."""
        columns, targets, roots = zip(*self.pending, strict=True)
        self.pending = []
        x, unit = _side_by_side(columns, ones=1)
        if roots[0] is not None:
            x[:, -1] = np.concatenate([each.ravel() for each in roots])
        t, target = _side_by_side(targets)
        if basis is not None:
            x = np.concatenate([basis.swapaxes(1, 2) @ x[:, :-1], x[:, -1:]], axis=1)
            t = t.astype(np.float64)
        units = np.append(np.full(x.shape[1] - 1, unit), 1.0)
        across = x.swapaxes(1, 2)
        # In place: of thousands of columns each of these takes hundreds of megabytes.
        gram, cross = x @ across, (t @ across).astype(np.float64)
        if len(units) <= WIDE or unit != 1:
            gram = gram.astype(np.float64)
            gram *= units[:, None]
            gram *= units
        cross *= target
        cross *= units
        squares = np.square(t).sum(axis=2, dtype=np.float64) * target**2
        if self._total is None:
            self._total = Moments(gram, cross, squares, self._centered, basis)
        else:
            total = self._total
            sums = (
                _add(total.gram, gram), _add(total.cross, cross), _add(total.squares, squares),
            )  # fmt: skip
            self._total = Moments(*sums, self._centered, basis)
        return self._total


def _add(total: Array, new: Array) -> Array:
    """The sum, in place where its type holds what is added."""
    if np.result_type(total, new) != total.dtype:
        return np.asarray(total + new)
    total += new
    return total


def _side_by_side(parts: Sequence[Array], ones: int = 0) -> tuple[Array, float]:
    """(groups, rows, samples, chosen) parts as one (groups, rows + `ones`, all), and their unit.

    Values count in units of a power of two near the largest, which changes no bit of their
    products: float32 squares of 1e20 or 1e-30 are no numbers.
    """
    groups, rows = parts[0].shape[:2]
    joined = np.empty((groups, rows + ones, sum(v[0, 0].size for v in parts)), np.float32)
    joined[:, rows:] = 1
    start = 0
    for part in parts:
        stop = start + part[0, 0].size
        # An axis that is split gives a view.
        joined[:, :rows, start:stop].reshape(part.shape)[...] = part
        start = stop
    values = joined[:, :rows]
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    exponent = math.frexp(largest)[1] if math.isfinite(largest) else 0
    if abs(exponent) <= ORDINARY:
        return joined, 1.0
    np.ldexp(values, -exponent, out=values)
    return joined, math.ldexp(1.0, exponent)
