"""What sums say of outputs: numbers of each, and of the parts of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from onnxq.closeness.groups import cut_groups, spans, uneven_axis
from onnxq.closeness.spread import standard_error
from onnxq.closeness.sums import COUNT, NOISE, SIGNAL, Sums, cosine_of


@dataclass(frozen=True)
class Part:
    """An output, or a group of its slices.

    Attributes:
        axis, slices: which; None and () for the whole output.
        rms: of the reference.
        sqnr: dB; inf where identical, NaN where nothing was compared.
        cosine: of the whole output the mean of the samples' cosines, of a group that of all its
            values together.
        sqnr_error: standard error of `sqnr` for the choice of the samples, dB; NaN where it cannot
            be told, as of one sample.
    """

    output: str
    axis: int | None
    slices: tuple[int, ...]
    rms: float
    sqnr: float
    cosine: float
    sqnr_error: float = math.nan

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
        left_out: values that are padding, and were not compared, %.
    """

    name: str
    is_float: bool
    whole: Part
    groups: tuple[Part, ...]
    largest_error: float
    equal: float
    other_shape: float
    left_out: float = 0.0

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
        math.nan if nothing else standard_error(
            sums.spread[SIGNAL], sums.spread[NOISE], sums.spread[COUNT]
        ),
    )  # fmt: skip
    return OutputCloseness(
        name, sums.is_float, whole, () if nothing else tuple(_groups(name, sums)),
        sums.largest if sums.is_float else math.nan,
        100 * sums.equal / sums.values if sums.values else math.nan,
        100 * sums.other_shape / max(sums.samples + sums.other_shape, 1),
        100 * sums.left_out / max(sums.values + sums.left_out, 1),
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
            decibels(powers[SIGNAL], powers[NOISE]), float(cosine_of(powers)),
            _error_of(sums, axis, indices),
        )  # fmt: skip


def _error_of(sums: Sums, axis: int, indices: tuple[int, ...]) -> float:
    """Standard error of a group's SQNR; NaN along an axis whose samples were not kept apart."""
    apart = sums.slice_spread.get(axis)
    if apart is None:
        return math.nan
    powers = apart[:, list(indices)].sum(axis=1)
    return standard_error(powers[SIGNAL], powers[NOISE], sums.spread[COUNT])
