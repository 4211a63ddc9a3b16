"""How close a model's outputs are to another's: each output by itself, and the parts of it.

An output may hold things of several sizes, such as boxes in pixels beside scores in 0…1; one ratio
over all of it tells of the largest only. So the slices along one of its axes are put in order of
their rms, cut into groups where neighbors differ `GAP` times (`cut_groups`), and each group has
numbers of its own. Axis and groups follow from the reference alone, and from sums that add over
batches: memory does not grow with the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GAP = 10.0
"""Ratio of the rms of two neighboring slices from which on they are of two groups."""

MOST_SLICES = 4096
"""Slices of an axis along which groups are looked for; longer ones enumerate places or words."""

BLOCK = 1 << 20
"""Values that are summed at a time."""

SIGNAL, NOISE, PRODUCT, POWER = range(4)
"""Rows of sums: Σx², Σ(x − y)², Σxy, Σy² of reference values x and values y."""


@dataclass(frozen=True)
class Sums:
    """What one output of one model adds up to over samples.

    Attributes:
        samples, other_shape: samples compared; samples that could not be, for their shape.
        values, equal: elements compared; those that are the same.
        largest: largest |x − y|.
        powers: (4,) of all values.
        cosines: Σ of the samples' cosines, their number.
        slices: axis → (4, slices along it), for axes of one size in all samples.
    """

    is_float: bool
    samples: int = 0
    other_shape: int = 0
    values: int = 0
    equal: int = 0
    largest: float = 0.0
    powers: Array = field(default_factory=lambda: np.zeros(4))
    cosines: Array = field(default_factory=lambda: np.zeros(2))
    slices: Mapping[int, Array] = field(default_factory=dict)

    def __add__(self, other: Sums) -> Sums:
        if not (self.samples and other.samples):
            slices = self.slices if self.samples else other.slices
        else:
            slices = {
                axis: mine + other.slices[axis]
                for axis, mine in self.slices.items()
                if axis in other.slices and other.slices[axis].shape == mine.shape
            }
        return Sums(
            self.is_float, self.samples + other.samples, self.other_shape + other.other_shape,
            self.values + other.values, self.equal + other.equal,
            max(self.largest, other.largest), self.powers + other.powers,
            self.cosines + other.cosines, slices,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An output, or a group of its slices.

    Attributes:
        axis, slices: which; None and () for the whole output.
        rms: of the reference.
        sqnr: dB; inf where identical, NaN where nothing was compared.
        cosine: of the whole output the mean of the samples' cosines, of a group that of all its
            values together.
    """

    output: str
    axis: int | None
    slices: tuple[int, ...]
    rms: float
    sqnr: float
    cosine: float

    @property
    def label(self) -> str:
        """Such as "output0 (axis 1: 4–21)"."""
        if self.axis is None:
            return self.output
        return f"{self.output} (axis {self.axis}: {spans(self.slices)})"


@dataclass(frozen=True)
class OutputCloseness:
    """One output against the reference's.

    Attributes:
        whole: all of it; its numbers are NaN unless it is float.
        groups: its groups of slices, the loudest first; () where they are all alike.
        largest_error: largest |x − y|.
        equal: elements that are the same, %.
        other_shape: samples that could not be compared for their shape, %.
    """

    name: str
    is_float: bool
    whole: Part
    groups: tuple[Part, ...]
    largest_error: float
    equal: float
    other_shape: float

    @property
    def parts(self) -> tuple[Part, ...]:
        """What a verdict looks at; nothing of an integer output, which decides nothing."""
        return (self.whole, *self.groups) if self.is_float else ()


def worst(outputs: Iterable[OutputCloseness], value: Callable[[Part], float]) -> Part | None:
    """The part with the smallest value, one without a value before all; None without parts."""
    parts = [part for output in outputs for part in output.parts]
    return min(parts, key=lambda part: _order(value(part)), default=None)


def worst_sqnr(outputs: Iterable[OutputCloseness]) -> float:
    """SQNR of the worst part, dB; NaN where nothing was compared."""
    part = worst(outputs, lambda each: each.sqnr)
    return math.nan if part is None else part.sqnr


def _order(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def sums_of(
    reference: Mapping[str, Any], outputs: Mapping[str, Any], samples: int
) -> dict[str, Sums]:
    """Compare the outputs of one run.

    Args:
        reference: name → value of each output; what to compare.
        outputs: the same of the other model.
        samples: samples that ran at once.
    """
    return {
        name: _compared(as_array(wanted), as_array(outputs[name]), samples)
        for name, wanted in reference.items()
    }


def as_array(value: Any) -> Array:
    """What ONNX Runtime gives, as one array: of maps a row each, of a sequence all values."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list):
        if value and all(isinstance(each, dict) for each in value):
            return np.asarray([list(each.values()) for each in value])
        return np.concatenate([as_array(each).ravel() for each in value] or [np.empty(0)])
    return np.asarray(value)


def is_float(values: Array) -> bool:
    """Whether the values are of a float type, NumPy's or bfloat16."""
    return is_float_type(values.dtype)


def is_float_type(kind: np.dtype[Any]) -> bool:
    """Whether an element type is a float one, NumPy's or bfloat16."""
    return kind.kind == "f" or kind.name == "bfloat16"


def _compared(wanted: Array, got: Array, samples: int) -> Sums:
    floating = is_float(wanted)
    if wanted.shape != got.shape:
        return Sums(floating, other_shape=samples)
    equal = int(np.count_nonzero(wanted == got))
    if not floating:
        return Sums(False, samples, 0, wanted.size, equal)
    wanted, got = np.atleast_1d(wanted), np.atleast_1d(got)
    batched = len(wanted) == samples
    axes = [
        axis
        for axis in range(int(batched), wanted.ndim)
        if 1 < wanted.shape[axis] <= MOST_SLICES
    ]  # fmt: skip
    slices = {axis: np.zeros((4, wanted.shape[axis])) for axis in axes}
    powers, cosines, largest = np.zeros(4), np.zeros(2), 0.0
    rows = max(1, BLOCK * len(wanted) // max(wanted.size, 1)) if batched else max(len(wanted), 1)
    for start in range(0, len(wanted), rows):
        products = _products(wanted[start : start + rows], got[start : start + rows])
        over_rows = products.sum(axis=1, keepdims=True) if batched else products
        for axis in axes:
            others = tuple(a + 1 for a in range(wanted.ndim) if a != axis)
            slices[axis] += over_rows.sum(axis=others)
        each = products.reshape(4, products.shape[1] if batched else 1, -1).sum(axis=2)
        powers += each.sum(axis=1)
        cosines += (_cosine(each).sum(), each.shape[1])
        largest = max(largest, math.sqrt(float(products[NOISE].max(initial=0.0))))
    return Sums(True, samples, 0, wanted.size, equal, largest, powers, cosines, slices)


def _products(wanted: Array, got: Array) -> Array:
    """(4, …): what `Sums.powers` adds up. What is not finite in one only is an infinite error."""
    x, y = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.all():
        error = x - y
    else:
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
        error = np.where(finite | same, x - y, np.inf)
    return np.stack([x * x, error * error, x * y, y * y])


def _cosine(powers: Array) -> Array:
    """Cosines from sums (4, …): 1 where the vectors are the same, 0 where one is nothing."""
    norms = np.sqrt(powers[SIGNAL]) * np.sqrt(powers[POWER])
    cosines = np.where(norms > 0, powers[PRODUCT] / np.where(norms > 0, norms, 1.0), 0.0)
    result: Array = np.where(powers[NOISE] == 0, 1.0, cosines)
    return result


def decibels(signal: float, noise: float) -> float:
    """Signal over noise, dB; inf without noise, −inf for noise alone."""
    if noise == 0:
        return math.inf
    if signal == 0 or math.isinf(noise):
        return -math.inf
    return 10 * (math.log10(signal) - math.log10(noise))


def closeness(sums: Mapping[str, Sums]) -> tuple[OutputCloseness, ...]:
    """What sums over all samples say of each output."""
    return tuple(_closeness(name, each) for name, each in sums.items())


def _closeness(name: str, sums: Sums) -> OutputCloseness:
    nothing = not (sums.is_float and sums.values)
    whole = Part(
        name, None, (),
        math.nan if nothing else math.sqrt(sums.powers[SIGNAL] / sums.values),
        math.nan if nothing else decibels(sums.powers[SIGNAL], sums.powers[NOISE]),
        math.nan if nothing else float(sums.cosines[0] / sums.cosines[1]),
    )  # fmt: skip
    return OutputCloseness(
        name, sums.is_float, whole, () if nothing else tuple(_groups(name, sums)),
        sums.largest if sums.is_float else math.nan,
        100 * sums.equal / sums.values if sums.values else math.nan,
        100 * sums.other_shape / max(sums.samples + sums.other_shape, 1),
    )  # fmt: skip


def _groups(name: str, sums: Sums) -> Iterator[Part]:
    axis = uneven_axis({axis: each[SIGNAL] for axis, each in sums.slices.items()})
    if axis is None:
        return
    found = sums.slices[axis]
    groups = cut_groups(found[SIGNAL])
    if len(groups) == 1:
        return
    per_slice = sums.values / found.shape[1]
    for indices in groups:
        powers = found[:, list(indices)].sum(axis=1)
        yield Part(
            name, axis, indices, math.sqrt(powers[SIGNAL] / (per_slice * len(indices))),
            decibels(powers[SIGNAL], powers[NOISE]), float(_cosine(powers)),
        )  # fmt: skip


def uneven_axis(powers: Mapping[int, Array]) -> int | None:
    """The axis whose slices' rms differ most; None where no slices differ.

    Args:
        powers: axis → Σx² of each of its slices.
    """
    spread = {}
    for axis, each in sorted(powers.items()):
        present = each[each > 0]
        if len(present) > 1:
            # Rounded, so that the order in which batches were added decides nothing.
            spread[axis] = float(f"{present.max() / present.min():.9g}")
    return max(spread, key=lambda axis: spread[axis], default=None)


def cut_groups(powers: Array) -> tuple[tuple[int, ...], ...]:
    """Indices of slices in groups, the loudest first: see `GAP`.

    In order of rms, a slice begins a group if it is `GAP` times quieter than the one before, and
    by more than that group already spans: among scores that span 80 times, one of a class that
    never occurs is 16 times quieter still, and no thing of another kind. Slices of nothing but
    zeros belong to the quietest group.

    Args:
        powers: Σx² of each slice.
    """
    order = np.argsort(-powers, kind="stable")
    rms = np.sqrt(powers[order])
    cuts, start = [], 0
    for place in range(1, int(np.count_nonzero(rms))):
        # Rounded, so that the order in which batches were added decides nothing.
        ratio, span = (float(f"{rms[a] / rms[b]:.9g}")
                       for a, b in ((place - 1, place), (start, place - 1)))  # fmt: skip
        if ratio >= GAP and ratio > span:
            cuts.append(place)
            start = place
    return tuple(tuple(sorted(map(int, group))) for group in np.split(order, cuts))


def spans(indices: Sequence[int]) -> str:
    """Sorted indices as text: "0–3, 7"."""
    found: list[list[int]] = []
    for index in indices:
        if found and index == found[-1][-1] + 1:
            found[-1][1:] = [index]
        else:
            found.append([index])
    return ", ".join("–".join(map(str, each)) for each in found)
