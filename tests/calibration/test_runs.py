"""However a calibration is run - killed, in shards, in passes - the bytes are the same."""

import dataclasses
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxq import api
from onnxq.calibration import files, shards, stream
from onnxq.calibration.checkpoint import Checkpoint
from onnxq.calibration.passes import groups_within
from onnxq.calibration.stream import Request
from onnxq.data.budget import Limits
from onnxq.data.gather import run_batch
from onnxq.errors import DataError, ModelError
from onnxq.model.footprint import known_footprint
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import Runtime

from support.builder import Builder

TESTS = Path(__file__).parent.parent


def model():
    b = Builder(1)
    x = b.clip(b.conv(b.input(3, 6, 6), 8, 3))
    return b.model(b.head(b.op("Add", x, b.conv(x, 8))))


def data(count=50):
    return np.random.default_rng(0).standard_normal((count, 3, 6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def expected():
    return files.to_bytes(api.calibrate(model(), data()))


# --- killed and resumed ------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from calibration import test_runs as t
from onnxq.calibration import stream
from onnxq.calibration.counter import Counter

if __name__ == "__main__":
    left = int(sys.argv[1])
    add = Counter.add

    def counted(self, *arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, *arguments)

    Counter.add = counted
    found = t.resumed(Path(sys.argv[2]), memory=int(sys.argv[3]))
    Path(sys.argv[2] + ".done").write_bytes(t.files.to_bytes(found))
"""


def resumed(state, *, memory=0):
    normalized, _ = normalize(model())
    tensors = api.tensors_to_observe(Graph(normalized))
    request = Request(tensors, model().fingerprint, Limits(memory=memory))
    source = api.as_source(data(), model())
    return stream.calibrate(normalized, source, request, checkpoint=Checkpoint(state, True, 0))


@pytest.mark.parametrize(("memory", "batches"), [(0, 3), (4_000, 60)])
def test_killed_again_and_again_a_run_ends_with_the_same_bytes(tmp_path, expected, memory, batches):
    script, state = tmp_path / "run.py", tmp_path / "state"
    script.write_text(KILLED.format(tests=str(TESTS)))
    done = Path(f"{state}.done")
    kills = 0
    while not done.exists():
        # Several kills within each pass, of seven batches or of fifty samples.
        command = [sys.executable, str(script), str(batches), str(state), str(memory)]
        code = subprocess.run(command, check=False, capture_output=True).returncode
        assert code in {0, -signal.SIGKILL}
        kills += code != 0
        assert kills < 30
    assert kills >= 2
    assert done.read_bytes() == expected


def test_the_state_of_another_run_is_refused(tmp_path):
    state = tmp_path / "c.calib.state"
    resumed(state)
    source = api.as_source(data(), model())
    for change, message in (
        ({"hold_out": 4}, "different hold out"),
        ({"shard": (1, 2)}, "different shard"),
        ({"fingerprint": "other"}, "different model"),
    ):
        normalized, _ = normalize(model())
        tensors = api.tensors_to_observe(Graph(normalized))
        request = dataclasses.replace(Request(tensors, model().fingerprint), **change)
        with pytest.raises(DataError, match=message):
            stream.calibrate(normalized, source, request, checkpoint=Checkpoint(state, True, 0))
    with pytest.raises(DataError, match="different data"):
        api.calibrate(model(), data(20), state=state, resume=True)
    state.write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="no state of a calibration"):
        api.calibrate(model(), data(), state=state, resume=True)


def test_without_resume_an_old_state_is_of_no_account(tmp_path, expected):
    state = tmp_path / "state"
    state.write_bytes(b"old")
    assert files.to_bytes(api.calibrate(model(), data(), state=state)) == expected


# --- shards ------------------------------------------------------------------------------------


def test_parts_of_a_shard_give_its_bytes():
    whole = api.calibrate(model(), data(), shard=(2, 3))
    normalized, _ = normalize(model())
    tensors = api.tensors_to_observe(Graph(normalized))
    request = Request(tensors, model().fingerprint, shard=(2, 3))
    source = api.as_source(data(), model())
    parts = [stream.calibrate(normalized, source, each) for each in shards.split(request, 2)]
    assert files.to_bytes(shards.join(parts, (2, 3))) == files.to_bytes(whole)


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 20_000, 10**9])
def test_passes_over_groups_of_tensors_give_the_same_bytes(memory, expected):
    assert files.to_bytes(api.calibrate(model(), data(), memory=memory)) == expected


def test_groups_fit_the_budget():
    normalized, _ = normalize(model())
    graph = Graph(normalized)
    tensors = [t for t in api.tensors_to_observe(graph) if t not in graph.inputs]
    footprint = known_footprint(graph)
    running = footprint.peak(graph, ())
    budget = 2 * running
    groups = groups_within(graph, tensors, footprint, budget, 1)
    assert [tensor for group in groups for tensor in group] == tensors
    assert len(groups) > 1
    assert all(footprint.peak(graph, group) <= budget for group in groups)
    assert len(groups_within(graph, tensors, footprint, budget, 2)) > len(groups)
    assert groups_within(graph, tensors, footprint, 1, 1) == [[t] for t in tensors]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 100])
def test_the_size_of_a_run_changes_no_bytes(expected, batch_size):
    assert files.to_bytes(api.calibrate(model(), data(), batch_size=batch_size)) == expected


def test_what_does_not_grow_with_the_samples_counts_once_a_group():
    b = Builder(1)
    x = b.input(4)
    row = b.op("Slice", x, b.const(np.array([0])), b.const(np.array([1])))
    table = b.op("Abs", b.op("Sub", row, row))
    free = b.model(b.op("Relu", b.op("Add", x, table)))
    values = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    whole = api.calibrate(free, values)
    assert whole.tensors[table].count == 3 * 4
    for batch_size in (1, 2):
        parts = api.calibrate(free, values, batch_size=batch_size)
        assert files.to_bytes(parts) == files.to_bytes(whole)


# --- batches side by side ------------------------------------------------------------------------


def request_of(threads, **settings):
    normalized, _ = normalize(model())
    tensors = api.tensors_to_observe(Graph(normalized))
    return normalized, Request(
        tensors, model().fingerprint, runtime=Runtime(threads=threads), **settings
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_however_many_run_side_by_side_the_bytes_are_the_same(expected, threads):
    normalized, request = request_of(threads)
    source = api.as_source(data(), model())
    assert files.to_bytes(stream.calibrate(normalized, source, request)) == expected


def test_where_one_run_fits_its_tensors_are_counted_in_threads(expected):
    normalized, request = request_of(4, limits=Limits(memory=20_000))
    source = api.as_source(data(), model())
    assert files.to_bytes(stream.calibrate(normalized, source, request)) == expected
    assert any(thread.name.startswith("count_") for thread in threading.enumerate())


@pytest.mark.parametrize(("threads", "memory"), [(1, 0), (8, 0), (4, 20_000)])
def test_the_first_of_several_bad_samples_is_named(threads, memory):
    normalized, request = request_of(threads, limits=Limits(1, memory))
    values = data()
    values[[7, 8, 9, 31]] = 3e38
    source = api.as_source(values, model())
    for _ in range(5):
        with pytest.raises(DataError, match=r"for sample <memory>\[7\]"):
            stream.calibrate(normalized, source, request)


# --- models that take one sample -----------------------------------------------------------------


def only_singly():
    """Its Reshape has the batch size 1 in it, though the input says N."""
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["r"], name="relu"),
        onnx.helper.make_node("Reshape", ["r", "shape"], ["f"], name="reshape"),
        onnx.helper.make_node("MatMul", ["f", "w"], ["y"], name="matmul"),
    ]
    w = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        nodes, "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 3, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 3])],
        [onnx.numpy_helper.from_array(np.array([1, 12]), "shape"),
         onnx.numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    return Model(proto)


def test_a_model_that_takes_one_sample_gets_one_at_a_time():
    x = np.random.default_rng(0).standard_normal((19, 3, 4)).astype(np.float32)
    found = api.calibrate(only_singly(), x)
    assert found.samples == 19
    assert found.tensors["f"].count == 19 * 12
    assert found.note == stream.SINGLY
    parts = [api.calibrate(only_singly(), x, shard=(i, 2)) for i in (1, 2)]
    assert files.to_bytes(shards.join(parts, (1, 1))) == files.to_bytes(found)


def test_its_sizes_are_those_of_one_sample():
    x = np.random.default_rng(0).standard_normal((19, 3, 4)).astype(np.float32)
    whole = api.calibrate(only_singly(), x)
    in_passes = api.calibrate(only_singly(), x, memory=100)
    assert files.to_bytes(in_passes) == files.to_bytes(whole)


def test_no_samples_are_no_batch_to_learn_sizes_from(tmp_path):
    (tmp_path / "data.py").write_text("def none():\n    return iter(())\n")
    with pytest.raises(DataError, match="no samples"):
        api.calibrate(model(), f"{tmp_path}/data.py:none", memory=100)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_such_a_model_goes_through_all_stages(batch_size):
    x = np.random.default_rng(0).standard_normal((40, 3, 4)).astype(np.float32)
    model = only_singly()
    calibration = api.calibrate(model, x, batch_size=batch_size)
    equalized, _ = api.equalize(model, calibration=calibration, data=x)
    quantized, result = api.quantize(equalized, x)
    assert result.plan.weighted == {"matmul"}
    assert api.quantize(model, x, calibration=calibration)[1].plan.weighted == {"matmul"}
    assert api.emulate(quantized, x).outputs["y"].shape == (40, 3)
    found = api.validate(model, quantized, x, layers=True)
    assert found.samples == 40
    assert 30 < found.rows[1].values["sqnr"] < 60
    assert len(found.layers[0].layers) == 1


def test_what_fails_on_single_samples_too_is_said_of_the_batch():
    def run(feeds):
        raise ModelError(f"{len(feeds['x'])} samples")

    with pytest.raises(ModelError, match=r"^5 samples"):
        list(run_batch(run, {"x": np.zeros(5)}))
