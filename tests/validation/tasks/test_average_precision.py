"""Average precision equals the reference implementation's; F1 equals a count by hand."""

import contextlib
import io
import sys

import numpy as np
import pytest
from onnxq.data.labels.boxes import Boxes
from onnxq.errors import UsageError
from onnxq.validation.tasks.average_precision import average_precisions, f1_score
from onnxq.validation.tasks.boxes import Detections
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def random_boxes(rng, count):
    corner = rng.uniform(0, 80, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(2, 40, (count, 2))], axis=1)


def random_set(seed):
    """Truth of a few pictures, and predictions near it, doubled, missing and invented."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 5))
    truth, found = [], []
    for _ in range(int(rng.integers(1, 8))):
        objects = int(rng.integers(0, 9))
        boxes = Boxes(
            random_boxes(rng, objects),
            rng.integers(0, classes, objects),
            rng.random(objects) < (0.15 if seed % 2 else 0),
        )
        chosen = rng.integers(0, objects, int(rng.integers(0, 2 * objects + 1))) if objects else []
        near = boxes.corners[chosen] + rng.normal(0, rng.uniform(0.2, 4), (len(chosen), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.5)
        invented = random_boxes(rng, int(rng.integers(0, 6)))
        index = rng.integers(0, classes + 1, len(near) + len(invented))
        keep = rng.random(len(near)) < 0.8
        index[: len(near)][keep] = boxes.classes[chosen][keep]
        scores = np.round(rng.random(len(index)), 2 if seed % 3 else 1)  # with equal ones
        order = np.argsort(-scores, kind="stable")
        corners = np.concatenate([near, invented])[order]
        truth.append(boxes)
        found.append(Detections(corners, scores[order], index[order]))
    return truth, found


def by_pycocotools(truth, found, pooled):
    """(AP50-95, AP50), percent; `pooled` makes every class of a picture a picture of one class."""
    classes = range(1 + max(int(b.classes.max(initial=0)) for side in (truth, found) for b in side))
    ids = {key: n for n, key in enumerate(((p, c) for p in range(len(truth)) for c in classes), 1)}

    def entries(side):
        for picture, boxes in enumerate(side):
            for row, (box, index) in enumerate(zip(boxes.corners, boxes.classes, strict=True)):
                left, top, right, bottom = map(float, box)
                yield {
                    "image_id": ids[picture, int(index)] if pooled else picture + 1,
                    "category_id": 1 if pooled else int(index) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(getattr(boxes, "crowd", np.zeros(99, bool))[row]),
                    "score": float(getattr(boxes, "scores", np.ones(99))[row]),
                }

    exact = COCO()
    images = ids.values() if pooled else range(1, len(truth) + 1)
    exact.dataset = {
        "images": [{"id": each} for each in images],
        "annotations": [entry | {"id": n} for n, entry in enumerate(entries(truth), 1)],
        "categories": [{"id": each + 1} for each in ([0] if pooled else classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        exact.createIndex()
        predicted = list(entries(found))
        if not predicted:
            return (0.0, 0.0) if exact.anns else (float("nan"), float("nan"))
        evaluation = COCOeval(exact, exact.loadRes(predicted), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    if not (precision > -1).any():
        return float("nan"), float("nan")
    return tuple(100 * p[p > -1].mean() for p in (precision, precision[0]))


@pytest.mark.parametrize("block", range(8))
def test_average_precision_equals_pycocotools_on_200_random_sets(block):
    known = 0
    for seed in range(25 * block, 25 * block + 25):
        truth, found = random_set(seed)
        ours = average_precisions(truth, found)
        apart = by_pycocotools(truth, found, pooled=False)
        _, pooled = by_pycocotools(truth, found, pooled=True)
        expected = (*apart, pooled)
        got = (ours.ap50_95, ours.ap50, ours.ap50_pooled)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6, err_msg=f"seed {seed}")
        known += bool(np.isfinite(ours.ap50) and 0 < ours.ap50 < 100)
    assert known > 15


def boxes(*rows, crowd=None):
    return Boxes(
        np.array([row[:4] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[4] for row in rows], np.int64),
        np.zeros(len(rows), bool) if crowd is None else np.array(crowd),
    )


def found(*rows):
    """Rows of corners, class, score."""
    return Detections(
        np.array([row[:4] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[5] for row in rows], np.float64),
        np.array([row[4] for row in rows], np.int64),
    )


def test_f1_counts_doubles_wrong_classes_and_misses():
    truth = [boxes((0, 0, 10, 10, 0), (20, 20, 30, 30, 1), (50, 50, 60, 60, 0))]
    predicted = [
        found(
            (0, 0, 10, 10, 0, 0.9),  # right
            (0, 1, 10, 10, 0, 0.8),  # the same object once more
            (20, 20, 30, 30, 0, 0.7),  # of the wrong class
        )
    ]
    assert f1_score(truth, predicted) == pytest.approx(200 * 1 / (3 + 3))


def test_f1_leaves_out_what_lies_within_a_crowd():
    truth = [boxes((0, 0, 10, 10, 0), (20, 20, 80, 80, 0), crowd=[False, True])]
    predicted = [found((0, 0, 10, 10, 0, 0.9), (30, 30, 40, 40, 0, 0.8))]
    assert f1_score(truth, predicted) == 100.0


def test_overlap_below_one_half_is_no_find():
    truth = [boxes((0, 0, 10, 10, 0))]
    assert f1_score(truth, [found((0, 0, 10, 4.9, 0, 0.9))]) == 0.0
    assert f1_score(truth, [found((0, 0, 10, 5.1, 0, 0.9))]) == 100.0


def test_classes_without_an_object_do_not_count_but_pooled_they_do():
    truth = [boxes((0, 0, 10, 10, 0))]
    predicted = [found((50, 50, 60, 60, 7, 0.9), (0, 0, 10, 10, 0, 0.5))]
    result = average_precisions(truth, predicted)
    assert result.ap50 == pytest.approx(100)
    assert result.ap50_pooled == pytest.approx(50)


def test_missing_library_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match="map needs the package faster-coco-eval") as caught:
        average_precisions([boxes((0, 0, 1, 1, 0))], [found()])
    assert caught.value.hint.startswith("pip install faster-coco-eval; ")
