"""Models timed side by side: real sessions, whose times must be what they are."""

import itertools
import time
from dataclasses import replace

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.commands.bench import Timing
from onnxq.errors import UsageError
from onnxq.model.model import Model
from onnxq.report.latency import note
from onnxq.validation.latency import (
    LEAST,
    MOST,
    Contender,
    Latency,
    Spread,
    measure,
    open_contender,
)
from onnxq.validation.profile import profile


def products(count: int, side: int = 192) -> Model:
    """So many products of matrices, one after the other."""
    weight = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32) / side**0.5
    names = ["x", *(f"h{number}" for number in range(count - 1)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [a, "w"], [b], f"product{number}")
            for number, (a, b) in enumerate(itertools.pairwise(names))
        ],
        f"products{count}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", side])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opsets, ir_version=8))


FEEDS = [{"x": np.ones((64, 192), np.float32)}]


def test_a_spread_is_the_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)


def test_ratios_are_those_of_the_work():
    contenders = [open_contender(products(count), FEEDS) for count in (2, 16)]
    first, second = measure(contenders, seconds=0.5)
    assert first.ratio == Spread(1.0, 1.0, 1.0)
    assert second.samples == 64
    assert LEAST <= second.rounds <= MOST
    # Eight times the products; CPU time is that of this process, whatever else the machine does.
    assert 4 < second.cpu_ratio.median < 14
    assert second.cpu.low <= second.cpu.median <= second.cpu.high
    assert second.wall.median >= 0.9 * second.cpu.median


class Sleeper(Contender):
    """Takes a millisecond and tells when."""

    def run(self, number: int) -> None:
        time.sleep(1e-3)
        self.session.append((self.threads, number))


def test_models_take_turns_in_another_order_each_round():
    told: list[tuple[int, int]] = []
    sleepers = [Sleeper(products(2), "cpu", each, (FEEDS[0],) * 2, told) for each in (1, 2)]
    rows = measure(sleepers, seconds=0, least=2)
    assert [row.rounds for row in rows] == [2, 2]
    assert all(1 <= row.wall.median < 20 for row in rows)
    assert all(row.cpu.median < row.wall.median for row in rows)
    order = [name for name, _ in told]
    turns = [name for at, name in enumerate(order) if at == 0 or order[at - 1] != name]
    # Warm first, then first and second, second and first; both runs of a turn on the same feeds.
    assert turns[-3:] == [1, 2, 1]
    assert {number for _, number in told} == {0, 1}


def test_a_busy_machine_is_said():
    one = Spread(1.0, 1.0, 1.0)
    row = Latency("m", 1, "cpu", 1, 1, 5, Spread(3.0, 2.0, 4.0), one, one, Spread(0.5, 0.4, 0.6))
    assert "by CPU time against the first 0.50 ×" in note(Timing((row,)))
    for other in (replace(row, threads=2), replace(row, provider="cuda"), replace(row, wall=one)):
        assert "CPU time" not in note(Timing((other,)))


def test_operators_are_those_that_run():
    (only,) = profile(products(3), FEEDS)
    assert (only.operator, only.nodes) == ("MatMul", 3)
    assert only.share == pytest.approx(100)
    assert only.milliseconds > 0


def test_models_with_other_inputs_get_samples_of_their_own():
    model = products(2)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    proto.graph.node[0].input[0] = "f"
    cast = helper.make_node("Cast", ["x"], ["f"], "cast", to=TensorProto.FLOAT)
    proto.graph.node.insert(0, cast)
    timing = onnxq.bench([model, Model(proto)], seconds=0, batch_size=3)
    assert [row.samples for row in timing.rows] == [3, 3]
    assert timing.note == "random samples"


def test_bench_needs_a_model():
    with pytest.raises(UsageError, match="no model"):
        onnxq.bench([])


def test_validate_times_the_models_on_the_data():
    model = products(2)
    data = {"x": np.ones((8, 192), np.float32)}
    found = onnxq.validate(model, [model, model], data, latency=True)
    assert len(found.latency.rows) == 3
    assert onnxq.validate(model, model, data).latency is None
