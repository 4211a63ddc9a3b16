"""`--max-drop`: the search alone, and on a real network that collapses in int8."""

import json
import math
from dataclasses import replace

import onnxq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.errors import UsageError
from onnxq.quantization import quantize as stage
from onnxq.quantization import ways
from onnxq.quantization.details import METADATA_KEY, details
from onnxq.quantization.plan import Float
from onnxq.quantization.search import (
    Bounds,
    Candidate,
    Criterion,
    Measurement,
    Trial,
    search,
)
from onnxq.refusal import Refusal

from support.random_graphs import random_feeds
from support.testdata import TESTDATA, images, uneven

CRITERION = Criterion("top1", "%", 90.0, 1.0, "%", 100)


def explore(drops, *, limit=1.0, bounds=None, weighted=None, clock=None):
    """Search where k layers in float give `drops[k]`; returns the result, record and trials."""
    order = [
        Candidate(f"layer{i}", 1.0, weighted is None or i in weighted)
        for i in range(len(drops) - 1)
    ]
    tried = []

    def trial(size):
        tried.append(size)
        return Trial(size, Measurement(90 - drops[size], drops[size], drops[size] <= limit))

    def attempt(layers):
        assert list(layers) == order[: len(layers)]
        return trial(len(layers))

    clocks = {} if clock is None else {"clock": clock}
    made, record = search(
        CRITERION, trial(0), lambda: order, attempt, bounds or Bounds(trials=1000), **clocks
    )
    return made, record, tried


# --- the search ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 5), min_size=3, max_size=80))
def test_the_fewest_layers_are_found_where_each_helps(values):
    drops = sorted(values, reverse=True)
    made, record, tried = explore(drops)
    most = len(drops) - 2  # one layer stays int8
    holding = [size for size in range(most + 1) if drops[size] <= 1]
    assert record.passed == bool(holding)
    assert made == (holding[0] if holding else min(tried, key=lambda s: (drops[s], s)))
    assert len(record.kept) == made
    assert len(tried) == len(set(tried)) <= 3 + 2 * math.log2(len(drops))
    assert max(tried) <= most
    assert not record.passed or record.ended in {
        "every layer can be quantized", "one layer less in float does not hold"
    }  # fmt: skip


@given(st.lists(st.floats(0, 5), min_size=3, max_size=40), st.integers(1, 12))
def test_whatever_is_found_was_measured(drops, trials):
    """Drops that go up and down: the result is still one that was tried, within the bound."""
    made, record, tried = explore(drops, bounds=Bounds(trials=trials))
    assert len(tried) <= trials
    assert made in tried
    assert record.passed == any(drops[size] <= 1 for size in tried)
    assert drops[made] <= 1 if record.passed else drops[made] == min(drops[s] for s in tried)
    assert [step.kept for step in record.steps] == sorted(tried)
    added = [node for step in record.steps for node in step.added]
    assert added == [f"layer{i}" for i in range(max(tried))]


def test_a_layer_that_is_raised_twice_counts_once():
    """Wider first, then in float: the trial has it as the later step leaves it."""
    order = [Candidate(name, 1.0, True, to) for to in ("w8a16", "float") for name in "abc"]
    asked = []

    def attempt(layers):
        asked.append(layers)
        drop = 5.0 if len([each for each in layers if each.becomes == "float"]) < 2 else 0.5
        return Trial(layers, Measurement(90 - drop, drop, drop <= 1))

    first = Trial((), Measurement(80, 10.0, False))
    made, record = search(CRITERION, first, lambda: order, attempt, Bounds())
    assert {each.node: each.becomes for each in made} == {"a": "float", "b": "float", "c": "w8a16"}
    assert record.kept == made
    assert all(len({each.node for each in layers}) == len(layers) for layers in asked)
    assert [name for step in record.steps for name in step.becomes][-1] == "float"


def test_the_last_weighted_layer_stays_int8():
    made, record, tried = explore([9.0] * 7, weighted={1, 3})
    assert max(tried) == 3
    assert not record.passed
    assert made == 0
    assert "leaves one quantized" in record.ended


def test_nothing_is_ranked_where_int8_holds():
    def fail():
        raise AssertionError

    first = Trial("int8", Measurement(90, 0.5, True))
    made, record = search(CRITERION, first, fail, fail, Bounds())
    assert (made, record.kept, record.passed) == ("int8", (), True)
    assert len(record.steps) == 1


def test_no_trial_starts_after_the_time():
    seconds = iter(range(0, 10_000, 25))
    made, record, tried = explore(
        [9.0] * 200, bounds=Bounds(minutes=1), clock=lambda: next(seconds)
    )
    assert tried == [0, 1, 2]
    assert record.ended == "1 minutes are over"
    assert not record.passed
    assert made == 0


# --- on a real network ---------------------------------------------------------------------------


COLLAPSING = {"weights": "per-tensor", "equalize": False, "ranges": "minmax"}
MOBILENET = TESTDATA / "mobilenetv2.onnx"


@pytest.fixture(scope="module")
def calibration():
    return onnxq.calibrate(MOBILENET, images("calibration", 8))


@pytest.mark.slow
def test_layers_in_float_bring_a_collapsed_network_back(calibration, tmp_path):
    test = images("test", 8, labelled=True)
    int8, result = onnxq.quantize(
        MOBILENET, calibration=calibration, max_drop=1.0, validate_data=test, **COLLAPSING
    )
    found = result.search
    assert found.passed
    assert found.criterion.metric == "top1"
    assert found.criterion.samples == 250
    assert found.steps[0].drop > 30
    assert 1 <= len(found.kept) <= 10
    assert {"node_conv2d_1", "node_conv2d_19"} <= {each.node for each in found.kept}
    # What was measured is what was made.
    onnxq.save(int8, tmp_path / "int8.onnx")
    validation = onnxq.validate(MOBILENET, tmp_path / "int8.onnx", test, max_drop=1.0)
    best = next(step for step in found.steps if step.kept == len(found.kept))
    assert validation.passed
    assert validation.rows[1].values["top1"] == best.value
    assert validation.gates[0].value == best.drop
    # One layer less was tried and does not hold.
    assert not next(step for step in found.steps if step.kept == len(found.kept) - 1).passed
    # The reasons are in the plan, the metadata and the details.
    written = details(onnxq.load(tmp_path / "int8.onnx"))
    for each in found.kept:
        status = result.plan.nodes[each.node]
        assert isinstance(status, Float)
        assert written.float_nodes[each.node] == status.reason
        assert status.reason.startswith("--max-drop keeps it in float: ")
    record = json.loads(int8.metadata[METADATA_KEY])["search"]
    assert record["passed"] is True
    assert [step["kept"] for step in record["steps"]] == [step.kept for step in found.steps]


def test_a_bound_ends_the_search_with_the_best_so_far(calibration):
    int8, result = onnxq.quantize(
        MOBILENET, calibration=calibration, max_drop=0.0, max_trials=2,
        validate_data=images("test", 80, labelled=True), **COLLAPSING,
    )  # fmt: skip
    assert not result.search.passed
    assert result.search.ended == "2 trials were made"
    best = min(result.search.steps, key=lambda step: step.drop)
    assert len(result.search.kept) == best.kept
    kept = [n for n, s in result.plan.nodes.items() if "--max-drop" in getattr(s, "reason", "")]
    assert len(kept) == best.kept
    assert json.loads(int8.metadata[METADATA_KEY])["search"]["passed"] is False


def test_without_labels_the_error_of_the_outputs_counts(calibration):
    _, result = onnxq.quantize(
        MOBILENET, calibration=calibration, max_drop=5.0, equalize=False,
        validate_data=images("test", 80),
    )  # fmt: skip
    found = result.search
    assert found.criterion.metric == "sqnr"
    assert (found.criterion.unit, found.criterion.drop_unit) == ("dB", "%")
    assert math.isnan(found.criterion.float_value)
    assert found.passed == (found.steps[0].value > 20 * math.log10(100 / 5.0))
    assert found.steps[0].drop == pytest.approx(100 * 10 ** (-found.steps[0].value / 20))


def test_a_second_attempt_starts_from_the_first(calibration, monkeypatch):
    """Equalization and calibration are used again, and the same plan gives the same bytes."""
    requests = []
    quantize = stage.quantize
    monkeypatch.setattr(
        stage, "quantize", lambda request: requests.append(request) or quantize(request)
    )
    onnxq.quantize(uneven(), random_feeds(uneven(), batch=64))
    monkeypatch.undo()
    first, result = quantize(requests[0])
    monkeypatch.setattr(ways, "scaled", None)
    again, same = quantize(replace(requests[0], again=result))
    assert again.proto.SerializeToString(deterministic=True) == first.proto.SerializeToString(
        deterministic=True
    )
    assert same.equalization is result.equalization
    layer = next(iter(result.plan.weights)).node
    kept, other = quantize(replace(requests[0], again=result, keep={layer: "why not"}))
    assert other.plan.nodes[layer] == Float(Refusal("why not"))
    assert kept.size > first.size


def test_a_drop_and_its_data_need_each_other(calibration):
    with pytest.raises(UsageError, match="need each other"):
        onnxq.quantize(MOBILENET, calibration=calibration, max_drop=1.0)
    with pytest.raises(UsageError, match="need each other"):
        onnxq.quantize(MOBILENET, calibration=calibration, validate_data="random:4")
