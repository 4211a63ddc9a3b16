"""Gates hold or fail by the rule of their metric; what was not measured fails."""

import math

import pytest
from onnxq.closeness.parts import OutputCloseness, Part
from onnxq.validation.compare import Row
from onnxq.validation.gates import check_gates
from onnxq.validation.metrics.builtin import CLOSENESS
from onnxq.validation.metrics.protocol import Task

TOP1 = Task("top1", "top1", list, unit="%")
CER = Task("CER", "cer", list, unit="%", higher_is_better=False)
SQNR, COSINE = CLOSENESS["sqnr"], CLOSENESS["cosine"]


def output(name="y", *, other_shape=0.0, is_float=True):
    part = Part(name, None, (), 1.0, 30.0, 1.0)
    return OutputCloseness(name, is_float, part, (), 0.0, 100.0, other_shape)


def row(value, metric=TOP1, *, model="m", outputs=(), decisive=""):
    where = {metric.name: decisive} if decisive else {}
    return Row(
        model, "cpu", 1, {metric.name: value}, {metric.name: metric.unit}, {}, where, outputs
    )


def gates(metric, *values, max_drop=None, min_accuracy=None, **more):
    first, *others = values
    rows = [row(first, metric, model="float"), *(row(each, metric, **more) for each in others)]
    return check_gates(rows, metric, max_drop=max_drop, min_accuracy=min_accuracy)


@pytest.mark.parametrize(
    ("metric", "reference", "value", "drop", "passed"),
    [
        (TOP1, 90, 89, 1, True),
        (TOP1, 90, 88.9, 1.1, False),
        (TOP1, 90, 95, -5, True),
        (CER, 10, 11, 1, True),
        (CER, 10, 12, 2, False),
        (SQNR, math.nan, 40, 1, True),
        (SQNR, math.nan, 20, 10, False),
        (SQNR, math.nan, math.inf, 0, True),
        (SQNR, math.nan, -math.inf, math.inf, False),
        (COSINE, math.nan, 0.995, 0.5, True),
        (COSINE, math.nan, 0.9, 10, False),
    ],
)
def test_how_far_a_model_may_fall(metric, reference, value, drop, passed):
    (gate,) = gates(metric, reference, value, max_drop=1)
    assert gate.value == pytest.approx(drop)
    assert (gate.name, gate.model, gate.limit, gate.passed) == ("max-drop", "m", 1, passed)
    assert gate.unit == "%"


@pytest.mark.parametrize(
    ("metric", "value", "passed"),
    [
        (TOP1, 50, True),
        (TOP1, 49.9, False),
        (CER, 50, True),
        (CER, 50.1, False),
        (SQNR, 60, True),
        (TOP1, math.nan, False),
        (SQNR, math.nan, False),
    ],
)
def test_the_worst_value_any_model_may_have(metric, value, passed):
    *_, gate = gates(metric, 77, value, min_accuracy=50)
    assert (gate.name, gate.passed, gate.unit) == ("min-accuracy", passed, metric.unit)


def test_the_float_model_has_to_reach_the_least_value_but_cannot_fall():
    found = gates(TOP1, 40, 60, max_drop=1, min_accuracy=50)
    assert [(g.name, g.model, g.passed) for g in found] == [
        ("min-accuracy", "float", False), ("max-drop", "m", True), ("min-accuracy", "m", True)
    ]  # fmt: skip


def test_a_float_model_without_a_value_of_its_own_is_not_judged():
    found = gates(SQNR, math.nan, 60, min_accuracy=50)
    assert [gate.model for gate in found] == ["m"]


def test_a_drop_that_is_not_known_fails():
    (gate,) = gates(TOP1, 90, math.nan, max_drop=100)
    assert not gate.passed


def test_outputs_of_another_shape_are_a_drop_too():
    outputs = (output("a", other_shape=5), output("b", other_shape=20), output("c", other_shape=90, is_float=False))  # fmt: skip
    (gate,) = gates(SQNR, math.nan, 40, max_drop=10, outputs=outputs, decisive="a")
    assert (gate.value, gate.decisive, gate.passed) == (20, "b, samples of another shape", False)
    (gate,) = gates(SQNR, math.nan, 0, max_drop=10, outputs=outputs, decisive="a")
    assert (gate.value, gate.decisive) == (100, "a")
    (gate,) = gates(SQNR, math.nan, math.nan, max_drop=10, outputs=outputs)
    assert (gate.value, gate.passed) == (20, False)


@pytest.mark.parametrize(("metric", "value"), [(SQNR, 20), (COSINE, 0.9)])
def test_outputs_of_another_shape_lower_the_value_too(metric, value):
    outputs = (output("a"), output("b", other_shape=10))
    for limit, passed in ((value * 0.99, True), (value * 1.01, False)):
        (gate,) = gates(metric, math.nan, value * 1.1, min_accuracy=limit, outputs=outputs)
        assert gate.value == pytest.approx(value)
        assert (gate.decisive, gate.passed) == ("b, samples of another shape", passed)
    (gate,) = gates(metric, math.nan, value / 2, min_accuracy=0, outputs=outputs, decisive="a")
    assert (gate.value, gate.decisive) == (value / 2, "a")


@pytest.mark.parametrize("metric", [SQNR, COSINE])
def test_where_nothing_was_compared_no_gate_holds(metric):
    outputs = (output("a", other_shape=100),)
    for bounds in ({"max_drop": 100}, {"max_drop": 1e9}, {"min_accuracy": -1e9}):
        for value in (math.nan, 1):
            (gate,) = gates(metric, math.nan, value, outputs=outputs, **bounds)
            assert not gate.passed, bounds


def test_without_bounds_there_are_no_gates():
    assert gates(TOP1, 90, 10) == ()
