"""What running models adds to the comparison, against numpy on all samples at once."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxq.api import as_source
from onnxq.data.budget import GROUP, Batching
from onnxq.data.labels.match import SampleLabels
from onnxq.errors import DataError, UsageError
from onnxq.model.model import Model
from onnxq.model.session import Runtime, open_session, run
from onnxq.progress import SILENT
from onnxq.validation.compare import compare
from onnxq.validation.terms import Comparison, measured, merging_tasks, plan_of

from support.builder import Builder

COUNT = 2 * GROUP + 3
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.standard_normal((COUNT, 6)).astype(np.float32),
    "labels": RNG.integers(0, 4, COUNT),
}


def network():
    b = Builder(1, spread=0)
    return b.model(b.gemm(b.op("Relu", b.gemm(b.input(6), 8)), 4, name="y"))


def rounded(model, step):
    """The model with its weights on a coarse grid."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array((np.rint(values / step) * step).astype("f4"), tensor.name))  # fmt: skip
    return Model(proto)


FLOAT = network()
COARSE, COARSER = rounded(FLOAT, 0.1), rounded(FLOAT, 0.5)
SOURCE = as_source(DATA, FLOAT)


def comparison(*metrics, **more):
    return Comparison((), metrics or ("sqnr",), ("cpu",), **more)


def outputs(model):
    return run(open_session(model), ["y"], {"x": DATA["x"]})[0].astype(np.float64)


def sqnr(model):
    x, y = outputs(FLOAT), outputs(model)
    return 10 * np.log10((x**2).sum() / ((x - y) ** 2).sum())


@pytest.mark.parametrize("size", [GROUP, 3, 1])
def test_terms_cover_the_samples_in_order(size):
    found = list(measured([FLOAT, COARSE], SOURCE, comparison(batching=Batching(size=size))))
    assert [each.start for each in found] == list(np.cumsum([0] + [t.samples for t in found])[:-1])
    assert sum(each.samples for each in found) == COUNT
    # What ran in parts is put together again.
    assert max(each.samples for each in found) == GROUP
    for each in found:
        rows = slice(each.start, each.start + each.samples)
        np.testing.assert_allclose(each.ran.outputs[0]["y"], outputs(FLOAT)[rows], atol=1e-5)
        assert each.ran.labels.tolist() == DATA["labels"][rows].tolist()
        assert (each.sums[0], each.sums[1]["y"].samples) == ({}, each.samples)


def test_every_second_batch():
    found = list(measured([FLOAT, COARSE], SOURCE, comparison(), first=1, step=2))
    assert [(each.start, each.samples) for each in found] == [(GROUP, GROUP)]


def test_a_worker_computes_what_merges_and_keeps_no_outputs():
    sent = comparison("top1", "sqnr").for_workers()
    assert sent.metrics == ("top1",)
    assert not sent.returns_outputs
    (first, *_) = measured([FLOAT, COARSE], SOURCE, sent, remote=True)
    assert first.ran is None
    hits = outputs(COARSE)[:GROUP].argmax(axis=1) == DATA["labels"][:GROUP]
    assert first.metrics[1]["top1"].hits == hits.sum()


def test_what_only_this_process_knows_is_computed_here():
    def mine(outputs, labels):
        return outputs[:, 0]

    both = comparison("top1", mine)
    assert [task.name for task in merging_tasks(both)] == ["top1"]
    assert both.for_workers().metrics == ("top1",)
    assert both.for_workers().returns_outputs


def test_labels_of_a_file_come_before_those_of_the_data():
    labels = SampleLabels(tuple(float(i) for i in range(COUNT)))
    found = list(measured([FLOAT], SOURCE, comparison(labels=labels)))
    assert [label for each in found for label in each.ran.labels] == list(range(COUNT))


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_the_float_model_runs_first_where_the_data_do(provider):
    batching = Batching(base=Runtime(provider))
    asked = Comparison((), (), ("emulate", "cpu"), batching)
    assert plan_of([FLOAT, COARSE, COARSER], asked) == [
        (FLOAT, provider), (COARSE, "emulate"), (COARSE, "cpu"), (COARSER, "emulate"), (COARSER, "cpu")
    ]  # fmt: skip


# --- the comparison ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [GROUP, 2])
def test_rows_are_what_numpy_finds(size):
    batching = Batching(size=size)
    rows, count = compare([FLOAT, COARSE, COARSER], SOURCE, comparison("top1", "sqnr", batching=batching), progress=SILENT)  # fmt: skip
    assert count == COUNT
    first, *others = rows
    assert np.isnan(first.values["sqnr"])
    assert first.outputs == ()
    for row, model in zip(rows, (FLOAT, COARSE, COARSER), strict=True):
        hits = outputs(model).argmax(axis=1) == DATA["labels"]
        assert row.values["top1"] == pytest.approx(100 * hits.mean())
        assert (row.execution, row.units) == ("cpu", {"top1": "%", "sqnr": "dB"})
    for row, model in zip(others, (COARSE, COARSER), strict=True):
        assert row.values["sqnr"] == pytest.approx(sqnr(model), abs=1e-3)
        assert row.decisive == {"sqnr": "y"}
        assert row.outputs[0].largest_error == pytest.approx(
            np.abs(outputs(FLOAT) - outputs(model)).max(), rel=1e-4
        )


def test_progress_is_told_in_samples():
    steps = []

    class Listener:
        def track(self, label, total):
            steps.append((label, total))
            return self

        def __enter__(self):
            return steps.append

        def __exit__(self, *_):
            steps.append("end")

    compare([FLOAT, COARSE], SOURCE, comparison(), progress=Listener())
    assert steps == [("validate", COUNT), GROUP, GROUP, 3, "end"]
    with SILENT.track("validate", None) as advance:
        advance(3)


def test_accuracy_needs_labels_and_outputs_that_are_there():
    plain = as_source({"x": DATA["x"]}, FLOAT)
    with pytest.raises(DataError, match="top1"):
        compare([FLOAT, COARSE], plain, comparison("top1"))
    with pytest.raises(UsageError, match="has no output 'z'"):
        compare([FLOAT, COARSE], SOURCE, comparison(outputs=("z",)))
