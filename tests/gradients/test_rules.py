"""Every rule that carries a gradient backwards, against finite differences."""

import re
import zlib

import numpy as np
import onnx
import pytest
from onnxq.gradients.graph import backward_model
from onnxq.gradients.rules import RULES
from onnxq.model.backward import BACKWARD, Backward
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import open_session, run

from support.operators import CASES, IMAGE, Case, Fixture, at, floats, ints, random

STEP = np.float32(2**-7)
"""Also what keeps two values of an input apart: none passes another where it changes by a step."""

MORE = {
    "Conv": [
        Case((2, 3, 9, 8), constants=at(_1=random(4, 3, 3, 2)), strides=[2, 3], pads=[1, 0, 0, 1]),
        Case((1, 4, 7), constants=at(_1=random(4, 1, 3)), group=4, strides=[2], dilations=[2], pads=[2, 2]),
        Case((1, 2, 6, 5), constants=at(_1=random(3, 2, 3, 3)), auto_pad="SAME_UPPER", strides=[2, 2]),
        Case((1, 2, 6, 5), constants=at(_1=random(3, 2, 2, 2)), auto_pad="SAME_LOWER"),
        Case((1, 2, 6, 5), constants=at(_1=random(3, 2, 2, 2)), auto_pad="VALID", strides=[3, 3]),
        Case((1, 2, 6, 5), constants=at(_1=random(3, 2, 1, 1)), pads=[1, 0, 0, 2]),
    ],
    "ConvTranspose": [
        Case((1, 3, 4, 3), constants=at(_1=random(3, 2, 3, 3)), strides=[3, 2], pads=[1, 0, 1, 1], output_padding=[1, 1]),
        Case((1, 3, 4), constants=at(_1=random(3, 2, 3)), dilations=[2], auto_pad="VALID"),
    ],
    "Gemm": [
        Case((3, 5), (5, 4), (4,), alpha=0.3, beta=1.7),
        Case((5, 3), (4, 5), transA=1, transB=1),
        Case((3, 5), (4, 5), (3, 1), transB=1),
        Case((5, 3), (5, 4), (), transA=1),
    ],
    "MatMul": [
        Case((2, 3, 5), (2, 5, 4)), Case((3, 5), (2, 5, 4)), Case((1, 3, 5), (2, 2, 5, 4)), Case((2, 3, 5), (5, 4)),
        Case((5,), (2, 5, 4)), Case((2, 3, 5), (5,)), Case((5,), (5,)),
    ],
    "Einsum": [
        Case((2, 3, 4), (2, 5, 4), equation="bij,bkj->bik"), Case((3, 4), (3,), equation="ij, i -> j"),
        Case((3, 4), equation="ij->ji"),
    ],
    "LogSoftmax": [Case(IMAGE, axis=1), Case((3, 4))],
    "Mish": [Case(IMAGE)],
    "Sin": [Case((3, 4))],
    "Cos": [Case((3, 4))],
    "Softsign": [Case((3, 4))],
    "Floor": [Case((3, 4))],
    "Ceil": [Case((3, 4))],
    "Round": [Case((3, 4))],
    "AveragePool": [
        Case((1, 2, 6, 4), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        Case((1, 2, 5, 4), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    ],
    "Reciprocal": [Case((3, 4))],
    "Add": [Case((4, 1), (2, 1, 3)), Case((), (3,))],
    "Pow": [Case((2, 3), constants=at(_1=floats(1.5, 2, 3))), Case((2, 3), constants=at(_1=ints(3)))],
    "Slice": [
        Case(IMAGE, constants=at(_1=ints(1, 0), _2=ints(3, 99), _3=ints(-1, 1))),
        Case((5, 3), constants=at(_1=ints(-3), _2=ints(-1))),
        Case((5, 3), constants=at(_1=ints(4), _2=ints(2))),
    ],
    "Gather": [Case((5, 3), constants=at(_1=ints(-2))), Case((3, 4), constants=at(_1=np.array(-1)), axis=-1)],
    "Concat": [Case((2, 3), axis=0), Case((2, 3), (2, 4), (2, 1), axis=-1)],
    "Pad": [Case((3, 4), constants=at(_1=ints(1, 2), _3=ints(-1)))],
    "Resize": [
        Case((1, 2, 3, 4), None, constants=at(_2=floats(1, 1, 3, 2)), mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        Case((1, 2, 3, 4), None, None, constants=at(_3=ints(1, 2, 6, 8)), mode="linear",
             coordinate_transformation_mode="align_corners"),
        Case((1, 2, 3, 4), None, constants=at(_2=floats(2, 3)), mode="nearest", axes=[-1, 2],
             keep_aspect_ratio_policy="stretch"),
        Case((1, 2, 3, 4), None, constants=at(_2=floats(2)), mode="linear", axes=[1]),
        Case((1, 2, 3, 4), None, constants=at(_2=floats(1, 1, 2, 2)), mode="linear",
             coordinate_transformation_mode="asymmetric"),
    ],
    "ReduceMean": [Case((2, 3), constants=at(_1=ints(0, 1)), keepdims=0)],
    "MaxPool": [Case((1, 2, 5, 5), kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)],
}  # fmt: skip

REFUSED = {
    "(1, 2, 5, 4),)  {'kernel": "beyond",
    "reflect": "repeats",
    "edge": "repeats",
    "tf_crop": "crops",
}
"""What a case holds → what is said of it."""

OF_POSITIVE = {"Sqrt", "Log", "Pow", "Div", "Reciprocal"}


GATHERED = np.array([[2, 0], [1, 1]])
MORE["GatherElements"] = [
    Case((2, 3), constants=at(_1=GATHERED), axis=1), Case((3, 2), constants=at(_1=GATHERED)),
]  # fmt: skip
MORE["TopK"] = MORE["NonMaxSuppression"] = [Case((2, 6), constants=at(_1=ints(2)))]
"""Of these whole graphs are tested."""

WITHOUT = {Backward.ZERO, Backward.SELECT}


def all_cases():
    found = [
        (op_type, case)
        for op_type in dict.fromkeys([*CASES, *MORE])
        if BACKWARD.get(op_type, Backward.ZERO) not in WITHOUT
        for case in [*CASES.get(op_type, ()), *MORE.get(op_type, ())]
    ]
    return [pytest.param(*each, id=f"{each[0]} {each[1]}"[:70]) for each in found]


def values(name, shape, op_type, rng):
    """As far from each other, from 0 and from round numbers as steps need, in any order."""
    count = int(np.prod(shape))
    shift = np.float32(0.0003 + 0.31 / 97 * int(name[1:]))
    spread = (np.arange(count) - count // 2) * max(4 / count, 3 * STEP) + shift + 1.7 * STEP
    spread = np.abs(spread) + 0.5 if op_type in OF_POSITIVE else spread
    return rng.permutation(spread).reshape(shape).astype(np.float32)


def differences(session, feeds, name, seeds):
    """Slopes (2, …) of Σ output · seed, above and below each value of an input."""

    def total(values):
        outputs = run(session, None, {**feeds, name: values})
        parts = zip(outputs, seeds, strict=True)
        return sum(float((y.astype(np.float64) * seed).sum()) for y, seed in parts)

    middle, slopes = total(feeds[name]), np.zeros((2, *feeds[name].shape))
    for side, place in ((s, p) for s in (0, 1) for p in np.ndindex(feeds[name].shape)):
        moved = feeds[name].copy()
        moved[place] += (1 - 2 * side) * STEP
        step = float(moved[place]) - float(feeds[name][place])
        slopes[(side, *place)] = (total(moved) - middle) / step
    return slopes


@pytest.mark.parametrize(("op_type", "case"), all_cases())
@pytest.mark.parametrize("open_sizes", [False, True], ids=["", "open"])
def test_gradients_are_those_of_finite_differences(op_type, case, open_sizes):
    fixture = Fixture(op_type, case)
    rng = np.random.default_rng(zlib.crc32(f"{op_type} {case}".encode()))
    feeds = {s.name: values(s.name, s.shape, op_type, rng) for s in fixture.model.inputs}
    graph = with_open_sizes(fixture.model) if open_sizes else fixture.graph
    made = backward_model(graph, list(feeds), graph.outputs)
    for mark, reason in REFUSED.items():
        if mark in str(case):
            assert reason in str(made.refused["x0"])
            return
    if open_sizes and made.refused:
        assert re.search(
            "known at run time only|are unknown|may reach beyond", str(made.refused["x0"])
        )
        return
    assert not made.refused
    session = open_session(fixture.model, optimize=False)
    outputs = run(session, None, feeds)
    seeds = [rng.choice(np.array([-1, 1], np.float32), y.shape) for y in outputs]
    fed = {made.seeds[name]: seed for name, seed in zip(graph.outputs, seeds, strict=True)}
    names = [made.gradients[name] for name in feeds]
    found = run(open_session(made.model), names, {**feeds, **fed})
    for name, gradient in zip(feeds, found, strict=True):
        slopes = differences(session, feeds, name, seeds)
        assert gradient.shape == slopes.shape[1:]
        # At a corner it is any of the slopes between.
        off = np.abs(gradient - slopes.mean(axis=0)) - np.abs(slopes[0] - slopes[1]) / 2
        assert off.max() <= 2e-3 * max(np.abs(slopes).max(), 0.1)


def with_open_sizes(model):
    """The same model, of which only the numbers of axes are known."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in info.type.tensor_type.shape.dim:
            axis.Clear()
    return Graph(Model(proto))


@pytest.mark.parametrize("op_type", BACKWARD)
def test_every_operator_has_a_case(op_type):
    assert [*CASES.get(op_type, ()), *MORE.get(op_type, ())]


def test_every_rule_is_written_and_used():
    assert set(RULES) == set(BACKWARD.values()) - {Backward.ZERO}
    assert set(Backward) - {Backward.NONE} == set(BACKWARD.values())
