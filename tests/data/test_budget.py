"""How much runs at once follows the budget; what comes out does not."""

import numpy as np
import pytest
from onnxq.data.budget import GROUP, LARGE, TENSORS, Limits, OneSample, need_of, plan_batching
from onnxq.data.gather import in_parts, join_parts, run_batches
from onnxq.errors import UsageError
from onnxq.model.footprint import known_footprint
from onnxq.model.graph import Graph
from onnxq.model.session import Runtime

from support.builder import Builder

RNG = np.random.default_rng(0)
PLENTY = 1 << 40


def convolutions(side=8):
    b = Builder(0)
    x = b.input(3, side, side)
    for _ in range(3):
        x = b.clip(b.conv(x, 4, 3))
    return b.model(x)


def averaging():
    """A mean over the samples' own axes: its bits depend on how the samples lie in memory."""
    b = Builder(0)
    x = b.clip(b.conv(b.input(3, 7, 7), 5))
    return b.model(b.op("ReduceMean", x, axes=[2, 3], keepdims=0, shape=(5,)))


def planned(model, memory, *, batch_size=GROUP, threads=2, fed=None):
    shape = model.inputs[0].shape[1:]
    values = {"x": RNG.standard_normal((2, *(fed or shape))).astype(np.float32)}
    sample = OneSample(model, lambda: values, Runtime(threads=threads))
    return plan_batching(sample, Limits(batch_size, memory))


def need(model):
    graph = Graph(model)
    return need_of(known_footprint(graph), graph, ()) / TENSORS


def test_what_is_small_runs_in_whole_groups_on_all_threads():
    for threads, runs in ((1, 1), (2, 2), (5, 5), (30, 8)):
        found = planned(convolutions(), PLENTY, threads=threads)
        assert (found.size, found.runs, found.large, found.splits) == (GROUP, runs, False, False)


@pytest.mark.parametrize(
    ("samples", "size", "runs"), [(16, 8, 2), (15, 4, 2), (5, 2, 2), (2, 1, 2), (1, 1, 1), (0.1, 1, 1)]
)  # fmt: skip
def test_first_the_batch_shrinks_then_there_are_fewer_runs(samples, size, runs):
    model = convolutions()
    found = planned(model, int(samples * need(model)) + 1)
    assert (found.size, found.runs) == (size, runs)
    assert found.size * found.runs * need(model) <= max(samples, 1) * need(model) + 1


def test_the_caller_sets_an_upper_limit():
    assert [planned(convolutions(), PLENTY, batch_size=b).size for b in (1, 3, 8, 99)] == [
        1,
        3,
        8,
        8,
    ]


def test_limits_that_make_no_sense():
    with pytest.raises(UsageError, match="the batch size must be at least 1, not 0"):
        Limits(0)
    with pytest.raises(UsageError, match="memory must not be negative"):
        Limits(memory=-1)


def test_where_bits_depend_on_the_batch_the_model_alone_decides():
    found = [planned(averaging(), memory, batch_size=b) for memory in (1, PLENTY) for b in (1, 8)]
    assert {each.size for each in found} == {GROUP}
    assert found[0].runs == 1
    b = Builder(0)
    side = int(np.sqrt(LARGE / 2.5 / (4 * 3 * 4)))
    x = b.input(3, side, side)
    large = b.model(b.op("ReduceMean", x, axes=[2, 3], keepdims=0, shape=(3,)))
    sizes = {planned(large, memory).size for memory in (1, PLENTY)}
    assert sizes == {2}


def test_a_fixed_batch_stays_whole():
    b = Builder(0)
    b.batch = 16
    found = planned(b.model(b.op("Relu", b.input(4))), 1)
    assert (found.size, found.runs) == (GROUP, 1)


def test_shapes_that_are_not_known_are_those_of_one_sample():
    b = Builder(0)
    model = b.model(b.op("Relu", b.input("h", "w")))
    found = planned(model, 1 << 20, fed=(100, 100))
    # Four tensors of 40 kB, two runs.
    assert (found.size, found.runs) == (2, 2)


@pytest.mark.parametrize("memory", [1, 10_000, PLENTY])
@pytest.mark.parametrize("optimize", [True, False])
def test_groups_in_parts_give_what_whole_groups_give(memory, optimize):
    model = convolutions()
    groups = [{"x": RNG.standard_normal((n, 3, 8, 8)).astype(np.float32)} for n in (8, 8, 3)]
    whole = list(run_batches(model, None, groups, optimize=optimize))
    batching = planned(model, memory)
    parts = list(run_batches(model, None, groups, optimize=optimize, batching=batching))
    assert batching.splits == (memory < PLENTY)
    for (one,), (other,) in zip(whole, parts, strict=True):
        assert one.tobytes() == other.tobytes()


def test_parts_join_along_their_axis():
    parts = [np.zeros((2, 1, 3)), np.ones((2, 4, 3))]
    assert np.array_equal(join_parts(parts, 1), np.concatenate(parts, 1))
    assert join_parts(parts[:1], None) is parts[0]
    assert isinstance(join_parts(parts, None), list)
    assert isinstance(join_parts(parts, 0), list)
    assert isinstance(join_parts([parts[0], None], 1), list)


def test_what_does_not_join_runs_whole():
    b = Builder(0)
    model = b.model(b.op("Transpose", b.input(4), perm=[1, 0]), b.op("Relu", "x"))
    batching = planned(model, PLENTY, batch_size=1)
    seen = []

    def run(feeds):
        seen.append(len(feeds["x"]))
        return [feeds["x"].T, np.maximum(feeds["x"], 0)]

    names = [spec.name for spec in model.outputs]
    x = RNG.standard_normal((3, 4))
    turned, kept = in_parts(run, names, batching)({"x": x})
    assert np.array_equal(turned, x.T)
    assert np.array_equal(kept, np.maximum(x, 0))
    assert seen == [1, 1, 1]
    in_parts(run, ["unknown", names[1]], batching)({"x": x})
    assert seen[3:] == [1, 1, 1, 3]


@pytest.mark.parametrize("model", [convolutions(), averaging()])
def test_what_runs_over_the_data_opens_sessions_on_the_provider(model):
    sample = OneSample(model, lambda: {"x": RNG.standard_normal((1, 3, 7, 7))}, Runtime("cuda"))
    batching = plan_batching(sample, Limits())
    assert batching.runtime(3).provider == "cuda"
    assert batching.whole().runtime(1).provider == "cuda"
    assert batching.of(Graph(averaging())).runtime(8).provider == "cuda"
