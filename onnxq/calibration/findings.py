"""What is odd about a calibration: values that are not finite, dead channels, unstable ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.calibration.statistics import Calibration, TensorStatistics

NOT_FINITE, ZERO, CONSTANT, UNSTABLE = "not-finite", "all-zero", "constant", "unstable-range"

DIFFERENCE = 0.25
"""Relative difference between the ranges of two halves of the data that counts as unstable."""

SHARE = 0.1
"""Share of unstable tensors above which there are too few samples."""


@dataclass(frozen=True)
class Finding:
    """One oddity of one tensor.

    Attributes:
        kind: "not-finite", "all-zero" (dead channels), "constant" or "unstable-range".
        channels: those concerned, by index along the tensor's channel axis; empty for the range.
        text: the finding in words.
    """

    tensor: str
    kind: str
    channels: tuple[int, ...]
    text: str


def find_oddities(calibration: Calibration) -> tuple[Finding, ...]:
    """All findings, by tensor."""
    return tuple(
        finding
        for name, statistics in calibration.tensors.items()
        for finding in _of_tensor(name, statistics)
    )


def too_few_samples(calibration: Calibration) -> str:
    """Why the ranges are not to be trusted yet; "" where they are, or where a shard is looked at.

    The ranges of one half of the samples are compared with those of the other.
    """
    known = {n: t.halves for n, t in calibration.tensors.items() if t.halves is not None}
    if not known or calibration.shards != ((1, 1),):
        return ""
    halves = {name: each for name, each in known.items() if np.isfinite(each).all()}
    if not halves:
        return "too few samples to tell whether the ranges are stable: take more"
    changes = {name: _difference(each) for name, each in halves.items()}
    unstable = [name for name, change in changes.items() if change > DIFFERENCE]
    if len(unstable) <= SHARE * len(halves):
        return ""
    worst = max(changes, key=lambda name: changes[name])
    return (
        f"the ranges of {len(unstable)} of {len(halves)} tensors differ by more than "
        f"{DIFFERENCE:.0%} between two halves of the data, most that of {worst} "
        f"({_range_text(halves[worst])}): take more samples"
    )


def _of_tensor(name: str, statistics: TensorStatistics) -> Iterator[Finding]:
    first = statistics.first_not_finite
    if statistics.not_finite:
        text = f"{statistics.not_finite} values are NaN or Inf"
        if first is not None:
            text += f", the first is {first.kind} in channel {first.channel} of sample {first.name}"
        yield Finding(name, NOT_FINITE, (first.channel,) if first else (), text)
    low, high = statistics.minimum, statistics.maximum
    # A channel of one value in all is no wonder.
    same = (low == high) & (statistics.counts.sum(axis=1) > 1)
    for kind, found in ((ZERO, same & (low == 0)), (CONSTANT, same & (low != 0))):
        channels = tuple(np.flatnonzero(found).tolist())
        if channels:
            yield Finding(name, kind, channels, _channel_text(kind, channels, statistics))
    halves = statistics.halves
    if halves is not None and np.isfinite(halves).all() and _difference(halves) > DIFFERENCE:
        yield Finding(name, UNSTABLE, (), f"range {_range_text(halves)} in two halves of the data")


def _channel_text(kind: str, channels: tuple[int, ...], statistics: TensorStatistics) -> str:
    what = "always zero" if kind == ZERO else "constant"
    if statistics.axis is None:
        return f"is {what} in every sample"
    shown = ", ".join(map(str, channels[:8])) + (", …" if len(channels) > 8 else "")
    return f"{len(channels)} of {statistics.channels} channels {what} in every sample: {shown}"


def _widths(halves: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[float]:
    """Widths of the two ranges, each of which contains zero."""
    return [max(0.0, float(high)) - min(0.0, float(low)) for low, high in halves]


def _difference(halves: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    small, large = sorted(_widths(halves))
    return (large - small) / large if large > 0 else 0.0


def _range_text(halves: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str:
    (a, b), (c, d) = halves.tolist()
    return f"{a:.3g} to {b:.3g} against {c:.3g} to {d:.3g}"
