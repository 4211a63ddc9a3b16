"""`tune`: what it tries and in which order, what it takes, and that it begins nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxq
import onnxq.commands.tuning_search
import pytest
from onnx import TensorProto, helper
from onnxq.commands.attempt import Outcome
from onnxq.commands.candidates import CHANGES, Candidate, alone, changed, schemes_of, together
from onnxq.commands.choice import Row, choose, finalists, marked
from onnxq.errors import UsageError
from onnxq.options.quantize import QuantizeOptions
from onnxq.quantization.account import Speed
from onnxq.targets import shipped_targets, target_named

from support.cli_case import CLASSES, SIDE, Case, network, run


@pytest.fixture
def case(tmp_path) -> Case:
    """A folder with a small network, and labelled arrays for it."""
    generator = np.random.default_rng(1)
    onnx.save(network(), tmp_path / "tiny.onnx")
    x = generator.standard_normal((24, 3, SIDE, SIDE)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(24) % CLASSES)
    return Case(tmp_path, tmp_path / "tiny.onnx", tmp_path / "data.npz", tmp_path)


def words(case: Case, *more: object) -> tuple[object, ...]:
    """A short run: eight candidates that nothing times."""
    data = ("--data", case.data, "--validate-data", case.data)
    return ("tune", case.model, *data, "--target", "openvino", "--scheme", "w8", "-o", case.out,
            *more)  # fmt: skip


# --- candidates ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_targets())
def test_candidates_are_what_the_target_takes(name: str):
    target = target_named(name)
    schemes = schemes_of(target, [])
    assert set(schemes) == set(target.schemes)
    assert schemes[0] == "w8a8"
    base = QuantizeOptions(data="random:8", target=name)
    first = alone(target, schemes, {})
    found = dict.fromkeys(first, 30.0)
    second = changed(target, schemes, found)
    for candidate in (*first, *second):
        assert candidate.options(base).scheme.value == candidate.scheme  # and they go together
        options = dict(candidate.changes)
        spec = target.scheme(candidate.scheme).static
        assert "ranges" not in options or (spec is not None and spec.clipping_pays)
        assert "block_size" not in options or "w4" in candidate.scheme or candidate.scheme == "w8"
    assert len({each.name for each in (*first, *second)}) == len(first) + len(second)


def test_a_scheme_that_failed_is_left_alone_and_what_helped_is_joined():
    target = target_named("cpu")
    schemes = ["w8a8", "dynamic"]
    plain = Candidate("w8a8")
    found = {plain: 30.0, Candidate("dynamic"): float("nan")}
    second = changed(target, schemes, found)
    assert {each.scheme for each in second} == {"w8a8"}
    gains = {("mixed", 0.1): 2.0, ("ranges", "mse"): 1.0, ("ranges", "minmax"): 1.5}
    found |= {each: 30.0 + gains.get(each.changes[0], -1.0) for each in second}
    assert [each.name for each in together(target, schemes, found)] == [
        "w8a8, ranges minmax, mixed 10 %"
    ]
    assert together(target, schemes, dict.fromkeys([plain, *second], 30.0)) == []
    assert {each.option for each in CHANGES} == {
        "mixed", "rounding", "ranges", "block_size", "weights",
    }  # fmt: skip


# --- choice ----------------------------------------------------------------------------------


def row(name: str, sqnr: float, size: int, ratio: float | None, *, holds: bool | None = None):
    speed = None if ratio is None else Speed(1, 10.0, 10 * ratio, ratio)
    return Row(Candidate(name), Outcome(sqnr=sqnr, size=size, speed=speed), 8.0, holds)


def test_within_a_gate_speed_counts_then_size_then_closeness():
    rows = [
        row("exact", 60, 400, 1.0, holds=True), row("coarse", 10, 100, 0.3, holds=False),
        row("fast", 30, 300, 0.5, holds=True), row("small", 31, 200, 0.52, holds=True),
        row("close", 33, 210, 0.52, holds=True),
    ]  # fmt: skip
    chosen, why = choose(rows, 1000)
    assert rows[chosen].candidate.scheme == "close"
    assert "fastest within the gate" in why
    assert choose([rows[1]], 1000)[0] is None
    assert [rows[each].candidate.scheme for each in finalists(rows, 1000)] == [
        "close", "small", "fast",
    ]  # fmt: skip
    assert choose(rows, 1000, {0, 1})[0] == 0
    # What is not faster than others, nor smaller, nor closer.
    marks = marked([*rows, row("beaten", 29, 310, 0.8, holds=True)], chosen)
    assert [each.pareto for each in marks] == [True, True, False, False, True, False]
    assert [each.chosen for each in marks] == [False] * 4 + [True, False]


def test_without_a_gate_the_closest_of_those_that_pay():
    rows = [row("slow", 60, 300, 1.0), row("fast", 40, 300, 0.5), row("faster", 20, 300, 0.3)]
    assert choose(rows, 1000)[0] == 1
    assert choose(rows, 200)[0] == 0  # none is smaller than the float model
    untimed = [row("a", 30, 300, None), row("b", 40, 300, None)]
    assert choose(untimed, 1000)[0] == 1
    assert choose([Row(Candidate("a"), Outcome(failure="no"), 8.0)], 1000)[0] is None


def test_where_nothing_is_timed_narrow_activations_count():
    narrow, wide = Outcome(sqnr=30, size=300), Outcome(sqnr=50, size=300)
    bits = (("w8a16", wide, 16.0), ("mixed", wide, 8.8), ("w8a8", narrow, 8.0))
    rows = [Row(Candidate(name), outcome, work, True) for name, outcome, work in bits]
    chosen, why = choose(rows, 1000)
    assert (chosen, "narrowest" in why) == (2, True)


# --- the command -----------------------------------------------------------------------------


def test_it_writes_what_quantize_writes_by_its_recipe(case: Case):
    result = run(*words(case))
    assert result.code == 0
    assert "chosen" in result.out
    assert "not timed: made for OpenVINO" in result.out
    assert sum(line.startswith(f"{n}: ") for n in range(1, 10) for line in result.err.splitlines()) == 8  # fmt: skip
    assert case.files() == {"tiny.onnx", "data.npz", "out.onnx"}
    again, recipe = case.folder / "again.onnx", case.folder / "best.toml"
    recipe.write_text(run("inspect", case.out, "--recipe").out)
    assert run("quantize", case.model, "--recipe", recipe, "-o", again).code == 0
    assert again.read_bytes() == case.out.read_bytes()


def test_a_gate_that_nothing_holds_and_then_a_wider_one(case: Case):
    result = run(*words(case, "--metric", "sqnr", "--max-drop", "0", "--json"))
    assert result.code == 1
    assert not case.out.exists()
    document = result.json
    assert (document["passed"], document["output"], document["chosen"]) == (False, None, None)
    assert "failed: --max-drop 0 %: none of" in result.err
    assert "next: onnxq quantize" in result.err
    assert len(document["rows"]) == 8
    assert not any(each["reused"] or each["within_gate"] for each in document["rows"])
    # Nothing that was tried is tried again; the model alone is made once more.
    wider = run(*words(case, "--metric", "sqnr", "--max-drop", "100", "--json"))
    assert (wider.code, wider.json["passed"]) == (0, True)
    assert all(each["reused"] for each in wider.json["rows"])
    assert [each["sqnr_db"] for each in wider.json["rows"]] == [
        each["sqnr_db"] for each in document["rows"]
    ]
    assert case.out.exists()
    assert wider.json["state"] is None
    assert not case.folder.joinpath("out.onnx.state").exists()


def test_a_budget_leaves_the_rest_for_another_time(case: Case):
    shape = ("--input-shape", "1x3x8x8")
    result = run(*words(case, *shape, "--budget", "0.01s", "--json"))
    assert result.code == 0
    assert [each["candidate"] for each in result.json["rows"]] == ["w8"]
    assert len(result.json["not_tried"]) == 7
    assert "budget of 0.01 s has no room" in result.err
    assert json.loads(json.dumps(result.json["state"])) == str(case.folder / "out.onnx.state")
    rest = run(*words(case, *shape, "--json"))
    assert [each["reused"] for each in rest.json["rows"]] == [True, *[False] * 7]


# The first two runs are stopped after so many trials, by their metric.
METRIC = """
import os, time
from pathlib import Path
here = Path(__file__).parent
class Counts:
    unit, higher_is_better = "", True
    def update(self, inputs, outputs, labels, reference): pass
    def compute(self):
        calls = here / "calls.txt"
        done = calls.read_text().count("x") if calls.exists() else 0
        stop = here / "stop.txt"
        if stop.exists() and done >= int(stop.read_text()):
            (here / "ready.txt").touch()
            time.sleep(300)
        with calls.open("a") as file:
            file.write("x")
        return {"counts": 1.0}
"""

# Born in the background of a script it would be deaf to SIGINT.
HEARS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from onnxq.cli import main
main()
"""


def test_a_run_that_was_killed_repeats_none_of_its_trials(case: Case):
    """The metric is computed once for the float model, and for both in each trial."""
    (case.folder / "mine.py").write_text(METRIC)
    given = {"tiny.onnx", "data.npz", "mine.py", "calls.txt", "stop.txt"}
    metric = ("--metric", f"{case.folder / 'mine.py'}:Counts")
    arguments = [sys.executable, "-c", HEARS, *map(str, words(case, *metric))]
    stop, ready, calls = (case.folder / f"{name}.txt" for name in ("stop", "ready", "calls"))
    for number, trials in ((signal.SIGINT, 1), (signal.SIGKILL, 3)):
        stop.write_text(str(1 + 2 * trials))
        ready.unlink(missing_ok=True)
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 240
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, number)
        process.communicate()
        assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}[number]
        assert calls.read_text() == "x" * (1 + 2 * trials)
        assert not case.out.exists()
        state = list(case.folder.joinpath("out.onnx.state").iterdir())
        known = [json.loads(each.read_text()) for each in state if each.suffix == ".json"]
        assert len([each for each in known if not each["same_as"]]) == 1 + trials
        assert not any("tmp" in each.name for each in state)
    stop.unlink()
    result = run(*words(case, *metric, "--json"))
    rows = result.json["rows"]
    judged = [each for each in rows if not each["same_as"]]
    assert [each["reused"] for each in judged] == [True] * 3 + [False] * (len(judged) - 3)
    assert len(calls.read_text()) == 1 + 2 * len(judged)
    assert case.files() - {"ready.txt"} == (given - {"stop.txt"}) | {"out.onnx"}


# --- bad inputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"--validate-data": None}, 2, "needs validate_data (give --validate-data DATA)"),
        ({"--budget": "soon"}, 2, "--budget must be a time, such as 90s, 10m or 1h30m"),
        ({"--scheme": "w4"}, 2, "target web does not take scheme w4"),
        ({"--metric": "top1", "--validate-data": "unlabelled.npz"}, 4, "top1 needs labels"),
        ({"--metric": "nonsense"}, 2, "unknown metric"),
        ({"-o": "data.npz"}, 2, "it is an input"),
        ({"-o": "foreign.onnx"}, 2, "is there already, and onnxq did not write it"),
        ({"-o": "nowhere/out.onnx"}, 2, "does not exist"),
        ({"model": "relu.onnx", "--scheme": None}, 3, "no candidate of relu.onnx could be made"),
        ({"--dask": "nowhere"}, 2, "no Dask scheduler answers"),
    ],
)
def test_what_is_refused(case: Case, changes, code, said, monkeypatch):
    monkeypatch.chdir(case.folder)
    monkeypatch.setattr("onnxq.cluster.SECONDS", 0.5)
    onnx.save(network(), "foreign.onnx")
    np.savez("unlabelled.npz", x=np.load("data.npz")["x"])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 8, 8]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "relu.onnx")
    given = {"model": "tiny.onnx", "--data": "data.npz", "--validate-data": "data.npz",
             "--target": "web", "--scheme": "dynamic", "-o": "out.onnx"} | changes  # fmt: skip
    if changes.get("model"):
        given["--metric"] = "sqnr"
    before = case.files()
    line = [word for key, value in given.items() if value for word in (key, value)][1:]
    result = run("tune", *line)
    assert (result.code, said in result.err) == (code, True), result.err
    if code == 3:
        for reason in ("w8a8", "dynamic"):
            assert reason in result.err
    assert not case.out.exists()
    assert {each for each in case.files() - before if "state" not in each} == set()


def test_the_best_are_timed_together_at_the_end(case: Case, monkeypatch):
    """Each beside the float model, then the best three and the first in one series."""
    monkeypatch.setattr("onnxq.commands.tuning_search.SECONDS", 0.0)
    series = []
    bench = onnxq.commands.tuning_search.bench
    monkeypatch.setattr(
        "onnxq.commands.tuning_search.bench",
        lambda models, *more: series.append(len(models)) or bench(models, *more),
    )
    _, found = onnxq.tune(
        case.model, case.data, validate_data=case.data, target="cpu", schemes=["w8"],
        metrics=["sqnr"], max_drop=100,
    )  # fmt: skip
    assert series[:-1] == [2] * len([row for row in found.rows if row.distinct])
    assert series[-1] in {4, 5}
    together = [row for row in found.rows if row.outcome.speed and row.outcome.speed.float_ms
                == found.chosen.outcome.speed.float_ms]  # fmt: skip
    assert len(together) == series[-1] - 1
    assert found.chosen in together


def test_python_gets_the_model_and_what_was_tried(case: Case):
    seen = []
    model, found = onnxq.tune(
        case.model, case.data, validate_data=case.data, target="web", schemes=["dynamic"],
        max_drop=100, metrics=["sqnr"], progress=lambda *told: seen.append(told),
    )  # fmt: skip
    assert found.chosen is not None
    assert found.ended
    assert model.size == found.chosen.outcome.size
    assert found.options.scheme.value == "dynamic"
    assert seen
    assert "chosen: dynamic" in repr(found)
    assert "<table>" in found._repr_html_()
    assert len(found.to_pandas()) == 6
    assert not case.folder.joinpath("out.onnx.state").exists()
    nothing, found = onnxq.tune(
        case.model, case.data, validate_data=case.data, target="web", schemes=["dynamic"],
        max_drop=0, metrics=["sqnr"], budget="1s",
    )  # fmt: skip
    assert (nothing, found.chosen) == (None, None)
    with pytest.raises(UsageError, match="tune needs validate_data"):
        onnxq.tune(case.model, case.data, validate_data=None)
