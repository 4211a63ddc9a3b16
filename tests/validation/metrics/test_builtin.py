"""Accuracy of classes, means of functions, and what a drop of closeness is."""

import math

import numpy as np
import pytest
from onnxq.closeness.parts import Part
from onnxq.errors import DataError, UsageError
from onnxq.validation.metrics.builtin import CLOSENESS, METRICS, SampleMean, TopK
from onnxq.validation.metrics.protocol import Mergeable, Task
from onnxq.validation.metrics.update import compute, update

SCORES = np.float32([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4], [0.2, 0.2, 0.2]])


def topk(k, labels, scores=SCORES, **others):
    metric = TopK(k)
    for start in range(0, len(labels), 3):
        part = slice(start, start + 3)
        metric.update({}, {**{n: a[part] for n, a in others.items()}, "y": scores[part]}, labels[part], {})  # fmt: skip
    return metric.compute()


def test_top1_is_the_share_of_labels_with_the_highest_score():
    assert topk(1, [1, 0, 2, 1]) == 75
    assert topk(1, [0, 1, 0, 1]) == 0


@pytest.mark.parametrize("k", [2, 3, 9])
def test_topk_is_the_share_among_the_k_highest_the_first_of_equals(k):
    labels = [2, 1, 1, 2]
    places = [list(np.argsort(-row, kind="stable")).index(each) for row, each in zip(SCORES, labels, strict=True)]  # fmt: skip
    assert topk(k, labels) == 100 * np.mean([place < k for place in places])


@pytest.mark.parametrize("k", [1, 5])
def test_scores_that_are_no_numbers_hit_nothing(k):
    broken = np.float32([[np.nan] * 3, [np.nan, 1, 0], [0, 1, np.nan], [-np.inf, 0, np.inf]])
    assert topk(k, [0, 0, 2, 2], broken) == 25


def test_no_sample_has_no_hit():
    assert TopK().compute() == 0


def test_integers_come_after_floats_and_alone_are_scores():
    wrong = np.int64([[9, 0, 0]] * 4)
    assert topk(1, [1, 0, 2, 0], ids=wrong) == 100
    assert topk(1, [1, 0, 2, 0], scores=wrong) == 50


def test_scores_of_more_axes_are_one_row_a_sample():
    assert topk(1, [1, 0, 2, 0], SCORES.reshape(4, 3, 1, 1)) == 100


def test_instances_of_later_batches_are_merged():
    one, other = TopK(), TopK()
    one.update({}, {"y": SCORES[:1]}, [1], {})
    other.update({}, {"y": SCORES[1:]}, [1, 2, 1], {})
    one.merge(other)
    assert one.compute() == 50
    assert isinstance(one, Mergeable)
    assert not isinstance(SampleMean(len), Mergeable)


def test_the_mean_is_over_samples_not_batches():
    metric = SampleMean(lambda outputs, labels: outputs[:, 0] * labels)
    for rows, labels in (([[1], [2], [3]], [1, 1, 2]), ([[10]], [1])):
        metric.update({}, {"y": np.float64(rows), "z": None}, np.array(labels), {})
    assert metric.compute() == (1 + 2 + 6 + 10) / 4
    assert SampleMean(len).compute() == 0


def test_options_of_the_table_are_set():
    assert (METRICS["top1"]().k, METRICS["top5"]().k) == (1, 5)


@pytest.mark.parametrize(
    ("name", "value", "loss"),
    [
        ("sqnr", 20, 10),
        ("sqnr", 0, 100),
        ("sqnr", math.inf, 0),
        ("sqnr", -math.inf, math.inf),
        ("cosine", 0.99, 1),
        ("cosine", -1, 200),
    ],
)
def test_how_far_outputs_are_off(name, value, loss):
    metric = CLOSENESS[name]
    assert metric.drop(math.nan, value) == pytest.approx(loss)
    assert metric.reaches(value, value)
    assert not metric.reaches(value, value + 0.1) or math.isinf(value)


def test_what_is_read_off_a_part():
    part = Part("y", None, (), 1.0, 33.0, 0.5)
    assert (CLOSENESS["sqnr"].of(part), CLOSENESS["cosine"].of(part)) == (33, 0.5)


def test_a_task_is_judged_in_its_own_direction():
    up = Task("a", "a", list)
    down = Task("e", "e", list, higher_is_better=False)
    assert (up.drop(90, 80), down.drop(90, 80)) == (10, -10)
    assert (up.reaches(5, 4), down.reaches(5, 4), up.reaches(4, 4), down.reaches(4, 4)) == (
        True, False, True, True
    )  # fmt: skip


# --- at work -----------------------------------------------------------------------------------

TASK = Task("mine", "mine.py:f", list)


class Fails:
    def __init__(self, error):
        self.error = error

    def update(self, *_):
        raise self.error

    def compute(self):
        raise self.error


class Gives:
    def __init__(self, value):
        self.value = value

    def compute(self):
        return self.value


@pytest.mark.parametrize(
    ("error", "said"),
    [(KeyError("logits"), "KeyError: 'logits'"), (SystemExit(3), "SystemExit: 3")],
)
def test_what_the_users_code_raises_is_told_with_its_name(error, said):
    metric = Fails(error)
    with pytest.raises(UsageError, match=f"metric 'mine.py:f' failed: {said}"):
        update(TASK, metric, {}, {}, None, {})
    with pytest.raises(UsageError, match=f"metric 'mine.py:f' failed: {said}"):
        compute(TASK, metric)


def test_errors_of_onnxq_pass_as_they_are():
    metric = Fails(DataError("no truth"))
    with pytest.raises(DataError, match=r"^no truth$"):
        update(TASK, metric, {}, {}, None, {})
    with pytest.raises(DataError, match=r"^no truth$"):
        compute(TASK, metric)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (3, {"mine": 3.0}),
        (np.float32(0.5), {"mine": 0.5}),
        ({"b": 1, 2: np.int64(3)}, {"b": 1.0, "2": 3.0}),
    ],
)
def test_one_number_has_the_metrics_name(value, wanted):
    found = compute(TASK, Gives(value))
    assert found == wanted
    assert list(found) == list(wanted)
    assert all(type(each) is float for each in found.values())


@pytest.mark.parametrize(
    ("value", "message"),
    [({}, "gave no number"), (None, "failed: TypeError"), ("high", "failed: ValueError")],
)
def test_what_is_no_number_is_refused(value, message):
    with pytest.raises(UsageError, match=message):
        compute(TASK, Gives(value))


class Wipes:
    """Changes in place all that it is shown."""

    def update(self, *seen):
        for each in seen:
            each.clear() if isinstance(each, dict) else each.sort()


def test_what_a_metric_of_the_users_changes_in_place_is_its_own():
    arrays, labels = {"y": np.float32([[2, 1]])}, [3, 1]
    mine = Task("mine", "mine", Wipes, of_user=True)
    update(mine, Wipes(), arrays, arrays, labels, arrays)
    assert labels == [3, 1]
    assert arrays["y"].tolist() == [[2, 1]]

    def halve(outputs, labels):
        outputs /= 2
        return outputs[:, 0]

    update(mine, SampleMean(halve), {}, arrays, labels, arrays)
    assert arrays["y"].tolist() == [[2, 1]]
