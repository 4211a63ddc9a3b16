"""Boxes: corners, overlap, non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Corners = NDArray[np.float64]
"""…×4: x1, y1, x2, y2."""

MOST = 300
"""Detections kept of one picture, the best: as many as Ultralytics keeps."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The boxes of a batch before a threshold.

    Attributes:
        corners: samples×n×4: x1, y1, x2, y2.
        scores: samples×n.
        classes: samples×n, the best class of each box.
        class_count: how many classes the model knows, None where its outputs do not show.
    """

    corners: Array
    scores: Array
    classes: Array
    class_count: int | None = None


def best_classes(corners: Array, scores: Array) -> Candidates:
    """Each box with its best class; scores are samples×n×classes."""
    return Candidates(corners, scores.max(axis=-1), scores.argmax(axis=-1), scores.shape[-1])


@dataclass(frozen=True, eq=False)
class Detections:
    """What a model found in one picture, by descending score.

    Attributes:
        corners: n×4, pixels of the model's input.
        scores: n, in 0…1.
        classes: n, indices in the model's order.
    """

    corners: Corners
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Those of at least this score."""
        kept = self.scores >= score
        return Detections(self.corners[kept], self.scores[kept], self.classes[kept])


def corners_of_centers(boxes: Array) -> Corners:
    """Corners of …×4 boxes given as center x, center y, width, height."""
    center, half = boxes[..., :2].astype(np.float64), boxes[..., 2:4].astype(np.float64) / 2
    return np.asarray(np.concatenate([center - half, center + half], axis=-1))


def overlap(left: Corners, right: Corners, crowd: NDArray[np.bool_] | None = None) -> Corners:
    """Intersection over union of n×4 and m×4 boxes, n×m; 0 where both are empty.

    With a crowd, m, over the left box's own area, as COCO has it: a part of a group is within it.
    """
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = _area(left)[:, None] + _area(right)[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], _area(left)[:, None], union)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _area(boxes: Corners) -> Corners:
    return np.asarray(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1))


def suppressed(detections: Detections, iou: float, *, class_agnostic: bool) -> Detections:
    """Greedy non-maximum suppression: the best stay, what overlaps them by more than `iou` goes.

    Args:
        class_agnostic: boxes of one class suppress those of others.

    Returns:
        At most `MOST` of the detections, which come by descending score.
    """
    corners, classes = detections.corners, detections.classes
    alive = np.ones(len(detections), np.bool_)
    kept: list[int] = []
    for index in range(len(detections)):
        if not alive[index]:
            continue
        kept.append(index)
        if len(kept) == MOST:
            break
        rest = slice(index + 1, None)
        covered = overlap(corners[index : index + 1], corners[rest])[0] > iou
        if not class_agnostic:
            covered &= classes[rest] == classes[index]
        alive[rest] &= ~covered
    return Detections(corners[kept], detections.scores[kept], classes[kept])
