"""Sums over batches that tell how close one output is to another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness.groups import axes_of_positions
from onnxq.closeness.spread import BUCKETS, dealt, joined

Array = NDArray[Any]

MOST_SLICES = 4096
"""Slices of an axis along which groups are looked for; longer ones enumerate places or words."""

MOST_SPREAD = 512
"""Slices of an axis whose samples are kept apart, to tell how far the SQNR of a group may be off:
each takes a kilobyte."""

BLOCK = 1 << 20
"""Values that are summed at a time."""

SIGNAL, NOISE, PRODUCT, POWER = range(4)
"""Rows of sums: Σx², Σ(x − y)², Σxy, Σy² of reference values x and values y."""

COUNT = 2
"""Row of `Sums.spread` behind `SIGNAL` and `NOISE`."""


@dataclass(frozen=True)
class Sums:
    """What one output of one model adds up to over samples.

    Attributes:
        samples, other_shape: samples compared; samples that could not be, for their shape.
        values, equal: elements compared; those that are the same.
        left_out: elements that are padding, and were not compared.
        largest: largest |x − y|.
        powers: (4,) of all values.
        cosines: Σ of the samples' cosines, their number.
        slices: axis → (4, slices along it), for axes of one size in all samples.
        spread: (3, buckets) signal, noise and samples of all values; see `closeness.spread`.
        slice_spread: axis → (2, slices along it, buckets), for axes of up to `MOST_SPREAD`.
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
    spread: Array = field(default_factory=lambda: np.zeros((3, BUCKETS)))
    slice_spread: Mapping[int, Array] = field(default_factory=dict)
    left_out: int = 0

    def __add__(self, other: Sums) -> Sums:
        if not (self.samples and other.samples):
            there = self if self.samples else other
            slices, slice_spread = there.slices, there.slice_spread
        else:
            slices = {
                axis: mine + other.slices[axis]
                for axis, mine in self.slices.items()
                if axis in other.slices and other.slices[axis].shape == mine.shape
            }
            slice_spread = {
                axis: joined(mine, other.slice_spread[axis], self.samples)
                for axis, mine in self.slice_spread.items()
                if axis in slices
            }
        return Sums(
            self.is_float, self.samples + other.samples, self.other_shape + other.other_shape,
            self.values + other.values, self.equal + other.equal,
            max(self.largest, other.largest), self.powers + other.powers,
            self.cosines + other.cosines, slices,
            joined(self.spread, other.spread, self.samples), slice_spread,
            self.left_out + other.left_out,
        )  # fmt: skip


def sums_of(
    reference: Mapping[str, Any],
    outputs: Mapping[str, Any],
    samples: int,
    real: Mapping[str, Array] = MappingProxyType({}),
) -> dict[str, Sums]:
    """Compare the outputs of one run.

    Args:
        reference: name → value of each output; what to compare.
        outputs: the same of the other model.
        samples: samples that ran at once.
        real: output → which of its values are no padding, an array that it broadcasts with: along
            its first axis as long as the output, and along the one that counts tokens, if that is
            another; outputs that are not named have no padding.
    """
    return {
        name: _without_padding(as_array(wanted), as_array(outputs[name]), samples, real[name])
        if name in real
        else _compared(as_array(wanted), as_array(outputs[name]), samples)
        for name, wanted in reference.items()
    }


def _without_padding(wanted: Array, got: Array, samples: int, real: Array) -> Sums:
    """`_compared` of one sample after the other, without its padding."""
    if wanted.shape != got.shape or not real.any():
        return _compared(wanted, got, samples)
    total = Sums(is_float(wanted))
    counted = len(wanted) == samples
    for row, kept in enumerate(real.reshape(samples, -1)):
        if counted:
            axis = int(np.argmax(real.shape[1:]))
            one, other = (np.compress(kept, each[row], axis)[None] for each in (wanted, got))
        else:
            here = slice(row * kept.size, (row + 1) * kept.size)
            one, other = (each[here][kept][None] for each in (wanted, got))
        if kept.any():
            total += _compared(one, other, 1)
    return replace(total, left_out=wanted.size - total.values)


def add_sums(total: dict[str, Sums], more: Mapping[str, Sums]) -> None:
    """Add those of one run to those of the runs before, output by output."""
    for name, sums in more.items():
        total[name] = total[name] + sums if name in total else sums


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
    positions = axes_of_positions(wanted.shape[1:]) if batched else ()
    axes = [
        axis
        for axis in range(int(batched), wanted.ndim)
        if 1 < wanted.shape[axis] <= MOST_SLICES and axis - 1 not in positions
    ]
    slices = {axis: np.zeros((4, wanted.shape[axis])) for axis in axes}
    apart = {axis: np.zeros((2, wanted.shape[axis], BUCKETS)) for axis in axes
             if wanted.shape[axis] <= MOST_SPREAD}  # fmt: skip
    powers, cosines, largest, spread = np.zeros(4), np.zeros(2), 0.0, np.zeros((3, BUCKETS))
    rows = max(1, BLOCK * len(wanted) // max(wanted.size, 1)) if batched else max(len(wanted), 1)
    for start in range(0, len(wanted), rows):
        products = _products(wanted[start : start + rows], got[start : start + rows])
        over_rows = products.sum(axis=1, keepdims=True) if batched else products
        for axis in axes:
            others = tuple(a + 1 for a in range(wanted.ndim) if a != axis)
            slices[axis] += over_rows.sum(axis=others)
            if axis in apart:
                apart[axis] += dealt(_by_slice(products, axis, batched=batched), start)
        each = products.reshape(4, products.shape[1] if batched else 1, -1).sum(axis=2)
        powers += each.sum(axis=1)
        spread += dealt(np.stack([each[SIGNAL], each[NOISE], np.ones(each.shape[1])]), start)
        cosines += (cosine_of(each).sum(), each.shape[1])
        largest = max(largest, math.sqrt(float(products[NOISE].max(initial=0.0))))
    return Sums(True, samples, 0, wanted.size, equal, largest, powers, cosines, slices, spread,
                apart)  # fmt: skip


def _by_slice(products: Array, axis: int, *, batched: bool) -> Array:
    """(2, slices, samples): signal and noise; what has no batch axis counts as one sample."""
    kept = (0, axis + 1, 1) if batched else (0, axis + 1)
    others = tuple(each for each in range(products.ndim) if each not in kept)
    sums = products[: NOISE + 1].sum(axis=others)
    return np.asarray(sums.transpose(0, 2, 1) if batched else sums[..., None])


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


def cosine_of(powers: Array) -> Array:
    """Cosines from sums (4, …): 1 where the vectors are the same, 0 where one is nothing."""
    norms = np.sqrt(powers[SIGNAL]) * np.sqrt(powers[POWER])
    cosines = np.where(norms > 0, powers[PRODUCT] / np.where(norms > 0, norms, 1.0), 0.0)
    result: Array = np.where(powers[NOISE] == 0, 1.0, cosines)
    return result
