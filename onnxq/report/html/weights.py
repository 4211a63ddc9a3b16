"""What the page shows of weights: how even their channels are, before equalization and now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.graph import Node
from onnxq.report.html import charts
from onnxq.report.subject import Subject

Floats = NDArray[np.float64]

BOXES = 1600
"""Channels drawn on the whole page, before and after each."""

MOST_BOXES, LEAST_BOXES = 32, 8
"""Channels drawn of one layer."""


@dataclass(frozen=True)
class WeightFacts:
    """One weight, before equalization and as it is.

    Attributes:
        spread_before, spread_after: of its output channels; `before` is None without the float
            model.
        boxes_before, boxes_after: of the channels shown.
        shown, channels: how many of how many.
        changed: whether the two differ by more than rounding.
    """

    shape: tuple[int, ...]
    spread_before: charts.Quartiles | None
    spread_after: charts.Quartiles | None
    boxes_before: charts.Boxes | None
    boxes_after: charts.Boxes
    shown: int
    channels: int
    changed: bool


def boxes_for(subject: Subject) -> int:
    weighted = sum(1 for node in subject.graph.nodes if subject.layout(node) is not None)
    return max(LEAST_BOXES, min(MOST_BOXES, BOXES // max(weighted, 1)))


def weights_of(
    subject: Subject, reference: Subject | None, node: Node, most: int
) -> WeightFacts | None:
    after = _by_output(subject, node)
    if after is None:
        return None
    same = reference and reference.graph.by_name.get(node.name)
    before = _by_output(reference, same) if reference and same else None
    if before is not None and before.shape != after.shape:
        before = None
    channels = len(after)
    largest_after = np.abs(after).max(axis=1)
    largest = None if before is None else np.abs(before).max(axis=1)
    # From the narrowest to the widest, both of them included: what is uneven shows.
    ranks = np.unique(np.linspace(0, channels - 1, min(channels, most)).round().astype(int))
    picked = np.argsort(largest_after if largest is None else largest, kind="stable")[ranks]
    changed = False
    if largest is not None and largest.max(initial=0.0) > 0:
        # Rounding moves the widest weight of a channel by half a step; a scale by an octave.
        near = np.isclose(largest, largest_after, rtol=0.3, atol=largest_after.max() / 100)
        changed = not bool(near.all())
    return WeightFacts(
        after.shape, None if largest is None else charts.channel_spread(largest),
        charts.channel_spread(largest_after), None if before is None else _boxes(before, picked),
        _boxes(after, picked), len(picked), channels, changed,
    )  # fmt: skip


def _by_output(subject: Subject, node: Node) -> Floats | None:
    """The node's weight as (output channels, rest)."""
    layout = subject.layout(node)
    weight = subject.graph.constant(layout.weight) if layout else None
    if layout is None or weight is None or not weight.size:
        return None
    by_output = layout.to_output_major(np.asarray(weight, np.float64))
    rows: Floats = by_output.reshape(len(by_output), -1)
    return rows


def _boxes(weights: Floats, picked: NDArray[Any]) -> charts.Boxes:
    return charts.boxplots(list(weights[picked]), float(np.abs(weights[picked]).max(initial=0.0)))
