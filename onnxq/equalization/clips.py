"""How a scale passes a saturating Clip such as ReLU6: the modes of `--relu6`.

`per-channel` moves the bound with each channel's scale (exact, one more kernel); a tie keeps one
scalar bound: channels that saturate keep s = 1, the others stay below it, s_c ≤ bound / max_c (no
kernel; any common scale of the class would do as well). `proven` ties by what interval bounds
allow, so it is exact for every input; `tie` by what calibration saw. `relu` drops the bound where
no calibration value reaches it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.intervals import Interval
from onnxq.equalization.sites import ClipSite, ScaleClasses


@dataclass(frozen=True)
class ClipRecord:
    """What was done with one saturating Clip.

    Attributes:
        mode: "per-channel", "tie", "proven tie" or "relu".
        channels: number of scale classes that pass it.
        saturating: how many of them reach the bound on the calibration data, or for a proven tie
            may reach it; −1 where not known.
    """

    node: str
    mode: str
    channels: int
    saturating: int


@dataclass(frozen=True)
class Variables:
    """The solver's variables.

    Attributes:
        of: class root → number from 1; absent roots are pinned.
        limits: class root → largest log of the factor it may take.
        clips: what was decided for each saturating Clip.
        sites: the Clips to rewrite; one that becomes a Relu has an infinite bound.
    """

    of: Mapping[int, int]
    limits: Mapping[int, float]
    clips: tuple[ClipRecord, ...]
    sites: tuple[ClipSite, ...]


Extremes = Mapping[str, Interval]
"""What is known of the values of each Clip's output."""


def choose_variables(classes: ScaleClasses, extremes: Extremes, mode: str) -> Variables:
    """Number the free classes, tied and limited as the mode asks.

    Args:
        extremes: smallest and largest values behind each Clip: measured, or proven.
        mode: "per-channel", "tie" or "relu"; a Clip without extremes is tied with one scale.
    """
    treated = [_treat(site, extremes.get(site.node.output), mode) for site in classes.clips]
    limits: dict[int, float] = {}
    for item in treated:
        for root, slack in item.limits.items():
            limits[root] = min(slack, limits.get(root, math.inf))
    # A limit of 0 pins for good: the class may neither grow nor, for its partners, shrink.
    pinned = {root for item in treated for root in item.pinned}
    free = [root for root in classes.free.tolist() if root not in pinned]
    of = {root: number for number, root in enumerate(free, start=1)}
    return Variables(
        of, {root: slack for root, slack in sorted(limits.items()) if root in of},
        tuple(item.record for item in treated),
        tuple(item.site for item in treated if item.site is not None),
    )  # fmt: skip


@dataclass(frozen=True)
class _Treated:
    """One Clip's record, the site to rewrite if any, and what it asks of the class roots."""

    record: ClipRecord
    site: ClipSite | None
    pinned: frozenset[int] = frozenset()
    limits: Mapping[int, float] = field(default_factory=dict)


def _treat(site: ClipSite, extremes: Interval | None, mode: str) -> _Treated:
    ids = site.pattern.ravel()
    name, channels = site.node.name, len(set(ids.tolist()))
    known = extremes is not None and len(extremes.high) in {1, len(ids)}
    room = np.broadcast_to(_room(site, extremes), ids.shape) if known and extremes else None
    if mode == "per-channel":
        count = -1 if room is None else int((room <= 0).sum())
        return _Treated(ClipRecord(name, "per-channel", channels, count), site)
    if room is None:
        return _Treated(ClipRecord(name, mode, channels, -1), None, frozenset(ids.tolist()))
    saturating = room <= 0
    if mode == "relu" and not saturating.any() and site.bounds[0] == 0:
        without_bound = replace(site, bounds=(0.0, math.inf))
        return _Treated(ClipRecord(name, "relu", channels, 0), without_bound)
    limits: dict[int, float] = {}
    for root, slack in zip(ids[~saturating].tolist(), room[~saturating].tolist(), strict=True):
        limits[root] = min(slack, limits.get(root, math.inf))
    return _Treated(
        ClipRecord(name, "proven tie" if mode == "proven" else "tie", channels,
                   int(saturating.sum())),
        None, frozenset(ids[saturating].tolist()), limits,
    )  # fmt: skip


def _room(site: ClipSite, extremes: Interval) -> NDArray[np.float64]:
    """Per channel, log of how far it may grow before it reaches a bound; 0 where it saturates."""
    room = np.full(len(extremes.high), math.inf)
    low, high = site.bounds
    for bound, extreme in ((high, extremes.high), (-low, -extremes.low)):
        if not math.isfinite(bound) or bound == 0:
            continue
        if bound < 0:
            return np.zeros(len(room))
        room = np.minimum(room, math.log(bound) - np.log(np.maximum(extreme, 1e-30)))
    nonnegative: NDArray[np.float64] = np.maximum(room, 0.0)
    return nonnegative
