"""Metrics: built in, from files and from Python, with options, over all outputs."""

import math
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.errors import UsageError
from onnxq.model.model import Model
from onnxq.validation.metrics import load as loading
from onnxq.validation.metrics.builtin import METRICS
from onnxq.validation.metrics.load import metric_named

X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)


def two_outputs():
    """ids int64, logits: an integer output first."""
    weight = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 4]),
         helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])], [weight],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return Model(made)


class Seen:
    """Adds up what it is shown."""

    unit = "%"
    higher_is_better = False

    def __init__(self):
        self.batches, self.names, self.agree, self.labels = 0, set(), True, []

    def update(self, inputs, outputs, labels, reference):
        self.batches += 1
        self.names |= {*inputs, *outputs, *reference}
        self.agree &= all(np.array_equal(outputs[n], reference[n]) for n in reference)
        self.labels += [] if labels is None else list(labels)

    def compute(self):
        return {"batches": self.batches, "agree": float(self.agree), "labels": len(self.labels)}


def test_a_class_sees_inputs_and_all_outputs_by_name():
    model = two_outputs()
    found = onnxq.validate(model, model, {"x": X}, metrics=[Seen, "sqnr"], executions=["cpu"])
    for row in found.rows:
        assert row.values["Seen"] == 3
        assert row.details["Seen"] == {"batches": 3, "agree": 1, "labels": 0}
        assert row.units["Seen"] == "%"
    assert found.rows[1].decisive["sqnr"] == "logits"
    labelled = {"x": X, "labels": np.arange(20) % 3}
    found = onnxq.validate(model, [], labelled, metrics=[Seen])
    assert found.rows[0].details["Seen"]["labels"] == 20


def test_a_file_holds_functions_and_classes(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def largest(outputs, labels):\n    assert labels is None\n    return outputs.max(axis=1)\n"
        "class Mean:\n"
        "    def __init__(self): self.sum, self.count = 0, 0\n"
        "    def update(self, inputs, outputs, labels, reference):\n"
        "        self.sum += outputs['logits'].sum(); self.count += outputs['logits'].size\n"
        "    def compute(self): return self.sum / self.count\n"
    )
    file = tmp_path / "mine.py"
    metrics = [f"{file}:largest", f"{file}:Mean"]
    row = onnxq.validate(two_outputs(), [], {"x": X}, metrics=metrics, outputs=["logits"]).rows[0]
    assert row.values["largest"] == pytest.approx(X[:, :3].max(axis=1).mean(), rel=1e-6)
    assert row.values["Mean"] == pytest.approx(X[:, :3].mean(), rel=1e-5)


def test_top1_looks_at_the_first_float_output():
    labels = X[:, :3].argmax(axis=1)
    row = onnxq.validate(two_outputs(), [], {"x": X, "labels": labels}, metrics=["top1"]).rows[0]
    assert row.values["top1"] == 100


class Order(Enum):
    FIRST = "first"
    LAST = "last"


@dataclass
class Optioned:
    score: float = 0.5
    count: int = 3
    strict: bool = False
    order: Order = Order.FIRST
    total: float = field(default=0.0, init=False)

    def update(self, inputs, outputs, labels, reference):
        pass

    def compute(self):
        return self.score


def test_options_are_the_fields_of_the_factory(monkeypatch):
    monkeypatch.setattr(loading, "METRICS", {**METRICS, "optioned": Optioned})
    made = metric_named("optioned:score=0.25, strict=true,order=last").create()
    assert (made.score, made.count, made.strict, made.order) == (0.25, 3, True, Order.LAST)
    for text, hint in (
        ("optioned:scores=1", "score"),
        ("optioned:total=1", "score, count, strict, order"),
        ("optioned:count=1.5", "a whole number"),
        ("optioned:order=middle", "first, last"),
        ("top1:k=3", "none"),
    ):
        with pytest.raises(UsageError) as refused:
            metric_named(text)
        assert hint in refused.value.hint


def test_what_is_no_metric():
    class Half:
        def update(self, inputs, outputs, labels, reference):
            pass

    with pytest.raises(UsageError, match=r"without compute\(\)"):
        metric_named(Half)
    with pytest.raises(UsageError, match="unknown metric"):
        metric_named("top3")
    with pytest.raises(UsageError, match=r"'sqr'.*") as refused:
        metric_named("sqr")
    assert "sqnr" in refused.value.hint


def test_lower_may_be_better():
    metric = metric_named(Seen)
    assert metric.drop(1.0, 3.0) == 2.0
    assert metric.reaches(1.0, 2.0)
    assert not metric.reaches(3.0, 2.0)


class Fixed:
    def __init__(self, value=1.0):
        self.value = value

    def update(self, *seen):
        pass

    def compute(self):
        return self.value


def test_metrics_of_one_name_keep_their_own_values(tmp_path):
    text = "class M:\n    def update(*seen): pass\n    def compute(self): return {}\n"
    for number, name in enumerate(("one.py", "two.py")):
        (tmp_path / name).write_text(text.format(number))
    given = [f"{tmp_path}/{name}:M" for name in ("one.py", "two.py")]
    found = onnxq.validate(two_outputs(), [], X, metrics=[*given, given[0]])
    assert found.rows[0].values == {given[0]: 0.0, given[1]: 1.0}

    one, other = (partial(Fixed, value) for value in (1.0, 2.0))
    both = [lambda y, _: y[:, 0] * 0 + 3, lambda y, _: y[:, 0] * 0 + 4]
    found = onnxq.validate(two_outputs(), [], X, metrics=[one, other, *both])
    assert list(found.rows[0].values.values()) == [1, 2, 3, 4]


def test_a_metric_of_the_users_does_not_take_the_name_of_one_built_in():
    mine = type("sqnr", (Fixed,), {})
    model = two_outputs()
    found = onnxq.validate(model, model, X, metrics=[mine, "sqnr"], min_accuracy=1.5)
    assert list(found.rows[1].values.values()) == [1.0, math.inf]
    assert not found.passed


def test_a_float_model_whose_metric_is_no_number_holds_no_gate():
    found = onnxq.validate(
        two_outputs(), [], X, metrics=[lambda y, _: y[:, 0] * math.nan], min_accuracy=0
    )
    assert [gate.passed for gate in found.gates] == [False]


@pytest.mark.parametrize("metric", ["cosine", "cosine:output=logits"])
def test_a_cosine_drops_in_percent_with_options_and_without(metric):
    model, broken = two_outputs(), onnx.ModelProto()
    broken.CopyFrom(model.message)
    broken.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 3), np.nan, "f"), "w"))
    found = onnxq.validate(model, broken, X, metrics=[metric], max_drop=1)
    (gate,) = found.gates
    assert (gate.value, gate.unit, gate.passed) == (100, "%", False)
