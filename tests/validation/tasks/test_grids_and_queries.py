"""Layouts of detectors by their formulas: cells of grids, queries, boxes apart from scores."""

import numpy as np
import pytest
from onnxq.validation.tasks import grids, queries

RNG = np.random.default_rng(0)
SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3
"""Of strides 8, 16 and 32."""


def boxes_of(centers):
    """Corners of (…, 4) centers and sizes."""
    x, y, w, h = np.moveaxis(np.asarray(centers, np.float64), -1, 0)
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)


def random_boxes(*lead):
    return RNG.uniform(1, 20, (*lead, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("cells", "size", "wanted"),
    [
        (CELLS, SIZE, (8, 16, 32)),
        (8400, (640, 640), (8, 16, 32)),
        (2 * 3 + 4 * 6, SIZE, (16, 32)),
        (CELLS + 1 * 2, SIZE, (8, 16, 32, 64)),
        (CELLS - 1, SIZE, None),
        # A size that no stride divides is rounded up.
        (9 * 9 + 5 * 5 + 3 * 3, (65, 65), (8, 16, 32)),
    ],
)
def test_the_number_of_cells_tells_the_grids(cells, size, wanted):
    assert grids.strides_of(cells, size) == wanted


def test_a_table_of_cells_is_not_short():
    assert grids.is_short_table(np.zeros((1, 300, 6)), SIZE)
    assert not grids.is_short_table(np.zeros((1, CELLS, 6)), SIZE)
    assert not grids.is_short_table(np.zeros((1, 6, CELLS)), SIZE)
    assert not grids.is_short_table(np.zeros((1, grids.MOST_ROWS + 1, 6)), SIZE)


@pytest.mark.parametrize(
    ("values", "wanted"), [([0, 1], True), ([0.5, 1.001], False), ([-1e-9], False), ([np.nan], False), ([], False)]
)  # fmt: skip
def test_probabilities(values, wanted):
    assert grids.in_share(np.array(values)) is wanted


@pytest.mark.parametrize("masks", [0, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_yolov8_has_boxes_then_classes_then_mask_coefficients(masks, turned):
    boxes, scores = random_boxes(2, CELLS), RNG.random((2, CELLS, 5), np.float32)
    table = np.concatenate([boxes, scores, np.full((2, CELLS, masks), 9, np.float32)], axis=2)
    arrays = (table if turned else table.swapaxes(1, 2),)
    arrays += (np.zeros((2, masks, 16, 24), np.float32),) if masks else ()
    assert grids.fits_yolov8(arrays, SIZE) is not turned
    found = grids.yolov8(arrays, SIZE)
    np.testing.assert_allclose(found.corners, boxes_of(boxes), rtol=1e-5)
    assert np.array_equal(found.scores, scores.max(axis=2))
    assert np.array_equal(found.classes, scores.argmax(axis=2))
    assert found.class_count == 5


@pytest.mark.parametrize("anchors", [1, grids.ANCHORS])
def test_yolov5_scores_are_objectness_times_class(anchors):
    rows = anchors * CELLS
    boxes, scores = random_boxes(2, rows), RNG.random((2, rows, 4), np.float32)
    table = np.concatenate([boxes, scores], axis=2)
    assert grids.fits_yolov5((table,), SIZE)
    found = grids.yolov5((table,), SIZE)
    np.testing.assert_allclose(found.corners, boxes_of(boxes), rtol=1e-5)
    np.testing.assert_allclose(found.scores, scores[..., 0] * scores[..., 1:].max(axis=2))
    assert found.class_count == 3
    assert not grids.fits_yolov5((table[:, :-1],), SIZE)


def test_yolox_counts_from_its_cells():
    """The offset is in cells of the stride, the size the logarithm of a number of them."""
    table = np.zeros((1, CELLS, 7), np.float32)
    table[..., 4:] = 0.5
    first, second = 0, 96  # the first cells of strides 8 and 16
    table[0, first + 12 + 3, :4] = 0.25, 0.75, np.log(2), np.log(4)  # second row, column 3
    table[0, second + 1, :4] = 0, 0, 0, 0
    assert grids.fits_yolox((table,), SIZE)
    assert grids.yolox_roles({"y": table}, SIZE) == ("y",)
    found = grids.yolox((table,), SIZE)
    x, y = (3 + 0.25) * 8, (1 + 0.75) * 8
    np.testing.assert_allclose(found.corners[0, 15], [x - 8, y - 16, x + 8, y + 16])
    np.testing.assert_allclose(found.corners[0, 97], [16 - 8, -8, 16 + 8, 8])
    assert found.scores[0, 0] == 0.25


def test_boxes_that_are_decoded_are_no_offsets():
    corner, stride = grids._cells(SIZE, (8, 16, 32))
    table = np.full((1, CELLS, 7), 0.5, np.float32)
    table[0, :, :2] = (corner + 0.5) * stride
    assert not grids.fits_yolox((table,), SIZE)
    assert not grids.fits_yolox((table[:, :, :5],), SIZE)
    assert grids.yolox_roles({"y": table[:, 1:]}, SIZE) is None


def test_what_is_suppressed_already_has_a_score_and_a_whole_class():
    table = np.zeros((1, 5, 6), np.float32)
    table[0, :, 4], table[0, :, 5] = 0.5, [0, 1, 2, 0, 7]
    assert grids.fits_end_to_end((table,), SIZE)
    found = grids.end_to_end((table,), SIZE)
    assert (found.classes.tolist(), found.class_count) == ([[0, 1, 2, 0, 7]], None)
    table[0, 0, 5] = 0.5
    assert not grids.fits_end_to_end((table,), SIZE)
    table[0, 0, 4:] = 2, 1
    assert not grids.fits_end_to_end((table,), SIZE)


def test_prototypes_go_with_the_first_table():
    table, masks = np.zeros((1, 9, 9), np.float32), np.zeros((1, 3, 4, 4), np.float32)
    assert grids.table_roles({"m": masks, "a": table, "b": table}, SIZE) == ("a", "m")
    assert grids.table_roles({"m": masks, "a": table, "n": masks}, SIZE) == ("a",)
    assert grids.table_roles({"m": masks, "a": table.astype(int)}, SIZE) is None


# --- apart -------------------------------------------------------------------------------------

BOXES, SCORES = random_boxes(2, 4), RNG.random((2, 4)).astype(np.float32)
CLASSES, COUNTS = np.float32([[0, 1, 2, 3]] * 2), np.float32([2, 4])


def test_boxes_scores_and_classes_are_told_by_shape_name_and_values():
    outputs = {"num": COUNTS, "class": CLASSES, "boxes": BOXES, "confidence": SCORES}
    assert queries.ssd_roles(outputs, SIZE) == ("boxes", "confidence", "class", "num")
    del outputs["num"]
    assert queries.ssd_roles(outputs, SIZE) == ("boxes", "confidence", "class")
    assert queries.ssd_roles({"a": CLASSES, "b": SCORES, "c": BOXES}, SIZE) == ("c", "b", "a")
    one = {"boxes": BOXES[0], "labels": np.array([1, 1, 2, 3]), "scores": SCORES[0]}
    assert queries.ssd_roles(one, SIZE) == ("boxes", "scores", "labels")
    assert queries.ssd_roles({"boxes": BOXES, "scores": SCORES}, SIZE) is None
    assert queries.ssd_roles({"scores": SCORES, "labels": CLASSES}, SIZE) is None


def test_boxes_beyond_the_count_do_not_count():
    found = queries.ssd((BOXES, SCORES, CLASSES, COUNTS), SIZE)
    assert np.array_equal(found.scores, SCORES * [[1, 1, 0, 0], [1, 1, 1, 1]])
    assert np.array_equal(found.corners, BOXES)
    one = queries.ssd((BOXES[0], SCORES[0], CLASSES[0]), SIZE)
    assert one.corners.shape == (1, 4, 4)


def test_tensorflow_has_y_first():
    outputs = {"detection_boxes": BOXES, "detection_scores": SCORES, "detection_classes": CLASSES}
    roles = queries.tensorflow_roles(outputs, SIZE)
    assert roles == tuple(outputs)
    assert queries.tensorflow_roles({"boxes": BOXES, "s": SCORES, "c": CLASSES}, SIZE) is None
    found = queries.tensorflow((BOXES, SCORES, CLASSES), SIZE)
    assert np.array_equal(found.corners, BOXES[..., [1, 0, 3, 2]])


def softmax(values):
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_detr_has_a_class_for_no_object():
    logits = RNG.normal(0, 3, (2, 10, 4)).astype(np.float32)
    logits[:, 2:, 3] = 20
    boxes = random_boxes(2, 10)
    assert queries.fits_detr((boxes, logits), SIZE)
    assert not queries.fits_detr((boxes, logits[:, :2]), SIZE)
    found = queries.detr((boxes, logits), SIZE)
    wanted = softmax(logits.astype(np.float64))[..., :3]
    np.testing.assert_allclose(found.scores, wanted.max(axis=2))
    assert np.array_equal(found.classes, wanted.argmax(axis=2))
    np.testing.assert_allclose(found.corners, boxes_of(boxes), rtol=1e-5)


@pytest.mark.parametrize("classes", [3, 4, 5])
def test_boxes_are_told_from_logits_of_four_classes_too(classes):
    logits = RNG.normal(0, 3, (2, 10, classes)).astype(np.float32)
    boxes = random_boxes(2, 10) / 20
    for outputs in ({"logits": logits, "boxes": boxes}, {"boxes": boxes, "logits": logits}):
        assert queries.query_roles(outputs, SIZE) == ("boxes", "logits")
    assert queries.query_roles({"boxes": boxes}, SIZE) is None
    assert queries.query_roles({"boxes": boxes, "logits": logits[:, :-1]}, SIZE) is None


def test_rtdetr_has_a_sigmoid_for_each_class():
    logits = np.float32([[[0, 2], [-1000, 1000]]])
    found = queries.rtdetr((random_boxes(1, 2), logits), SIZE)
    np.testing.assert_allclose(found.scores, [[1 / (1 + np.exp(-2)), 1]])
    assert queries.fits_rtdetr((BOXES, logits), SIZE)
    assert not queries.fits_rtdetr((BOXES, SCORES), SIZE)


def test_a_table_of_queries_holds_shares():
    table = RNG.random((1, 6, 7)).astype(np.float32)
    assert queries.fits_query_table((table,), SIZE)
    assert not queries.fits_query_table((table * 30,), SIZE)
    assert not queries.fits_query_table((table[..., :4],), SIZE)
    found = queries.query_table((table,), SIZE)
    np.testing.assert_allclose(found.corners, boxes_of(table[..., :4]), rtol=1e-4, atol=1e-6)
    assert found.class_count == 3
