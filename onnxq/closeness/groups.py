"""Groups of slices of one output, by their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GAP = 10.0
"""Ratio of the rms of two neighboring slices from which on they are of two groups."""

MAP_SIDE = 16
"""Positions along each side from which on two axes may be those of a map."""

MAP_RATIO = 8
"""Ratio of a map's sides, at most: rows of boxes are far more than each has numbers."""


def axes_of_positions(sizes: Sequence[int]) -> tuple[int, ...]:
    """The axes of a map, height and width: what lies along them is of one kind.

    A probability map of pages has next to nothing in its margins, which is no output apart.

    Args:
        sizes: of a sample's output, without the axis that counts samples.
    """
    if len(sizes) != 3:
        return ()
    for one, other, channels in ((1, 2, 0), (0, 1, 2)):
        if sizes[one] == sizes[other] != sizes[channels] and sizes[one] >= MAP_SIDE:
            return one, other
    channels, *sides = sizes
    least, most = sorted(sides)
    is_map = channels < least and least >= MAP_SIDE and most <= MAP_RATIO * least
    return (1, 2) if is_map else ()


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
