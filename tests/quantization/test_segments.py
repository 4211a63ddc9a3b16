"""A graph run piece by piece computes what it does at once, and sees what was changed meanwhile."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.budget import WHOLE, Batching
from onnxq.data.shelf import Shelf
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import open_session, run, with_outputs
from onnxq.quantization.segments import SegmentRunner

from support.builder import Builder
from support.sequences import of_sequences

RNG = np.random.default_rng(0)


def network():
    b = Builder(1)
    x = b.op("Relu", b.conv(b.input(3, 6, 6), 8, 3, name="c1"), name="r1")
    y = b.op("Add", b.conv(x, 8, 3, name="c2"), x, name="add")
    return b.model(b.head(y), b.op("Sigmoid", y, name="side"))


MODEL = network()
BATCHES = [{"x": RNG.standard_normal((n, 3, 6, 6)).astype(np.float32)} for n in (5, 8, 1)]
AXES = dict.fromkeys((*Graph(MODEL).inputs, *(node.output for node in Graph(MODEL).nodes)), 0)


def whole(model, names, batches=BATCHES):
    session = open_session(with_outputs(model, names), optimize=False)
    return [dict(zip(names, run(session, names, batch), strict=True)) for batch in batches]


@pytest.mark.parametrize("room", [0, 1 << 30])
@pytest.mark.parametrize("batching", [WHOLE, Batching(size=3, axes=AXES)])
def test_every_tensor_is_what_the_model_computes(batching, room):
    names = [node.output for node in Graph(MODEL).nodes]
    wanted = whole(MODEL, names)
    runner = SegmentRunner(MODEL, BATCHES, batching, Shelf(room))
    for name in names:
        found = runner.compute(name)
        assert len(found) == len(BATCHES)
        for got, each in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, each[name], rtol=1e-5, atol=1e-6)


def test_tensors_may_be_skipped():
    (last,) = (node.output for node in Graph(MODEL).nodes if node.op_type == "Gemm")
    runner = SegmentRunner(MODEL, BATCHES, WHOLE, Shelf(1 << 30))
    for got, wanted in zip(runner.compute(last), whole(MODEL, [last]), strict=True):
        np.testing.assert_allclose(got, wanted[last], rtol=1e-5)
    assert [value.shape for value in runner.compute("side")] == [(n, 8, 6, 6) for n in (5, 8, 1)]


def test_what_runs_later_sees_the_step():
    runner = SegmentRunner(MODEL, BATCHES, WHOLE, Shelf(1 << 30))
    first = [value.copy() for value in runner.compute("r1")]
    step = RNG.standard_normal((1, 8, 1, 1)).astype(np.float32)
    runner.add("r1", step)
    graph = Graph(MODEL)
    weight, bias = (graph.constant(name) for name in graph.by_name["c2"].inputs[1:])
    for got, before in zip(runner.compute("add"), first, strict=True):
        x = np.pad(before + step, ((0, 0), (0, 0), (1, 1), (1, 1)))
        views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
        conv = np.einsum("nchwij,ocij->nohw", views, weight, optimize=True) + bias[:, None, None]
        np.testing.assert_allclose(got, conv + before + step, rtol=1e-3, atol=1e-3)


def test_a_step_on_what_nobody_reads_any_more_changes_nothing():
    runner = SegmentRunner(MODEL, BATCHES, WHOLE, Shelf(1 << 30))
    runner.compute("side")
    runner.add("c1", np.float32(1))
    assert [value.shape[0] for value in runner.compute(Graph(MODEL).outputs[0])] == [5, 8, 1]


@pytest.mark.parametrize("batching", [WHOLE, Batching(size=3, axes=AXES)])
def test_what_runs_later_sees_another_constant(batching):
    runner = SegmentRunner(MODEL, BATCHES, batching, Shelf(1 << 30))
    name = Graph(MODEL).by_name["c2"].input(1)
    runner.set_constant(name, np.zeros((8, 8, 3, 3), np.float32))
    bias = Graph(MODEL).constant(Graph(MODEL).by_name["c2"].input(2))
    r1 = whole(MODEL, ["r1"])
    for got, each in zip(runner.compute("add"), r1, strict=True):
        np.testing.assert_allclose(got, each["r1"] + bias[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_samples_may_lie_along_another_axis(size):
    node = helper.make_node
    weight = RNG.standard_normal((4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            node("Relu", ["x"], ["relu"], name="relu"),
            node("MatMul", ["relu", "w"], ["product"], name="product"),
            node("Add", ["product", "relu"], ["y"], name="y"),
        ],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, "N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, "N", 4])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    model = infer_shapes(Model(helper.make_model(graph, opset_imports=opsets, ir_version=8)))
    axes = dict.fromkeys(("x", "relu", "product", "y"), 1)
    batches = [
        Feeds({"x": RNG.standard_normal((3, count, 4)).astype(np.float32)}, BatchAxes({"x": 1}))
        for count in (5, 2)
    ]
    runner = SegmentRunner(model, batches, Batching(size=size, axes=axes), Shelf(1 << 30))
    for name in ("relu", "y"):
        for got, batch in zip(runner.compute(name), batches, strict=True):
            relu = np.maximum(batch["x"], 0)
            wanted = relu if name == "relu" else relu @ weight + relu
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_what_a_body_reads_is_kept_for_it():
    body = [
        helper.make_graph(
            [helper.make_node("Mul", ["inner", factor], [f"out{factor}"])], factor, [],
            [helper.make_tensor_value_info(f"out{factor}", TensorProto.FLOAT, None)],
        )
        for factor in ("two", "three")
    ]  # fmt: skip
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Neg", ["x"], ["inner"], name="inner"),
            node("Abs", ["inner"], ["other"], name="other"),
            node("If", ["yes"], ["y"], name="if", then_branch=body[0], else_branch=body[1]),
        ],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("y", "other")],
        [
            numpy_helper.from_array(np.array(value), name)
            for name, value in (("yes", True), ("two", np.float32(2)), ("three", np.float32(3)))
        ],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    model = infer_shapes(Model(helper.make_model(graph, opset_imports=opsets, ir_version=8)))
    runner = SegmentRunner(model, [{"x": np.float32([[1, 2]])}], WHOLE, Shelf(1 << 30))
    assert runner.compute("other")[0].tolist() == [[1, 2]]
    assert runner.compute("y")[0].tolist() == [[-2, -4]]


@pytest.mark.parametrize("batching", [WHOLE, Batching(size=3)])
def test_what_is_no_tensor_is_computed_with_each_that_reads_it(batching):
    model = of_sequences()
    names = ["half0", "half1", "sum0", "sum1", "sum2", "y"]
    wanted = whole(model, names)
    runner = SegmentRunner(model, BATCHES, batching, Shelf(0))
    for name in names:
        for got, each in zip(runner.compute(name), wanted, strict=True):
            np.testing.assert_allclose(got, each[name], rtol=1e-5, atol=1e-5)
