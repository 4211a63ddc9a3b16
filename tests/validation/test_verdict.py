"""Verdicts: the worst output decides, whatever stands first; sizes may depend on the data."""

import math

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.errors import ModelError, UsageError
from onnxq.model.model import Model

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def model(nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return Model(made)


def heads(*, scores=1.0, shift=0):
    """ids, states and scores; the scores scaled, the ids shifted."""
    weights = {
        "w": RNG2.copy(), "s": np.float32(scores), "d": np.array([shift], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Add", ["i", "d"], ["ids"]),
        helper.make_node("MatMul", ["x", "w"], ["states"]),
        helper.make_node("Sigmoid", ["states"], ["p"]),
        helper.make_node("Mul", ["p", "s"], ["scores"]),
    ]
    outputs = [("ids", TensorProto.INT64, ["N", 4]), ("states", FLOAT, ["N", 3]),
               ("scores", FLOAT, ["N", 3])]  # fmt: skip
    return model(nodes, [("x", FLOAT, ["N", 4])], outputs, weights)


RNG2 = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
X = RNG.standard_normal((20, 4)).astype(np.float32)


def verdict(float_model, other, x=X, **options):
    return onnxq.validate(float_model, other, x, executions=["cpu"], **options)


@pytest.mark.parametrize("metric", ["sqnr", "cosine"])
def test_a_zeroed_output_fails(metric):
    found = verdict(heads(), heads(scores=0), metrics=[metric], max_drop=10)
    (gate,) = found.gates
    assert not gate.passed
    assert (gate.value, gate.unit, gate.decisive) == (100, "%", "scores")
    assert found.rows[1].decisive[metric] == "scores"
    assert verdict(heads(), heads(), metrics=[metric], max_drop=0).passed
    # Unless it is not looked at.
    chosen = verdict(
        heads(), heads(scores=0), metrics=[metric], max_drop=10, outputs=["ids", "states"]
    )
    assert chosen.passed
    assert [each.name for each in chosen.rows[1].outputs] == ["ids", "states"]


def test_integers_never_decide_alone():
    found = verdict(heads(), heads(shift=1), max_drop=1)
    ids = found.rows[1].outputs[0]
    assert (ids.is_float, ids.equal) == (False, 0)
    assert found.passed
    with pytest.raises(UsageError, match="no float output among ids"):
        verdict(heads(), heads(shift=1), max_drop=1, outputs=["ids"])
    assert math.isnan(verdict(heads(), heads(shift=1), outputs=["ids"]).rows[1].values["sqnr"])


def test_an_output_that_is_not_there():
    with pytest.raises(UsageError, match="no output 'score'") as refused:
        verdict(heads(), heads(), outputs=["score"])
    assert "scores" in refused.value.hint
    with pytest.raises(UsageError, match="no output 'score'"):
        onnxq.quantize(heads(), X, outputs=["score"])


def chosen_rows(threshold):
    """Rows of x above a threshold: as many as there are."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sums"], keepdims=0),
        helper.make_node("Greater", ["sums", "t"], ["above"]),
        helper.make_node("Compress", ["x", "above"], ["rows"], axis=1),
    ]
    weights = {"t": np.float32(threshold), "axis": np.array([0, 2], np.int64)}
    return model(nodes, [("x", FLOAT, [1, 6, 4])], [("rows", FLOAT, [1, "M", 4])], weights)


def test_outputs_whose_size_depends_on_the_data():
    x = RNG.standard_normal((16, 6, 4)).astype(np.float32)
    found = verdict(chosen_rows(0.0), chosen_rows(0.1), x, max_drop=5)
    (rows,) = found.rows[1].outputs
    differing = sum((s.sum(axis=1) > 0).sum() != (s.sum(axis=1) > np.float32(0.1)).sum() for s in x)
    assert 0 < differing < 16
    assert rows.other_shape == pytest.approx(100 * differing / 16)
    assert rows.whole.sqnr == math.inf
    (gate,) = found.gates
    assert not gate.passed
    assert gate.value == rows.other_shape
    assert gate.decisive == "rows, samples of another shape"
    # Nothing to compare at all is no pass.
    (gate,) = verdict(chosen_rows(-100.0), chosen_rows(100.0), x, max_drop=50).gates
    assert (gate.passed, gate.value) == (False, 100)


def test_a_metric_may_take_outputs_of_any_size():
    class Rows:
        def __init__(self):
            self.count = 0

        def update(self, inputs, outputs, labels, reference):
            self.count += outputs["rows"].shape[1]

        def compute(self):
            return self.count

    x = RNG.standard_normal((16, 6, 4)).astype(np.float32)
    found = verdict(chosen_rows(0.0), chosen_rows(0.1), x, metrics=[Rows])
    assert found.rows[0].values["Rows"] == (x.sum(axis=2) > 0).sum()


def test_a_model_with_other_axes_is_no_version():
    nodes = [helper.make_node("Flatten", ["x"], ["rows"])]
    other = model(nodes, [("x", FLOAT, [1, 6, 4])], [("rows", FLOAT, [1, 24])], {})
    with pytest.raises(ModelError, match="'rows' has the shape 1×24 instead of 1×"):
        verdict(chosen_rows(0.0), other, RNG.standard_normal((4, 6, 4)).astype(np.float32))


def test_quantize_estimates_the_worst_output():
    """An output that cannot be int8 well, behind one that can."""
    x = RNG.standard_normal((128, 4)).astype(np.float32)
    x[:, 3] *= 300
    quantized, record = onnxq.quantize(heads(), x, equalize=False)
    assert [each.name for each in record.closeness] == ["ids", "states", "scores"]
    values = [each.whole.sqnr for each in record.closeness[1:]]
    assert record.quantized_sqnr == min(
        part.sqnr for each in record.closeness for part in each.parts
    )
    assert record.quantized_sqnr <= min(values)
    _, states = onnxq.quantize(heads(), x, equalize=False, outputs=["states"])
    assert [each.name for each in states.closeness] == ["states"]
    assert onnxq.validate(heads(), quantized, x, layers=True).layers[0].layers
