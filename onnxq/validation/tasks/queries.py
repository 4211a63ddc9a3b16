"""Detectors that put out boxes, scores and classes apart: SSD, torchvision, DETR and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.validation.tasks.boxes import Candidates, best_classes, corners_of_centers
from onnxq.validation.tasks.common import is_float
from onnxq.validation.tasks.grids import MOST_ROWS, Size, in_share, is_short_table

Array = NDArray[Any]
Arrays = Mapping[str, Array]

SCORE_WORDS = ("score", "conf", "prob")
TENSORFLOW_BOXES = "detection_boxes"
"""TensorFlow's boxes are y1, x1, y2, x2; everybody else's begin with x1."""


# --- boxes, scores, classes --------------------------------------------------------------------


def ssd_roles(outputs: Arrays, _: Size) -> tuple[str, ...] | None:
    """Boxes, scores, classes, and counts where there are some."""
    # Scores and classes of four boxes have an axis of four, too.
    likely = [n for n, a in outputs.items() if a.ndim in {2, 3} and a.shape[-1] == 4]
    found = (_beside(outputs, name) for name in likely if is_float(outputs[name]))
    return next(filter(None, found), None)


def _beside(outputs: Arrays, boxes: str) -> tuple[str, ...] | None:
    """The same, where it is known which output holds boxes."""
    rows = [n for n, a in outputs.items() if a.shape == outputs[boxes].shape[:-1]]
    scores = next((n for n in _scores_first(rows) if _is_score(outputs[n])), None)
    classes = next((n for n in rows if n != scores), None)
    if scores is None or classes is None:
        return None
    counts = next(
        (n for n, a in outputs.items() if n not in {scores, classes} and _counts(a)), None
    )
    return (boxes, scores, classes) if counts is None else (boxes, scores, classes, counts)


def _scores_first(names: list[str]) -> list[str]:
    return sorted(names, key=lambda n: not any(word in n.lower() for word in SCORE_WORDS))


def _is_score(array: Array) -> bool:
    return is_float(array) and (not array.size or in_share(array))


def _counts(array: Array) -> bool:
    return array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)


def fits_ssd(arrays: tuple[Array, ...], _: Size) -> bool:
    return len(arrays) >= 3


def ssd(arrays: tuple[Array, ...], _: Size) -> Candidates:
    """Boxes samples×n×4, scores and classes samples×n, and how many of the n count.

    Without an axis of samples, as torchvision exports, the batch is one sample.
    """
    boxes, scores, classes, *counts = arrays
    if boxes.ndim == 2:
        boxes, scores, classes = boxes[None], scores[None], classes[None]
    if counts:
        scores = np.where(np.arange(scores.shape[1]) < counts[0].reshape(-1, 1), scores, 0)
    return Candidates(boxes, scores, classes)


def tensorflow_roles(outputs: Arrays, size: Size) -> tuple[str, ...] | None:
    roles = ssd_roles(outputs, size)
    return roles if roles is not None and TENSORFLOW_BOXES in roles[0] else None


def tensorflow(arrays: tuple[Array, ...], size: Size) -> Candidates:
    """As `ssd`, with y before x: the detection models of TensorFlow."""
    return ssd((arrays[0][..., [1, 0, 3, 2]], *arrays[1:]), size)


# --- transformers ------------------------------------------------------------------------------


def query_roles(outputs: Arrays, _: Size) -> tuple[str, ...] | None:
    """Boxes samples×queries×4, as shares, and logits samples×queries×classes."""
    found = {n: a for n, a in outputs.items() if a.ndim == 3 and is_float(a)}
    # Logits of four classes look the same but for their values.
    for boxes in sorted(found, key=lambda n: not in_share(found[n])):
        array = found[boxes]
        rows = [n for n, a in found.items() if n != boxes and a.shape[:2] == array.shape[:2]]
        if rows and array.shape[2] == 4 and array.shape[1] <= MOST_ROWS:
            return boxes, rows[0]
    return None


def fits_detr(arrays: tuple[Array, ...], _: Size) -> bool:
    """Most of its queries find nothing, which is the last class."""
    logits = arrays[1]
    return logits.shape[2] >= 2 and bool(
        (logits.argmax(axis=-1) == logits.shape[2] - 1).mean() > 0.5
    )


def detr(arrays: tuple[Array, ...], _: Size) -> Candidates:
    """Logits whose last class is "no object", boxes by center.

    Carion et al., End-to-end object detection with transformers, https://arxiv.org/abs/2005.12872.
    """
    boxes, logits = arrays[0], arrays[1].astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores = powers / powers.sum(axis=-1, keepdims=True)
    return best_classes(corners_of_centers(boxes), scores[..., :-1])


def fits_rtdetr(arrays: tuple[Array, ...], _: Size) -> bool:
    return not in_share(arrays[1])


def rtdetr(arrays: tuple[Array, ...], _: Size) -> Candidates:
    """Logits of which each has its sigmoid, boxes by center: RT-DETR, Deformable DETR.

    https://arxiv.org/abs/2304.08069.
    """
    boxes, logits = arrays[0], arrays[1].astype(np.float64)
    return best_classes(corners_of_centers(boxes), 1 / (1 + np.exp(-np.clip(logits, -500, 500))))


def fits_query_table(arrays: tuple[Array, ...], size: Size) -> bool:
    table = arrays[0]
    return is_short_table(table, size) and table.shape[2] >= 5 and in_share(table)


def query_table(arrays: tuple[Array, ...], _: Size) -> Candidates:
    """Samples×queries×(4 + classes), boxes by center and probabilities: Ultralytics' RT-DETR."""
    return best_classes(corners_of_centers(arrays[0]), arrays[0][..., 4:])
