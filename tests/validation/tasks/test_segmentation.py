"""`miou` against a count per class, in every form of output."""

import numpy as np
import pytest
from onnxq.errors import UsageError
from onnxq.validation.tasks.segmentation import MeanIoU

INPUTS = {"image": np.zeros((3, 3, 8, 10), np.float32)}
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 4, (3, 8, 10))
FOUND = np.where(RNG.random((3, 8, 10)) < 0.7, TRUTH, RNG.integers(0, 5, (3, 8, 10)))


def scores(indices, classes=6):
    """Logits whose best class these are."""
    noise = RNG.normal(0, 1, (len(indices), classes, *indices.shape[1:])).astype(np.float32)
    return noise + 20 * (np.arange(classes)[:, None, None] == indices[:, None])


def expected(truth, found):
    """The mean over classes that occur, class by class."""
    shares = []
    for each in range(10):
        union = ((truth == each) | (found == each)).sum()
        if union:
            shares.append(((truth == each) & (found == each)).sum() / union)
    return 100 * np.mean(shares)


def measured(outputs, labels=None, reference=None, **options):
    metric = MeanIoU(**options)
    reference = outputs if reference is None else reference
    metric.update(INPUTS, {"mask": outputs}, labels, {"mask": reference})
    return metric.compute()


FORMS = {
    "logits": scores(FOUND),
    "logits, classes last": np.moveaxis(scores(FOUND), 1, 3),
    "indices": FOUND,
    "indices with a channel": FOUND[:, None].astype(np.int32),
    "indices with a channel last": FOUND[..., None].astype(np.uint8),
}


@pytest.mark.parametrize("form", FORMS)
def test_mean_iou_is_that_of_the_definition(form):
    got = measured(FORMS[form], list(TRUTH))
    assert got["mIoU"] == pytest.approx(expected(TRUTH, FOUND))
    assert got["pixel accuracy"] == pytest.approx(100 * (TRUTH == FOUND).mean())
    assert next(iter(got)) == "mIoU"


def test_without_labels_the_float_model_is_the_truth():
    got = measured(scores(FOUND), reference=scores(TRUTH))
    assert got["mIoU"] == pytest.approx(expected(TRUTH, FOUND))
    assert measured(scores(TRUTH))["mIoU"] == 100


def test_pixels_are_counted_over_batches():
    metric = MeanIoU()
    for row in range(3):
        inputs = {"image": INPUTS["image"][:1]}
        metric.update(inputs, {"y": FOUND[row : row + 1]}, None, {"y": TRUTH[row : row + 1]})
    assert metric.compute()["mIoU"] == pytest.approx(expected(TRUTH, FOUND))


def test_instances_of_later_batches_are_merged():
    parts = [MeanIoU(), MeanIoU()]
    for metric, rows in zip(parts, (slice(0, 2), slice(2, 3)), strict=True):
        metric.update(INPUTS, {"y": FOUND[rows]}, None, {"y": TRUTH[rows]})
    parts[0].merge(parts[1])
    assert parts[0].compute() == measured(FOUND, list(TRUTH))


def test_pixels_to_be_ignored_and_those_outside_do_not_count():
    truth = TRUTH.copy()
    truth[:, :2] = 255
    truth[:, -1] = -1  # around a letterbox
    got = measured(scores(FOUND), list(truth))
    assert got["mIoU"] == pytest.approx(expected(TRUTH[:, 2:-1], FOUND[:, 2:-1]))
    assert measured(FOUND, list(np.where(truth == 255, 9, truth)), ignore=9) == got


def test_a_mask_of_another_size_is_resized_by_its_nearest_pixels():
    large = TRUTH.repeat(3, axis=1).repeat(2, axis=2)
    assert measured(scores(FOUND), list(large)) == measured(scores(FOUND), list(TRUTH))


@pytest.mark.parametrize("logits", [False, True])
def test_of_one_channel_only_the_foreground_counts(logits):
    truth, found = TRUTH == 1, FOUND == 1
    chance = np.where(found, 0.8, 0.3)[:, None].astype(np.float32)
    output = np.log(chance / (1 - chance)) if logits else chance
    iou = 100 * (truth & found).sum() / (truth | found).sum()
    for labels in (list(truth.astype(np.uint8)), list(truth.astype(np.int64) * 200)):
        assert measured(output, labels)["mIoU"] == pytest.approx(iou)
    assert measured(output, list(truth), threshold=0.9)["mIoU"] == 0
    assert measured(output, list(truth), threshold=0.2)["mIoU"] == pytest.approx(
        100 * truth.mean(), rel=1e-6
    )


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_dead_output_is_far_off(value):
    dead = np.full_like(scores(TRUTH), value)
    assert measured(dead, reference=scores(TRUTH))["mIoU"] < 10


def test_what_cannot_be_measured_is_said():
    with pytest.raises(UsageError, match="mask float32 3×7"):
        measured(np.zeros((3, 7), np.float32))
    with pytest.raises(UsageError, match="no pixel of a class"):
        measured(scores(FOUND), list(np.full_like(TRUTH, 255)))
    with pytest.raises(UsageError, match="a label is float64"):
        measured(scores(FOUND), list(TRUTH.astype(float)))
    with pytest.raises(UsageError, match=r"class index 7000\d"):
        measured(scores(FOUND), list(TRUTH + 70000))
    with pytest.raises(UsageError, match="the labels are str"):
        measured(scores(FOUND), ["a", "b", "c"])
    with pytest.raises(UsageError, match=r"is \(3, 4, 10\), the float model's is \(3, 8, 10\)"):
        measured(FOUND[:, :4], reference=FOUND)
    with pytest.raises(UsageError, match="threshold is 2"):
        MeanIoU(threshold=2)
