"""`--labels` with files that hold what the metric wants, and files that do not."""

import numpy as np
import pytest
from onnxq.model.session import open_session
from onnxq.model.session import run as run_session

from support.cli_case import CLASSES, run


def value(done, name):
    assert done.code == 0, done.err
    return done.json["rows"][0]["metrics"][name]["value"]


def test_scores_may_stand_in_a_text_file(case):
    scores = np.linspace(0, 5, 12)
    np.save(case.folder / "scores.npy", scores)
    (case.folder / "scores.txt").write_text("".join(f"{each!r}\n" for each in scores.tolist()))
    found = [
        value(
            run("validate", case.model, "--data", case.data, "--metric", "spearman", "--labels",
                case.folder / f"scores.{ending}", "--json"),
            "spearman",
        )
        for ending in ("txt", "npy")
    ]  # fmt: skip
    assert found[0] == found[1]
    (case.folder / "scores.txt").write_text("3\nhigh\n" + "1\n" * 10)
    wrong = run("validate", case.model, "--data", case.data, "--metric", "spearman", "--labels",
                case.folder / "scores.txt")  # fmt: skip
    assert wrong.code == 4
    assert "'high' is no number, which the metric wants (a line is a number" in wrong.err


def test_class_indices_may_stand_in_a_text_file(case):
    with np.load(case.data) as data:
        x = data["x"]
        np.save(case.folder / "x.npy", x)  # without labels
    best = run_session(open_session(case.model), None, {"x": x})[0].argmax(axis=1)
    best[:6] = (best[:6] + 1) % CLASSES
    labels = case.folder / "labels.txt"
    labels.write_text("\n".join(map(str, best)))
    told = ("validate", case.model, "--data", case.folder / "x.npy", "--metric", "top1")
    assert value(run(*told, "--labels", labels, "--json"), "top1") == pytest.approx(75)
    assert "the data have none" in run(*told).err
    labels.write_text("\n".join(map(str, [*best[:-1], CLASSES])))
    beyond = run(*told, "--labels", labels)
    assert beyond.code == 2
    assert "the label 4 is none of the model's 4 classes, 0 to 3" in beyond.err
    labels.write_text("\n".join(["0.5"] * 24))
    assert "compare with class indices, a label is 0.5" in run(*told, "--labels", labels).err


def test_labels_of_their_own_are_used_where_no_metric_is_named(case):
    with np.load(case.data) as data:
        x, labels = data["x"], data["labels"]
    np.save(case.folder / "x.npy", x)
    file = case.folder / "labels.txt"
    file.write_text("\n".join(map(str, labels)))
    beside = run(
        "validate", case.model, "--data", case.folder / "x.npy", "--labels", file, "--json"
    )
    within = run("validate", case.model, "--data", case.data, "--json")
    replaced = run("validate", case.model, "--data", case.data, "--labels", file, "--json")
    assert value(beside, "top1") == value(within, "top1") == value(replaced, "top1")
    boxes = case.folder / "boxes.json"
    boxes.write_text('{"images": [], "annotations": [], "categories": []}')
    unread = run("validate", case.model, "--data", case.data, "--labels", boxes)
    assert unread.code in (2, 4)


def test_a_pair_has_one_score(case):
    file = case.folder / "scores.txt"
    told = ("validate", case.model, "--data", case.data, "--metric", "spearman", "--labels", file)
    file.write_text("\n".join(map(str, [*range(12), *range(12)])))
    assert run(*told).code == 0
    file.write_text("\n".join(map(str, range(24))))
    wrong = run(*told)
    assert wrong.code == 2
    assert "one score a pair: half as many as samples" in wrong.err
