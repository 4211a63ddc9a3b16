"""Fewer and better-known nodes: copies, limits under other names, activations behind moves."""

import numpy as np
import pytest
from onnx import helper
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.operators import clip_bounds
from onnxq.model.simplify import (
    drop_copies,
    fold_usual,
    merge_limits,
    move_activations,
    simplify,
    write_as_clips,
)

from support.builder import Builder
from support.random_graphs import random_feeds
from support.running import outputs


def types(model):
    return [node.op_type for node in model.proto.graph.node]


def normalized(b, *names):
    """The normalized model, whose outputs are the same in every bit."""
    proto = b.proto(*names)
    model, record = normalize(Model(proto))
    feeds = random_feeds(model, batch=2)
    before, after = (outputs(m, feeds, optimize=False) for m in (Model(proto), model))
    for a, c in zip(before, after, strict=True):
        assert np.array_equal(a, c)
    return model, record


def bounds(model, index):
    graph = Graph(model)
    return clip_bounds(graph, graph.nodes[index])


# --- copies ------------------------------------------------------------------------------------


def test_nodes_that_change_nothing_are_gone():
    b = Builder()
    x = b.op("Identity", b.op("Identity", b.op("Sigmoid", b.input(4))))
    x = b.op("Mul", x, b.const(np.float32([1])))
    x = b.op("Div", x, b.const(np.float32(1)))
    x = b.op("Add", b.const(np.float32(0)), x)
    x = b.op("Sub", x, b.const(np.float32(0)))
    model, record = normalized(b, b.op("Tanh", b.op("Dropout", x)))
    assert types(model) == ["Sigmoid", "Tanh"]
    assert record.copies == 7


def test_copies_that_are_outputs_or_add_an_axis_stay():
    b = Builder()
    x = b.op("Sigmoid", b.input(4))
    same = b.op("Identity", x)
    more = b.op("Mul", x, b.const(np.ones((1, 1, 1), np.float32)), shape=(4,))
    model, record = normalized(b, b.op("Tanh", x), same, b.op("Tanh", more))
    assert sorted(types(model)) == ["Identity", "Mul", "Sigmoid", "Tanh", "Tanh"]
    assert record.copies == 0


def test_an_identity_that_a_subgraph_reads_stays():
    b = Builder()
    same = b.op("Identity", b.op("Sigmoid", b.input(4)), name="same")
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["same"], [f"{op}_out"], name=op)], op, [],
            [helper.make_tensor_value_info(f"{op}_out", 1, None)],
        )
        for op in ("Neg", "Abs")
    ]  # fmt: skip
    least = b.op("ReduceMax", same, keepdims=0, shape=())
    condition = b.op("Greater", least, b.const(np.float32(0.5)), shape=())
    y = b.op("If", condition, then_branch=branches[0], else_branch=branches[1], shape=(4,))
    model, _ = normalized(b, y)
    assert "Identity" in types(model)


@pytest.mark.parametrize(
    ("first", "second", "gone"),
    [
        (("Squeeze", [2], None), ("Unsqueeze", [2], None), True),
        (("Squeeze", [2], None), ("Unsqueeze", [3], None), False),
        (("Transpose", None, [0, 2, 3, 1]), ("Transpose", None, [0, 3, 1, 2]), True),
        (("Transpose", None, [0, 2, 3, 1]), ("Transpose", None, [0, 2, 3, 1]), False),
    ],
)
def test_a_change_of_axes_that_is_undone(first, second, gone):
    b = Builder()
    x = b.op("Sigmoid", b.input(4, 1, 5))
    for op_type, axes, perm in (first, second):
        given = {"perm": perm} if perm else {}
        x = b.op(op_type, x, *([b.ints(*axes)] if axes else []), **given)
    model, _ = normalized(b, b.op("Tanh", x))
    assert types(model) == (
        ["Sigmoid", "Tanh"] if gone else ["Sigmoid", first[0], second[0], "Tanh"]
    )


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("op_type", "wanted"), [("Min", (-np.inf, 0.5)), ("Max", (0.5, np.inf))])
def test_min_and_max_with_a_number_are_clips(op_type, wanted, first):
    b = Builder()
    x, bound = b.input(4, 3), b.const(np.float32(0.5))
    y = b.op(op_type, *((bound, x) if first else (x, bound)), shape=(4, 3), name="limit")
    model, record = normalized(b, y)
    assert types(model) == ["Clip"]
    assert bounds(model, 0) == wanted
    assert record.clips == 1


@pytest.mark.parametrize("value", [np.ones(4), np.ones((1, 1, 1)), np.inf, np.int64(3)])
def test_other_limits_stay(value):
    b = Builder()
    x = b.input(4)
    if isinstance(value, np.int64):
        x = b.op("Cast", x, to=7)
    y = b.op("Min", x, b.const(value), shape=(4,))
    model, record = normalize(Model(b.proto(b.op("Cast", y, to=1))))
    assert "Min" in types(model)
    assert record.clips == 0


@pytest.mark.parametrize(
    ("chain", "wanted"),
    [
        (["relu", ("Min", 6)], (0, 6)),
        ([("Max", 0), ("Min", 6)], (0, 6)),
        ([("Min", 6), ("Max", 0)], (0, 6)),
        ([("Min", -1), ("Max", 0)], (0, 0)),
        ([("Max", 1), ("Min", -1)], (-1, -1)),
        ([("Min", 2), ("Max", -2), "relu"], None),
    ],
)
def test_limits_in_a_row_are_one(chain, wanted):
    b = Builder()
    x = b.input(6, 5)
    for each in chain:
        x = b.op("Relu", x) if each == "relu" else b.op(each[0], x, b.const(np.float32(each[1])))
    model, record = normalized(b, x)
    if wanted is None:
        assert types(model) == ["Clip", "Relu"]
        return
    assert types(model) == ["Clip"]
    assert bounds(model, 0) == wanted
    assert len(record.merged_limits) == 1


# --- activations -------------------------------------------------------------------------------


@pytest.mark.parametrize("move", ["Transpose", "Reshape", "Flatten", "DepthToSpace"])
def test_an_activation_moves_to_its_layer(move):
    b = Builder()
    conv = b.conv(b.input(2, 4, 4), 4, name="conv")
    rest = {"Transpose": {"perm": [0, 2, 3, 1]}, "DepthToSpace": {"blocksize": 2}}.get(move, {})
    target = [b.ints(0, 4, -1)] if move == "Reshape" else []
    y = b.op("Relu", b.op(move, conv, *target, **rest), name="relu")
    model, record = normalized(b, y)
    assert types(model) == ["Conv", "Relu", move]
    assert record.moved_activations == {"relu": "conv"}


@pytest.mark.parametrize("obstacle", ["second reader", "output", "no layer"])
def test_activations_that_stay(obstacle):
    b = Builder()
    x = b.input(4, 4, 4)
    flat = b.op("Flatten", b.op("Sigmoid", x) if obstacle == "no layer" else b.conv(x, 4))
    extra = {"second reader": lambda: [b.op("Sigmoid", flat)], "output": lambda: [flat]}
    model, record = normalized(b, b.op("Relu", flat), *extra.get(obstacle, list)())
    assert types(model).index("Flatten") < types(model).index("Relu")
    assert record.moved_activations == {}


# --- each step alone ---------------------------------------------------------------------------


def everything():
    """Something for each step to do: a copy, limits in a row, an activation behind a move."""
    b = Builder()
    x = b.conv(b.op("Identity", b.input(2, 4, 4)), 4, name="conv")
    x = b.op("Transpose", x, perm=[0, 2, 3, 1], shape=(4, 4, 4), name="move")
    x = b.op("Max", x, b.const(np.float32(0)), name="low")
    x = b.op("Min", x, b.const(np.float32(1.5)), name="high")
    return Model(b.proto(b.op("Sigmoid", x, name="end")))


def step(change, model=None):
    """The changed model and the record of it; the outputs are the same in every bit."""
    model = model or everything()
    changed, record = change(model)
    feeds = random_feeds(model, batch=2)
    before, after = (outputs(m, feeds, optimize=False) for m in (model, changed))
    assert all(np.array_equal(a, c) for a, c in zip(before, after, strict=True))
    return changed, record


def test_a_copy_is_dropped_and_nothing_else():
    model, copies = step(drop_copies)
    assert (copies, types(model)) == (1, ["Conv", "Transpose", "Max", "Min", "Sigmoid"])


def test_limits_become_clips_then_one_then_move():
    model, clips = step(write_as_clips)
    assert (clips, types(model).count("Clip")) == (2, 2)
    model, merged = step(merge_limits, model)
    assert merged == {"low": "high"}
    assert types(model) == ["Identity", "Conv", "Transpose", "Clip", "Sigmoid"]
    assert bounds(model, 3) == (0, 1.5)
    model, moved = step(move_activations, model)
    assert moved == {"high": "conv"}
    assert types(model) == ["Identity", "Conv", "Clip", "Transpose", "Sigmoid"]


def test_all_steps_together_say_what_each_did():
    model, record = step(simplify)
    assert types(model) == ["Conv", "Clip", "Transpose", "Sigmoid"]
    assert (record.copies, record.clips) == (1, 2)
    assert set(record.merged) | set(record.moved) == {"low", "high"}


def test_a_model_with_nothing_to_do_stays_as_it_is():
    b = Builder()
    model = Model(b.proto(b.op("Sigmoid", b.conv(b.input(2, 4, 4), 4))))
    for change in (drop_copies, write_as_clips, merge_limits, move_activations, fold_usual):
        assert change(model)[0] is model


def test_limits_that_cross_give_the_last_of_them():
    """Clip takes the upper bound where the lower one is above it; such pairs stay as they are."""
    b = Builder()
    x = b.op("Clip", b.input(4), b.const(np.float32(2)), b.const(np.float32(-2)), name="crossed")
    model = Model(b.proto(b.op("Clip", x, b.const(np.float32(0)), b.const(np.float32(6)))))
    assert merge_limits(model)[0] is model
    b = Builder()
    x = b.op("Clip", b.input(4), b.const(np.float32(3)), b.const(np.float32(4)), name="above")
    model = Model(b.proto(b.op("Clip", x, b.const(np.float32(0)), b.const(np.float32(1)))))
    merged, _ = step(merge_limits, model)
    assert bounds(merged, 0) == (1, 1)
