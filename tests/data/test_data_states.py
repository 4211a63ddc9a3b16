"""Streaming models: what one step gives is what the next one takes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.data.states import parse_states, streamed
from onnxq.errors import DataError, UsageError
from onnxq.model.model import Model
from onnxq.validation.execute import runner

STEPS = 5


def info(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def running_sum(state=(2, "N", 3)):
    """state' = state + x in both rows; y = W·state'[0]."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "zero"], ["row"], name="row"),
        helper.make_node("Add", ["state", "row"], ["next"], name="add"),
        helper.make_node("Gather", ["next", "first"], ["h"], name="h", axis=0),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="matmul"),
    ]
    weights = [
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array(0), "first"),
        numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "w"),
    ]
    graph = helper.make_graph(
        nodes, "sum", [info("x", "N", 3), info("state", *state)],
        [info("y", "N", 2), info("next", *state)], weights,
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def steps(sequences=3):
    return np.random.default_rng(0).standard_normal((sequences, STEPS, 3), np.float32)


def states_of(xs):
    """Before each step, of each sequence: the sum of the steps before."""
    sums = np.cumsum(xs, axis=1, dtype=np.float32)
    return np.concatenate([np.zeros_like(sums[:, :1]), sums[:, :-1]], axis=1).reshape(-1, 3)


@pytest.fixture(params=["folder", "lists"])
def data(request, tmp_path):
    xs = steps()
    np.save(tmp_path / "xs.npy", xs)
    if request.param == "folder":
        folder = tmp_path / "sequences"
        folder.mkdir()
        for number, sequence in enumerate(xs):
            np.savez(folder / f"{number}.npz", x=sequence[:, None])
        return folder
    (tmp_path / "data.py").write_text(
        "import numpy as np\nfrom pathlib import Path\n"
        "def samples():\n    for sequence in np.load(Path(__file__).parent / 'xs.npy'):\n"
        "        yield [{'x': x} for x in sequence]\n"
    )
    return f"{tmp_path}/data.py:samples"


@pytest.mark.parametrize("batch_size", [1, 4])
def test_states_begin_at_zero_in_each_sequence_and_go_on_from_step_to_step(data, batch_size):
    source = api.as_source(data, running_sum(), states=["next=state"])
    assert source.count == 3 * STEPS
    found = np.concatenate([b.feeds["state"] for b in source.batches(batch_size)], axis=1)
    for row in found:
        np.testing.assert_allclose(row, states_of(steps()), rtol=1e-5, atol=1e-6)


def test_any_part_of_the_steps_has_the_same_states(data):
    source = api.as_source(data, running_sum(), states=["next=state"])
    whole = np.concatenate([b.feeds["state"] for b in source.batches(4)], axis=1)
    part = np.concatenate([b.feeds["state"] for b in source.batches(2, start=6, stop=9)], axis=1)
    np.testing.assert_array_equal(part, whole[:, 6:9])
    shards = [source.batches(4, first=i, step=2) for i in (0, 1)]
    found = {b.start: b.feeds["state"] for each in shards for b in each}
    joined = np.concatenate([found[start] for start in sorted(found)], axis=1)
    np.testing.assert_array_equal(joined, whole)


def test_the_first_step_may_have_a_state_of_its_own(tmp_path):
    np.savez(tmp_path / "0.npz", x=steps()[0][:, None], state=np.ones((STEPS, 2, 1, 3), np.float32))
    source = api.as_source(tmp_path, running_sum(), states=["next=state"])
    found = np.concatenate([b.feeds["state"] for b in source.batches(8)], axis=1)
    np.testing.assert_allclose(found[0], 1 + states_of(steps(1)), rtol=1e-5, atol=1e-5)


def test_an_empty_cache_has_length_0_and_grows():
    nodes = [
        helper.make_node("Concat", ["cache", "x"], ["next"], name="grow", axis=1),
        helper.make_node("ReduceSum", ["next", "axes"], ["y"], name="sum", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "cache", [info("x", "N", 1, 2), info("cache", "N", "past", 2)],
        [info("y", "N", 2), info("next", "N", "all", 2)],
        [numpy_helper.from_array(np.array([1]), "axes")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    model = Model(helper.make_model(graph, opset_imports=opset, ir_version=8))
    onnx.checker.check_model(model.proto)
    source = api.as_source({"x": np.ones((4, 1, 2), np.float32)}, model, states=["next=cache"])
    assert [b.feeds["cache"].shape for b in source.batches(8)] == [(1, n, 2) for n in range(4)]


def test_calibration_sees_the_states(data):
    source = api.as_source(data, running_sum(), states=["next=state"])
    found = api.calibrate(running_sum(), source)
    wanted = states_of(steps())
    assert found.samples == 3 * STEPS
    assert found.tensors["state"].high == pytest.approx(wanted.max(), rel=1e-5)
    assert found.tensors["state"].low == pytest.approx(wanted.min(), rel=1e-5)


def test_a_streaming_model_goes_through_all_stages(data):
    model = running_sum()
    source = api.as_source(data, model, states=["next=state"])
    quantized, result = api.quantize(api.equalize(model, data=source)[0], source)
    assert set(result.plan.weighted) == {"matmul"}
    assert api.validate(model, quantized, source).rows[1].values["sqnr"] > 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("next", "'next' is no state .*OUT=IN"),
        ("nxt=state", "no output 'nxt' .*'next'"),
        ("next=states", "no input 'states' .*'state'"),
    ],
)
def test_states_that_the_model_lacks(text, message):
    with pytest.raises(UsageError, match=message):
        parse_states([text], running_sum())


def test_two_outputs_cannot_feed_one_input_nor_states_all():
    with pytest.raises(UsageError, match="'state' is given twice"):
        parse_states(["next=state", "y=state"], running_sum())
    with pytest.raises(UsageError, match="none is left to feed"):
        parse_states(["next=state", "y=x"], running_sum())


def test_without_the_option_a_state_is_missing(data):
    with pytest.raises(DataError, match="no array for input 'state'"):
        api.as_source(data, running_sum())


def accumulator():
    """state' = state + W·x, y = state': what is wrong in one step stays wrong in all that follow."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="matmul"),
        helper.make_node("Add", ["state", "h"], ["next"], name="add"),
        helper.make_node("Identity", ["next"], ["y"], name="y"),
    ]
    weight = np.random.default_rng(2).standard_normal((3, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes, "sum", [info("x", "N", 3), info("state", "N", 3)],
        [info("y", "N", 3), info("next", "N", 3)], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def by_hand(model, sequences, own):
    """The outputs y of all steps, each on the states that `own` gave."""
    run_model, run_own = runner(model, "cpu"), runner(own, "cpu")
    found = []
    for sequence in sequences:
        state = np.zeros((1, 3), np.float32)
        for x in sequence:
            feeds = {"x": x[None], "state": state}
            found.append(run_model(feeds)[0])
            state = run_own(feeds)[1]
    return np.concatenate(found)


def sqnr(exact, other):
    return 10 * np.log10(np.square(exact).sum() / np.square(exact - other).sum())


def test_a_quantized_model_goes_on_from_its_own_states(tmp_path):
    # Of one sign, so that what is saturated and rounded in each step adds up.
    xs = np.abs(np.random.default_rng(0).standard_normal((3, 40, 3), np.float32))
    for number, sequence in enumerate(xs):
        np.savez(tmp_path / f"{number}.npz", x=sequence[:, None])
    model = accumulator()
    source = api.as_source(tmp_path, model, states=["next=state"])
    options = {"equalize": False, "rounding": "nearest", "bias_correction": False}
    quantized, _ = api.quantize(model, source, target="gpu", **options)
    result = api.validate(
        model, quantized, tmp_path, states=["next=state"], executions=["cpu"], outputs=["y"]
    )
    exact = by_hand(model, xs, model)
    deployed = sqnr(exact, by_hand(quantized, xs, quantized))
    step_by_step = sqnr(exact, by_hand(quantized, xs, model))
    assert result.rows[1].values["sqnr"] == pytest.approx(deployed, abs=0.1)
    assert deployed < step_by_step - 3
    assert result.note == "each model on its own states"


def test_any_part_of_the_steps_has_the_same_outputs(data):
    model = running_sum()
    stream = streamed(api.as_source(data, model, states=["next=state"]))
    run_all = runner(model, "cpu")

    def named(values):
        return dict(zip(["y", "next"], values, strict=True))

    def outputs(*ranges):
        found = stream.outputs_of(lambda feeds: named(run_all(feeds)), ranges)
        return np.concatenate([each["y"] for each in found])

    whole = outputs((0, 3 * STEPS))
    wanted = np.cumsum(steps(), axis=1).reshape(-1, 3)[:, :2]
    np.testing.assert_allclose(whole, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs((2, 4), (8, 13)), whole[[2, 3, 8, 9, 10, 11, 12]])
