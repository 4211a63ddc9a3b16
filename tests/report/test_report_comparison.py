"""What the page compares models by: samples, sizes, the graph; what it advises; its libraries."""

import math
import re
from pathlib import Path

import numpy as np
import onnxq
import pytest
from onnxq.closeness import closeness, sums_of
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.model.graph import Graph
from onnxq.report.html.collect import short_names
from onnxq.report.html.libraries import FOLDER, LIBRARIES
from onnxq.report.html.picture import picture_of, shape_text
from onnxq.report.html.sizes import REST, SCALES, sizes_of
from onnxq.report.subject import look_at
from onnxq.validation.by_sample import Recorder
from onnxq.validation.layers import LayerError

from support.builder import Builder
from support.reporting import Reported
from support.testdata import uneven

ROOT = Path(__file__).resolve().parents[2]


def recorded(exact, other, labels=None, mask=None, batch=3):
    """What a recorder says of one output in batches, and its closeness as a whole."""
    recorder, count = Recorder(), len(exact)
    rows = [recorder(), recorder()]
    for start in range(0, count, batch):
        here = slice(start, start + batch)
        arrays = {"x": np.zeros((len(exact[here]), 1))} | (
            {} if mask is None else {"m": mask[here]}
        )
        feeds = Feeds(arrays, BatchAxes(dict.fromkeys(arrays, 0), mask="" if mask is None else "m"))
        for row, values in zip(rows, (exact, other), strict=True):
            given = None if labels is None else labels[here]
            row.update(feeds, {"y": values[here]}, given, {"y": exact[here]})
    real = {} if mask is None else {"y": mask.astype(bool)[..., None]}
    found = closeness(sums_of({"y": exact}, {"y": other}, count, real))
    return recorder.rows([(), found]), found


def test_a_samples_error_counts_against_the_signal_of_all():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((8, 5)).astype(np.float32)
    other = exact.copy()
    other[3] += 0.5
    other[6] += 0.1
    (_, row), (whole,) = recorded(exact, other)
    assert row.worst(3) == [3, 6]  # the others have no error at all
    signal = np.mean(np.square(exact, dtype=np.float64))
    noise = np.mean(np.square(exact[3] - other[3], dtype=np.float64))
    assert row.errors[3] == pytest.approx(10 * math.log10(signal / noise), abs=1e-4)
    # All of them together are what the comparison says.
    together = -10 * math.log10(np.mean(10 ** (-row.errors / 10)))
    assert together == pytest.approx(whole.whole.sqnr, abs=1e-6)


def test_the_worst_group_of_slices_counts():
    """Boxes in pixels hide scores in 0…1 where all are one output."""
    rng = np.random.default_rng(0)
    exact = rng.uniform(0.5, 1, (6, 6, 40)) * np.array([300.0] * 4 + [1.0] * 2)[:, None]
    other = exact.copy()
    other[2, 4:] += 0.3
    other[4, :4] += 3
    (_, row), (found,) = recorded(exact, other)
    assert len(found.groups) == 2
    assert row.worst(2) == [2, 4]
    assert row.errors[2] < 20 < row.errors[4]


def test_padding_does_not_count():
    exact = np.random.default_rng(0).standard_normal((4, 3, 2))
    other = exact.copy()
    mask = np.array([[1, 1, 0]] * 4)
    other[:, 2] = 9
    other[1, 0] += 0.1
    (_, row), _ = recorded(exact, other, mask=mask)
    assert row.worst(4) == [1]


def test_what_is_not_finite_is_the_worst():
    exact = np.ones((4, 3))
    exact[0, 0] = np.inf
    other = exact.copy()
    other[1] += 0.1
    other[3, 0] = np.nan
    (_, row), _ = recorded(exact, other)
    assert row.worst(4)[:1] == [3]
    assert row.errors[3] == -np.inf


def test_classes_are_counted_by_their_labels():
    exact = np.eye(3)[[0, 1, 2, 2]]
    other = np.eye(3)[[0, 2, 2, 1]]
    (reference, row), _ = recorded(exact, other, labels=[0, 1, 2, 2])
    assert reference.by_class == {0: (1, 1), 1: (1, 1), 2: (2, 2)}
    assert row.by_class == {0: (1, 1), 1: (1, 0), 2: (2, 1)}


def test_the_page_shows_pictures_of_the_worst_samples(reported: Reported):
    labels = np.random.default_rng(0).integers(
        0, 4 * 8 * 8, len(next(iter(reported.data.values())))
    )
    data = reported.data | {"labels": labels}
    names = [f"kind {number}" for number in range(4 * 8 * 8)]
    _, found = onnxq.report(
        reported.model, reported.int8, data=data, layers=False, metrics=["top1"], classes=names
    )
    assert list(found.validation.rows[1].values) == ["top1"]
    assert found.classes[7] == "kind 7"
    row = found.by_sample[1]
    assert len(row.errors) == len(row.answers) == len(labels)
    assert [each.number for each in found.worst] == row.worst(len(found.worst))
    assert all(each.picture.startswith("data:image/jpeg;base64,") for each in found.worst)
    top1 = found.validation.rows[1].values["top1"]
    assert 100 * np.mean(np.equal(row.answers, labels)) == pytest.approx(top1)


def test_sizes_add_up_to_the_file(reported: Reported):
    for model in (reported.model, reported.int8):
        sizes = sizes_of(look_at(model))
        assert sum(sizes.kinds.values()) == sizes.whole == model.size
        assert sizes.kinds[REST] > 0
    assert sizes.kinds["weights in int8"] == sum(
        math.prod(each.shape)
        for each in onnxq.inspect(reported.int8).details.learnables
        if each.format == "int8"
    )
    assert sizes.kinds[SCALES] > 0
    assert set(sizes.stored.values()) >= {"int8"}


def test_tables_of_rows_are_embeddings():
    b = Builder(0)
    ids = b.op("Cast", b.input(), to=7)
    rows = b.op("Gather", b.const(b.random(50, 8)), ids)
    model = b.model(b.op("MatMul", rows, b.const(b.random(8, 8)), shape=(8,)))
    sizes = sizes_of(look_at(model))
    assert sizes.kinds["embeddings in float32"] == 50 * 8 * 4
    assert sizes.kinds["weights in float32"] == 8 * 8 * 4


def test_the_picture_has_an_edge_for_each_tensor_that_is_read():
    graph = Graph(uneven())
    picture = picture_of(graph)
    names = [name for name, _ in picture.nodes]
    read = {(graph.producers[name].name, node.name) for node in graph.nodes for name in node.inputs
            if name in graph.producers}  # fmt: skip
    ends = {(each.source, each.target) for each in picture.edges}
    assert read <= {(names[source], names[target]) for source, target in ends}
    assert [kind for _, kind in picture.nodes[-2:]] == ["input", "output"]
    assert len(ends) == len(read) + 2


def test_shapes_in_words():
    assert shape_text(("N", 3, 28, None)) == "N×3×28×?"
    assert shape_text(("floor(height/2)", "unk__3")) == "?×?"
    assert (shape_text(()), shape_text(None)) == ("scalar", "")


def test_short_names_tell_models_apart(reported: Reported):
    assert short_names((reported.model, reported.int8, reported.plain)) == (
        "float", "int8", "plain"
    )  # fmt: skip
    assert len({*short_names((reported.model, reported.int8, reported.int8))}) == 3
    assert short_names((reported.model,)) == ("model",)


def test_the_advice_follows_from_what_was_measured(reported: Reported):
    _, plain = reported.report.advice
    options = [each.option for each in plain]
    (layers,) = (found.layers for found in reported.report.validation.layers[1:])
    loud = [each.name for each in layers[:3] if each.share >= 20]
    (exclude,) = [each for each in options if each.startswith("--exclude")]
    pattern = exclude.removeprefix("--exclude ").strip("'")
    assert all(re.search(part, name) for part, name in zip(pattern.split("|^"), loud, strict=False))
    assert isinstance(layers[0], LayerError)
    assert "--mixed 10%" in options
    # What the target does not take is not advised.
    assert not [each for each in options if each.startswith("--scheme")]


def test_the_licences_of_its_libraries_are_told():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    for each in LIBRARIES:
        assert f"{each.name} {each.version}" in notice
        assert f"`{each.package}` {each.version}" in told
        assert "Permission is hereby granted" in each.licence
        script = next(FOLDER.glob(f"{each.name}*.js")).read_text(encoding="utf-8")
        assert each.version in script
