"""Average precision as COCO defines it, by faster-coco-eval; and F1 at one score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.extras import require
from onnxq.data.labels import Boxes
from onnxq.validation.tasks.boxes import Detections, overlap

MATCHING_IOU = 0.5
"""The overlap with which a prediction has found an object, for AP50 and F1."""

ALL_SIZES = [[0.0, 1e10]]
"""Objects of every area, the first of COCO's ranges."""


@dataclass(frozen=True)
class Precisions:
    """Percent; NaN where the truth has no object.

    Attributes:
        ap50_95: mean over classes and over the overlaps 0.5, 0.55 … 0.95.
        ap50: mean over classes at an overlap of 0.5.
        ap50_pooled: of all classes' predictions in one ranking, matched within their class.
    """

    ap50_95: float
    ap50: float
    ap50_pooled: float


def average_precisions(truth: Sequence[Boxes], found: Sequence[Detections]) -> Precisions:
    """What COCO's evaluation gives: 101 levels of recall, 100 predictions a picture and class.

    Lin et al., Microsoft COCO, https://arxiv.org/abs/1405.0312; https://cocodataset.org/#detection-eval.

    Args:
        truth: the objects of each picture, in pixels.
        found: the predictions for it.

    Raises:
        UsageError: faster-coco-eval is not installed.
    """
    pictures = range(len(truth))
    apart = _precision(truth, found, [(picture, None) for picture in pictures])
    classes = sorted({int(each) for side in (truth, found) for one in side for each in one.classes})
    # As if each class of a picture were a picture of its own, all of one class.
    pooled = _precision(truth, found, [(p, index) for p in pictures for index in classes])
    return Precisions(_mean(apart), _mean(apart[0]), _mean(pooled[0]))


def f1_score(truth: Sequence[Boxes], found: Sequence[Detections]) -> float:
    """2 · right / (predictions + objects), percent; NaN where there is neither.

    Predictions, best first, each take the free object of their class that they overlap most.
    """
    right = predictions = objects = 0
    for boxes, detections in zip(truth, found, strict=True):
        hits, counted = _hits(boxes, detections)
        right += hits
        predictions += counted
        objects += int((~boxes.crowd).sum())
    total = predictions + objects
    return 200 * right / total if total else float("nan")


def _hits(truth: Boxes, found: Detections) -> tuple[int, int]:
    """How many predictions found an object, and how many count: not those within a crowd."""
    overlaps = overlap(found.corners, truth.corners, truth.crowd)
    overlaps[found.classes[:, None] != truth.classes[None]] = 0
    free, hits, counted = ~truth.crowd, 0, 0
    for row in overlaps:
        candidates = np.where(free, row, 0)
        best = int(candidates.argmax()) if len(row) else 0
        if len(row) and candidates[best] >= MATCHING_IOU:
            free[best] = False
            hits += 1
        elif (row[truth.crowd] >= MATCHING_IOU).any():
            continue
        counted += 1
    return hits, counted


def _precision(
    truth: Sequence[Boxes], found: Sequence[Detections], parts: Sequence[tuple[int, int | None]]
) -> NDArray[np.float64]:
    """Precisions, overlaps×recalls×classes; −1 for classes without an object.

    Args:
        parts: what counts as a picture: a picture's index, and the one class of it that is meant
            and no more told apart, or None for all.
    """
    library = require("faster_coco_eval", "detection", package="faster-coco-eval", user="map needs")
    classes = {int(each) for boxes in truth for each in boxes.classes}
    if all(index is not None for _, index in parts):
        classes = {0}
    exact, predicted = (
        _coco(library, [_annotations(side[p], index) for p, index in parts], classes)
        for side in (truth, found)
    )
    evaluation = library.COCOeval_faster(exact, predicted, "bbox", print_function=_quiet)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = ALL_SIZES, ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]


def _annotations(boxes: Boxes | Detections, index: int | None) -> list[dict[str, Any]]:
    """The boxes in COCO's terms, those of class `index` as class 0."""
    crowd = boxes.crowd if isinstance(boxes, Boxes) else np.zeros(len(boxes), np.bool_)
    scores = boxes.scores if isinstance(boxes, Detections) else np.ones(len(boxes))
    chosen = np.ones(len(boxes), np.bool_) if index is None else boxes.classes == index
    rows = zip(
        boxes.corners[chosen].tolist(),
        boxes.classes[chosen].tolist(),
        crowd[chosen].tolist(),
        scores[chosen].tolist(),
        strict=True,
    )
    return [
        {
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "category_id": each if index is None else 0,
            "iscrowd": int(is_crowd),
            "score": score,
        }
        for (left, top, right, bottom), each, is_crowd, score in rows
    ]


def _coco(library: Any, pictures: Sequence[list[dict[str, Any]]], classes: set[int]) -> Any:
    """The library's own form of a data set. Its ids begin with 1: 0 means "unmatched"."""
    annotations = [
        annotation | {"image_id": picture}
        for picture, each in enumerate(pictures, 1)
        for annotation in each
        if annotation["category_id"] in classes
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    coco = library.COCO(print_function=_quiet)
    coco.dataset = {
        "images": [{"id": picture} for picture in range(1, len(pictures) + 1)],
        "annotations": annotations,
        "categories": [{"id": each} for each in sorted(classes)],
    }
    coco.createIndex()
    return coco


def _quiet(*_: object) -> None:
    pass


def _mean(precision: NDArray[np.float64]) -> float:
    known = precision[precision > -1]
    return float(100 * known.mean()) if known.size else float("nan")
