"""The ways to quantize a model that `tune` tries, in the order in which it tries them.

Three rounds. First each scheme that the target takes, with the defaults of `quantize`. Then each
scheme that worked with one change at a time, changes that cost little and often help first. Last
what helped a scheme, together. What does not apply to a scheme there is left out, so that all of it
follows from the target's file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxq.formats.scheme import BLOCK_SIZES, DEFAULT, PRESETS, Preset, Scheme
from onnxq.options.quantize import QuantizeOptions, RangeEstimator, WeightRounding, WeightScales
from onnxq.targets import Target

HELPS = 0.1
"""dB of SQNR of the worst output from which on a change counts as a help."""

FLOAT_BITS = 32

WEIGHTS_ALONE = 0.5
"""About how long a scheme without known ranges takes, by one with them."""


@dataclass(frozen=True)
class Candidate:
    """One way to quantize.

    Attributes:
        scheme: name of the scheme.
        changes: options of `quantize` that have not their defaults, besides the scheme, with their
            values.
    """

    scheme: str
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Such as "w8a8, mixed 10 %"."""
        return ", ".join([self.scheme, *(_said(*each) for each in self.changes)])

    @property
    def settings(self) -> dict[str, Any]:
        """Option of `onnxq quantize` → value, as users write them."""
        return {"scheme": self.scheme, **dict(self.changes)}

    def options(self, base: QuantizeOptions) -> QuantizeOptions:
        """The options that make it, all others as in `base`."""
        return replace(base, **self.settings)


def _said(option: str, value: Any) -> str:
    if option == "mixed":
        return f"mixed {100 * value:g} %"
    if option == "block_size":
        return f"blocks of {value}"
    return str(value) if option == "weights" else f"{option} {value}"


@dataclass(frozen=True)
class Change:
    """One option that may be changed.

    Attributes:
        option: of `quantize`.
        makes_sense: for which schemes of which targets.
        cost: about how long a candidate with it takes, by its scheme without it (measured on
            SqueezeNet): mixing goes on from that one, fixed ranges need no gradients.
    """

    option: str
    value: Any
    makes_sense: Callable[[Target, Scheme, Preset], bool]
    cost: float = 1.0


def _has_weights(_target: Target, scheme: Scheme, _preset: Preset) -> bool:
    return scheme.weight is not None


def _rounds(_target: Target, scheme: Scheme, _preset: Preset) -> bool:
    """Whether weights have equal steps, between which rounding has a choice that pays."""
    return scheme.weight is not None and not scheme.floating


def _clips(_target: Target, scheme: Scheme, _preset: Preset) -> bool:
    return scheme.static is not None and scheme.static.clipping_pays


def _has_channels(target: Target, scheme: Scheme, preset: Preset) -> bool:
    """Whether weights have scales by channel, which not all its kernels merge into one."""
    plain = scheme.weight is not None and preset.block is None
    return plain and not target.weighted <= target.one_weight_scale


def _has_blocks(size: int) -> Callable[[Target, Scheme, Preset], bool]:
    return lambda _target, _scheme, preset: preset.block is not None and preset.block != size


_NEAREST, _TENSOR = WeightRounding.NEAREST.value, WeightScales.PER_TENSOR.value

CHANGES: tuple[Change, ...] = (
    Change("mixed", 0.1, _has_weights, 0.6),
    Change("rounding", _NEAREST, _rounds, 0.7),
    Change("ranges", RangeEstimator.MSE.value, _clips, 0.7),
    Change("mixed", 0.25, _has_weights, 0.6),
    *(Change("block_size", size, _has_blocks(size)) for size in BLOCK_SIZES),
    Change("ranges", RangeEstimator.MINMAX.value, _clips, 0.7),
    Change("ranges", RangeEstimator.PERCENTILE.value, _clips, 0.7),
    Change("ranges", RangeEstimator.ENTROPY.value, _clips, 0.7),
    Change("weights", _TENSOR, _has_channels),
    Change("mixed", 0.5, _has_weights, 0.6),
)
"""In the order in which they are tried."""

Found = Mapping[Candidate, float]
"""Candidate → SQNR of the worst output, dB; NaN for one that could not be made."""

Round = Callable[[Target, Sequence[str], Found], list[Candidate]]


def schemes_of(target: Target, asked: Sequence[str]) -> list[str]:
    """The schemes to try: the default before all, what uses fewer bits than it may at the end.

    Raises:
        UsageError: the target does not take one that was asked for.
    """
    for name in asked:
        target.scheme(name)

    return sorted(
        asked or target.schemes,
        key=lambda name: (name != DEFAULT, bool(PRESETS[name].used_bits)),
    )


def alone(_target: Target, schemes: Sequence[str], _found: Found) -> list[Candidate]:
    """The first round: each scheme as it is."""
    return [Candidate(name) for name in schemes]


def changed(target: Target, schemes: Sequence[str], found: Found) -> list[Candidate]:
    """The second round: one change at a time, to each scheme that worked."""
    working = [name for name in schemes if _works(found, Candidate(name))]
    return [
        Candidate(name, ((change.option, change.value),))
        for change in CHANGES
        for name in working
        if change.makes_sense(target, target.scheme(name), PRESETS[name])
    ]


def together(_target: Target, schemes: Sequence[str], found: Found) -> list[Candidate]:
    """The third round: of each scheme the changes that helped, joined; with and without mixing."""
    joined = []
    for name in schemes:
        plain = Candidate(name)
        if not _works(found, plain):
            continue
        gains: dict[tuple[str, Any], float] = {}
        for change in CHANGES:
            single = (change.option, change.value)
            gain = found.get(Candidate(name, (single,)), math.nan) - found[plain]
            if gain > HELPS:
                gains[single] = gain
        best: dict[str, tuple[str, Any]] = {}
        for single in sorted(gains, key=lambda each: -gains[each]):
            best.setdefault(single[0], single)
        others = tuple(each for option, each in best.items() if option != "mixed")
        if len(others) > 1:
            joined.append(Candidate(name, others))
        shares = [single for single in gains if single[0] == "mixed"]
        joined += [Candidate(name, (*others, share)) for share in shares if others]
    return joined


ROUNDS: tuple[Round, ...] = (alone, changed, together)


def _works(found: Found, candidate: Candidate) -> bool:
    value = found.get(candidate)
    return value is not None and not math.isnan(value)


def expected_seconds(
    candidate: Candidate, target: Target, taken: Mapping[Candidate, float]
) -> float:
    """How long it may take, by those that are done; 0 where none is.

    Args:
        taken: candidate → seconds.
    """
    options = [option for option, _ in candidate.changes]
    like = [
        seconds for each, seconds in taken.items()
        if each.scheme == candidate.scheme and [option for option, _ in each.changes] == options
    ]  # fmt: skip
    if like:
        return max(like)
    plain = taken.get(Candidate(candidate.scheme))
    if plain is None:
        known = {each: seconds for each, seconds in taken.items() if not each.changes}
        has_ranges = _has_ranges(candidate, target)
        plain = max(
            (
                seconds * (WEIGHTS_ALONE if has_ranges < _has_ranges(each, target) else 1.0)
                for each, seconds in known.items()
            ),
            default=0.0,
        )
    costs = [change.cost for change in CHANGES
             if (change.option, change.value) in candidate.changes]  # fmt: skip
    return plain * (costs[0] if len(costs) == 1 else 1.0)


def _has_ranges(candidate: Candidate, target: Target) -> bool:
    return target.scheme(candidate.scheme).static is not None


def activation_bits(candidate: Candidate, target: Target) -> float:
    """Mean width of what layers read: what decides the speed where nothing can be timed."""
    scheme = target.scheme(candidate.scheme)
    share = float(dict(candidate.changes).get("mixed", 0.0))
    return (1 - share) * _bits(scheme) + share * _bits(scheme.wider)


def _bits(scheme: Scheme | None) -> int:
    rounded = None if scheme is None else scheme.rounded
    return FLOAT_BITS if rounded is None else rounded.format.bits
