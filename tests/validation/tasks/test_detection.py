"""`map`: every layout is recognized and gives the boxes back that were put in; bad outputs; labels."""

import numpy as np
import pytest
from onnxq.data.labels.boxes import Boxes
from onnxq.errors import UsageError
from onnxq.refusal import Refusal
from onnxq.validation.tasks.decoders import DECODERS, recognized
from onnxq.validation.tasks.detection import MeanAveragePrecision

HEIGHT, WIDTH = 64, 96
CLASSES = 7
CELLS = 8 * 12 + 4 * 6 + 2 * 3
INPUTS = {"images": np.zeros((2, 3, HEIGHT, WIDTH), np.float32)}

# For two samples: corners in pixels, class, score. Apart from each other, so that none is suppressed.
OBJECTS = [
    [((5.0, 6.0, 25.0, 40.0), 2, 0.9), ((50.0, 10.0, 90.0, 60.0), 5, 0.6)],
    [((30.0, 20.0, 44.0, 30.0), 0, 0.8)],
]


def centers(corners):
    x1, y1, x2, y2 = corners
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def place(sample, row):
    """Some cell for an object; that of YOLOX does not matter either, its offset may be large."""
    return 7 + 11 * row + 3 * sample


def yolov8(relative=False):
    out = np.zeros((2, 4 + CLASSES, CELLS), np.float32)
    scale = np.array([WIDTH, HEIGHT] * 2) if relative else 1
    for sample, objects in enumerate(OBJECTS):
        for row, (corners, index, score) in enumerate(objects):
            out[sample, :4, place(sample, row)] = centers(corners) / scale
            out[sample, 4 + index, place(sample, row)] = score
    return {"output0": out}


def yolov8_with_masks():
    table = yolov8()["output0"]
    coefficients = np.full((2, 32, CELLS), 3.0, np.float32)
    prototypes = np.zeros((2, 32, HEIGHT // 4, WIDTH // 4), np.float32)
    return {"output0": np.concatenate([table, coefficients], axis=1), "output1": prototypes}


def cell_centers():
    return np.concatenate(
        [
            np.stack(np.meshgrid(np.arange(WIDTH // s), np.arange(HEIGHT // s)), -1).reshape(-1, 2)
            * s
            + s / 2
            for s in (8, 16, 32)
        ]
    )


def yolov5(anchors=3):
    out = np.zeros((2, anchors * CELLS, 5 + CLASSES), np.float32)
    if anchors == 1:
        out[..., :2] = cell_centers()
    for sample, objects in enumerate(OBJECTS):
        for row, (corners, index, score) in enumerate(objects):
            out[sample, place(sample, row), :4] = centers(corners)
            out[sample, place(sample, row), 4] = 0.95
            out[sample, place(sample, row), 5 + index] = score / 0.95
    return {"output": out}


def yolox():
    out = np.zeros((2, CELLS, 5 + CLASSES), np.float32)
    out[..., :2] = 0.5
    for sample, objects in enumerate(OBJECTS):
        for row, (corners, index, score) in enumerate(objects):
            x, y, width, height = centers(corners)
            cell = place(sample, row)  # of the first grid: 12 cells of 8 pixels a row
            out[sample, cell, :2] = x / 8 - cell % 12, y / 8 - cell // 12
            out[sample, cell, 2:4] = np.log([width / 8, height / 8])
            out[sample, cell, 4] = 0.95
            out[sample, cell, 5 + index] = score / 0.95
    return {"output": out}


def end_to_end():
    out = np.zeros((2, 300, 6), np.float32)
    for sample, objects in enumerate(OBJECTS):
        for row, (corners, index, score) in enumerate(objects):
            out[sample, row] = (*corners, score, index)
    return {"output0": out}


def apart(count=100, *, scale=1.0, names=("boxes", "scores", "labels"), order=(0, 1, 2, 3)):
    boxes = np.zeros((2, count, 4), np.float32)
    scores, classes = np.zeros((2, count), np.float32), np.zeros((2, count), np.float32)
    for sample, objects in enumerate(OBJECTS):
        for row, (corners, index, score) in enumerate(objects):
            boxes[sample, row] = (np.array(corners) * scale)[list(order)]
            scores[sample, row], classes[sample, row] = score, index
    return dict(zip(names, (boxes, scores, classes), strict=True))


def ssd():
    """As TensorRT's plugin, with rubbish behind the count."""
    out = apart(names=("det_boxes", "det_scores", "det_classes"))
    for sample, objects in enumerate(OBJECTS):
        out["det_boxes"][sample, len(objects) :] = (1, 1, 40, 40)
        out["det_scores"][sample, len(objects) :] = 0.99
    counts = np.array([[len(objects)] for objects in OBJECTS], np.int32)
    return {"num_dets": counts} | out | {"det_classes": out["det_classes"].astype(np.int32)}


def tensorflow():
    shares = np.array([1 / WIDTH, 1 / HEIGHT] * 2)
    names = ("detection_boxes", "detection_scores", "detection_classes")
    out = apart(scale=shares, names=names, order=(1, 0, 3, 2))
    return out | {"num_detections": np.array([len(objects) for objects in OBJECTS], np.float32)}


def transformer(logits):
    boxes = np.full((2, 100, 4), 0.5, np.float32)
    for sample, objects in enumerate(OBJECTS):
        for row, (corners, index, score) in enumerate(objects):
            boxes[sample, row] = centers(corners) / np.array([WIDTH, HEIGHT] * 2)
            odds = np.log(score / (1 - score))
            logits[sample, row] = -50
            # Softmax of two that count: the other is "no object", with a logit of 0.
            logits[sample, row, index] = odds
            if logits.shape[2] > CLASSES:
                logits[sample, row, -1] = 0
    return {"logits": logits, "pred_boxes": boxes}


def detr():
    logits = np.zeros((2, 100, CLASSES + 1), np.float32)
    logits[..., -1] = 12
    return transformer(logits)


def rtdetr():
    return transformer(np.full((2, 100, CLASSES), -9, np.float32))


def query_table():
    out = rtdetr()
    return {"output0": np.concatenate([out["pred_boxes"], 1 / (1 + np.exp(-out["logits"]))], -1)}


LAYOUTS = {
    "yolov8": [yolov8(), yolov8(relative=True), yolov8_with_masks()],
    "yolov5": [yolov5(), yolov5(anchors=1)],
    "yolox": [yolox()],
    "end-to-end": [end_to_end()],
    "ssd": [ssd(), apart()],
    "tensorflow": [tensorflow()],
    "detr": [detr()],
    "rtdetr": [rtdetr()],
    "query-table": [query_table()],
}
CASES = [(name, outputs) for name, several in LAYOUTS.items() for outputs in several]


def labels(objects):
    return Boxes(
        np.array([corners for corners, *_ in objects]).reshape(-1, 4),
        np.array([index for _, index, _ in objects], np.int64),
        np.zeros(len(objects), bool),
    )


TRUTH = [labels(objects) for objects in OBJECTS]


def measured(outputs, truth=None, reference=None, **options):
    metric = MeanAveragePrecision(**options)
    metric.update(INPUTS, outputs, truth, reference or outputs)
    return metric.compute()


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_layouts_are_recognized(name, outputs):
    reading = recognized(outputs, (HEIGHT, WIDTH))
    assert not isinstance(reading, Refusal)
    assert reading.decoder.names[0] == name


def test_every_decoder_is_tried():
    assert {decoder.names[0] for decoder in DECODERS} == set(LAYOUTS)


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_boxes_come_back_as_they_were_put_in(name, outputs):
    got = measured(outputs, TRUTH)
    # At an overlap of 0.95 already: corners are right to a pixel.
    assert got == {"AP50-95": 100, "AP50": 100, "AP50 pooled": 100, "F1": 100}


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_scores_and_classes_come_back(name, outputs):
    """Above the lower scores only one object each is left, of another class none."""
    assert measured(outputs, TRUTH, score=0.7)["F1"] == pytest.approx(80)
    assert measured(outputs, TRUTH, score=0.85)["F1"] == pytest.approx(50)
    wrong = [Boxes(t.corners, (t.classes + 1) % CLASSES, t.crowd) for t in TRUTH]
    assert measured(outputs, wrong)["F1"] == 0


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_the_float_model_is_its_own_truth(name, outputs):
    assert set(measured(outputs).values()) == {100}


@pytest.mark.parametrize(("name", "outputs"), CASES)
@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_dead_outputs_find_nothing(name, outputs, value):
    dead = {each: np.full_like(a, value) for each, a in outputs.items() if a.dtype.kind == "f"}
    assert set(measured(outputs | dead, reference=outputs).values()) == {0}


def test_one_picture_without_an_axis_of_samples_as_torchvision_has_it():
    outputs = {name: array[0, :2] for name, array in apart().items()}
    outputs["labels"] = outputs["labels"].astype(np.int64)
    metric = MeanAveragePrecision()
    metric.update({"images": INPUTS["images"][:1]}, outputs, TRUTH[:1], outputs)
    assert set(metric.compute().values()) == {100}
    none = {name: array[:0] for name, array in outputs.items()}
    metric.update({"images": INPUTS["images"][:1]}, none, TRUTH[1:], none)
    assert metric.compute()["F1"] == pytest.approx(80)


def test_suppression_keeps_one_of_two_and_of_two_classes_both_unless_agnostic():
    outputs = yolov8()
    table = outputs["output0"]
    table[0, :4, 50] = table[0, :4, place(0, 0)] + [1, 0, 0, 0]
    table[0, 6, 50] = 0.5
    assert measured(outputs, TRUTH)["F1"] == 100
    table[0, 4:, 50] = 0
    table[0, 4 + 6, 50] = 0.5
    assert measured(outputs, TRUTH)["F1"] == pytest.approx(200 * 3 / 7)
    assert measured(outputs, TRUTH, class_agnostic=True)["F1"] == 100
    assert measured(outputs, TRUTH, class_agnostic=True, iou=0.99)["F1"] < 100


def test_batches_of_any_cut_give_the_same():
    outputs, changed = yolov8(), yolov8()
    changed["output0"][:, :4] += 2
    whole = measured(changed, reference=outputs)
    metric = MeanAveragePrecision()
    for row in range(2):
        rows = slice(row, row + 1)
        metric.update(
            {"images": INPUTS["images"][rows]},
            {"output0": changed["output0"][rows]},
            None,
            {"output0": outputs["output0"][rows]},
        )
    assert metric.compute() == whole
    assert 0 < whole["AP50-95"] < 100


def test_relative_labels_are_of_the_inputs_size():
    truth = [
        Boxes(t.corners / ([WIDTH, HEIGHT] * 2), t.classes, t.crowd, relative=True) for t in TRUTH
    ]
    assert set(measured(yolov8(), truth).values()) == {100}


def test_a_truth_without_objects_is_refused():
    with pytest.raises(UsageError, match="no object in the truth of 2 samples"):
        measured({"output0": np.zeros((2, 4 + CLASSES, CELLS), np.float32)})
    with pytest.raises(UsageError, match="no object"):
        measured(yolov8(), [labels([]), labels([])])


def test_pictures_without_objects_count_their_false_finds():
    got = measured(yolov8(), [TRUTH[0], labels([])])
    assert got["AP50"] == pytest.approx(100)  # the false one is of a class without an object
    assert got["F1"] == pytest.approx(80)


def test_unknown_layouts_and_names_say_what_there_is():
    with pytest.raises(UsageError, match=r"no layout .* scores float32 2×10") as caught:
        measured({"scores": np.zeros((2, 10), np.float32)})
    assert "yolov8" in caught.value.hint
    with pytest.raises(UsageError, match="no decoder 'yolo8'") as caught:
        MeanAveragePrecision(decoder="yolo8")
    assert "yolov8" in caught.value.hint
    with pytest.raises(UsageError, match="cannot be read as detr"):
        measured(yolov8(), decoder="detr")
    with pytest.raises(UsageError, match="no output 'outptu0'"):
        measured(yolov8(), output="outptu0")
    with pytest.raises(UsageError, match=r"score is 25"):
        MeanAveragePrecision(score=25)
    with pytest.raises(UsageError, match="units is 'px'"):
        MeanAveragePrecision(units="px")


def test_scores_that_are_none_are_refused():
    outputs = yolov8()
    outputs["output0"][0, 8, :] = 300  # the key points of a pose
    with pytest.raises(UsageError, match="scores reach from 0 to 300"):
        measured(outputs)


def test_a_decoder_is_named_where_shapes_do_not_tell():
    turned = yolov8()["output0"].swapaxes(1, 2)
    turned[..., :2] += cell_centers() * (turned[..., 4:].max(axis=2, keepdims=True) == 0)
    turned = {"output0": turned}
    assert set(measured(turned, TRUTH, decoder="yolov8").values()) == {100}
    with pytest.raises(UsageError, match="the labels have 7 classes, the model 6"):
        measured(turned, [Boxes(t.corners, t.classes, t.crowd, class_count=7) for t in TRUTH])


def test_labels_of_other_classes_than_the_models_are_refused():
    few = [Boxes(t.corners, t.classes, t.crowd, class_count=6) for t in TRUTH]
    with pytest.raises(UsageError, match="the labels have 6 classes, the model 7") as caught:
        measured(yolov8(), few)
    assert "--classes" in caught.value.hint
    high = [Boxes(t.corners, t.classes + 5, t.crowd) for t in TRUTH]
    with pytest.raises(UsageError, match="the labels have a class 10, the model 7"):
        measured(yolov8(), high)


def test_labels_that_are_no_boxes_are_refused():
    with pytest.raises(UsageError, match="map compares with boxes, the labels are str"):
        measured(yolov8(), ["a", "b"])


def test_class_indices_of_the_data_are_no_truth_of_boxes():
    assert set(measured(yolov8(), np.array([1, 2])).values()) == {100}


def test_instances_of_later_batches_are_merged():
    changed = yolov8()
    changed["output0"][:, :4] += 2
    whole = MeanAveragePrecision()
    parts = MeanAveragePrecision(), MeanAveragePrecision()
    for part in parts:
        for metric in (whole, part):
            metric.update(INPUTS, changed, TRUTH, yolov8())
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()


def test_channels_last_pictures_have_their_size_too():
    metric = MeanAveragePrecision()
    inputs = {"images": np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)}
    metric.update(inputs, yolox(), TRUTH, yolox())
    assert set(metric.compute().values()) == {100}
    with pytest.raises(UsageError, match="no input of the model is a picture"):
        metric.update({"x": np.zeros((2, 8), np.float32)}, yolox(), TRUTH, yolox())
