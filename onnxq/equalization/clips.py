"""How a scale passes a saturating Clip such as ReLU6: the modes of `--relu6`.

`per-channel` moves the bound with each channel's scale (exact, one more kernel); `tie` keeps one
scalar bound: channels that saturate keep s = 1, the others stay below it, s_c ≤ bound / max_c
(no kernel, exact on the calibration data only; any common scale of the class would do as well);
`relu` drops the bound where no calibration value reaches it; `skip` makes the Clip a barrier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.equalization.classes import ClipSite, ScaleClasses
from onnxq.equalization.solve import UpperBounds
from onnxq.errors import UsageError


@dataclass(frozen=True)
class ClipRecord:
    """What was done with one saturating Clip.

    Attributes:
        mode: "per-channel", "tie" or "relu".
        channels: number of scale classes that pass it.
        saturating: how many of them reach the bound on the calibration data; −1 without one.
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
        bounds: upper limits of variables.
        clips: what was decided for each saturating Clip.
        sites: the Clips to rewrite; one that becomes a Relu has an infinite bound.
    """

    of: Mapping[int, int]
    bounds: UpperBounds
    clips: tuple[ClipRecord, ...]
    sites: tuple[ClipSite, ...]


def choose_variables(
    classes: ScaleClasses, calibration: Calibration | None, mode: str
) -> Variables:
    """Number the free classes, tied and limited as the mode asks.

    Raises:
        UsageError: the mode needs a calibration and there is none.
    """
    if mode in {"tie", "relu"} and calibration is None:
        raise UsageError(
            f"--relu6 {mode} needs to know what saturates", hint="give --calibration or --data"
        )
    treated = [
        _treat(site, calibration.tensors.get(site.node.output) if calibration else None, mode)
        for site in classes.clips
    ]
    limits: dict[int, float] = {}
    for item in treated:
        for root, slack in item.limits.items():
            limits[root] = min(slack, limits.get(root, math.inf))
    # A limit of 0 pins for good: the class may neither grow nor, for its partners, shrink.
    pinned = {root for item in treated for root in item.pinned}
    of = {
        root: number
        for number, root in enumerate(
            (root for root in classes.free.tolist() if root not in pinned), start=1
        )
    }
    kept = [(of[root], slack) for root, slack in sorted(limits.items()) if root in of]
    bounds = UpperBounds(
        np.array([variable for variable, _ in kept], np.int64),
        np.array([slack for _, slack in kept], np.float64),
    )
    return Variables(
        of, bounds, tuple(item.record for item in treated),
        tuple(item.site for item in treated if item.site is not None),
    )  # fmt: skip


@dataclass(frozen=True)
class _Treated:
    """One Clip's record, the site to rewrite if any, and what it asks of the class roots."""

    record: ClipRecord
    site: ClipSite | None
    pinned: frozenset[int] = frozenset()
    limits: Mapping[int, float] = field(default_factory=dict)


def _treat(site: ClipSite, statistics: TensorStatistics | None, mode: str) -> _Treated:
    ids = site.pattern.ravel()
    name, channels = site.node.name, len(set(ids.tolist()))
    known = statistics is not None and statistics.channels in {1, len(ids)}
    if mode not in {"tie", "relu"} or not known:
        if mode in {"tie", "relu"}:
            return _Treated(ClipRecord(name, "tie", channels, -1), None, frozenset(ids.tolist()))
        room = _room(site, statistics) if known and statistics is not None else None
        count = -1 if room is None else int((room <= 0).sum())
        return _Treated(ClipRecord(name, "per-channel", channels, count), site)
    assert statistics is not None  # noqa: S101 - `known` says so
    room = np.broadcast_to(_room(site, statistics), ids.shape)
    saturating = room <= 0
    if mode == "relu" and not saturating.any() and site.bounds[0] == 0:
        without_bound = replace(site, bounds=(0.0, math.inf))
        return _Treated(ClipRecord(name, "relu", channels, 0), without_bound)
    limits: dict[int, float] = {}
    for root, slack in zip(ids[~saturating].tolist(), room[~saturating].tolist(), strict=True):
        limits[root] = min(slack, limits.get(root, math.inf))
    return _Treated(
        ClipRecord(name, "tie", channels, int(saturating.sum())), None,
        frozenset(ids[saturating].tolist()), limits,
    )  # fmt: skip


def _room(site: ClipSite, statistics: TensorStatistics) -> NDArray[np.float64]:
    """Per channel, log of how far it may grow before it reaches a bound; 0 where it saturates."""
    room = np.full(statistics.channels, math.inf)
    low, high = site.bounds
    for bound, extreme in ((high, statistics.maximum), (-low, -statistics.minimum)):
        if not math.isfinite(bound) or bound == 0:
            continue
        if bound < 0:
            return np.zeros(statistics.channels)
        with np.errstate(divide="ignore"):
            room = np.minimum(room, math.log(bound) - np.log(np.maximum(extreme, 1e-30)))
    nonnegative: NDArray[np.float64] = np.maximum(room, 0.0)
    return nonnegative
