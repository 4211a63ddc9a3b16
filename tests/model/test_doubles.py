"""float64 models become float32 inside; what that changes is measured against the file as given."""

import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.errors import DataError, ModelError
from onnxq.model.doubles import narrow_doubles
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, run

from support.cli_case import run as command

DOUBLE, FLOAT = TensorProto.DOUBLE, TensorProto.FLOAT
RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 16))
node = helper.make_node


def info(name, *shape, kind=DOUBLE):
    return helper.make_tensor_value_info(name, kind, shape)


def weights(*shape):
    return RNG.standard_normal(shape) / math.sqrt(shape[0])


def model_of(nodes, constants, outputs, inputs=None):
    values = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs or [info("x", "N", 16)], outputs, values)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return Model(onnx.shape_inference.infer_shapes(proto))


def with_tail(*tail, **constants):
    """A layer, and what is behind it: from "s" to "y"."""
    return model_of(
        [node("MatMul", ["x", "w"], ["s"], name="layer"), *tail],
        {"w": weights(16, 16), **constants}, [info("y", "N", 16)],
    )  # fmt: skip


def with_bodies():
    """float64 in bodies, attributes and Casts; the input is an output too."""
    then = helper.make_graph(
        [node("Constant", [], ["c"], value=numpy_helper.from_array(np.float64(0.5))),
         node("Add", ["g", "c"], ["t"])],
        "then", [], [info("t", "N", 16)],
    )  # fmt: skip
    other = helper.make_graph([node("Neg", ["g"], ["e"])], "else", [], [info("e", "N", 16)])
    fill = numpy_helper.from_array(np.array([0.25]))
    return model_of(
        [
            node("MatMul", ["x", "w"], ["g"], name="layer"),
            node("ReduceMax", ["x"], ["most"], keepdims=0),
            node("Greater", ["most", "limit"], ["yes"]),
            node("If", ["yes"], ["i"], then_branch=then, else_branch=other),
            node("Shape", ["g"], ["shape"]),
            node("ConstantOfShape", ["shape"], ["filled"], value=fill),
            node("Add", ["i", "filled"], ["a"]),
            node("Cast", ["a"], ["single"], to=FLOAT),
            node("Cast", ["single"], ["double"], to=DOUBLE),
            node("Gemm", ["double", "v"], ["y"], name="last"),
        ],
        {"w": weights(16, 16), "v": weights(16, 4), "limit": np.float64(2)},
        [info("y", "N", 4), info("x", "N", 16)],
    )


def test_all_of_it_is_float32_but_inputs_and_outputs():
    model = with_bodies()
    narrowed, record = narrow_doubles(model)
    assert record is not None
    assert record.tensors >= 10
    assert [i.dtype for i in (*narrowed.inputs, *narrowed.outputs)] == [np.float64] * 3
    before, after = (run(open_session(m), None, {"x": X}) for m in (model, narrowed))
    assert [value.dtype for value in after] == [np.float64] * 2
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)
    assert np.array_equal(after[1], X)
    inner = [attribute.g for n in narrowed.proto.graph.node for attribute in n.attribute]
    assert not any(tensor.data_type == DOUBLE for body in inner for tensor in body.initializer)
    assert Graph(normalize(model)[0]).is_float("g")


def test_the_difference_is_that_of_the_two_models():
    model = with_tail(node("Tanh", ["s"], ["y"]))
    _, result = api.quantize(model, X[:16])
    record = result.normalization.narrowed
    assert (record.samples, record.random) == (16, False)
    narrowed, _ = normalize(model)
    exact, found = (run(open_session(m), None, {"x": X[:16]})[0] for m in (model, narrowed))
    expected = np.sqrt(np.square(found - exact).mean() / np.square(exact).mean())
    assert record.difference == pytest.approx(expected, rel=0.05)
    assert 0 < record.difference < 1e-6


def test_a_quantized_model_is_close_to_the_file_as_given():
    model = with_bodies()
    quantized, result = api.quantize(model, X)
    found = api.validate(model, quantized, X, layers=True)
    assert found.rows[1].values["sqnr"] > 30
    assert found.rows[1].values["sqnr"] == pytest.approx(result.quantized_sqnr, abs=5)
    assert found.layers[0].layers
    outputs = api.emulate(quantized, X).outputs
    assert outputs["y"].dtype == np.float64
    equalized, _ = api.equalize(model, data=X)
    assert api.validate(model, equalized, X).rows[1].values["sqnr"] > 120


def test_what_float32_cannot_say_is_refused_with_the_figure():
    model = with_tail(
        node("Add", ["s", "large"], ["a"]),
        node("Sub", ["a", "large"], ["y"]),
        large=np.float64(1e6),
    )
    # At 1e6 float32 numbers are 1/16 apart: an error of 1/16/√12 in outputs of size 1.
    for attempt in (api.quantize, api.calibrate):
        with pytest.raises(ModelError, match=r"differ by 1\.[5-9]e-02 of their rms on 16 samples"):
            attempt(model, X)
    with pytest.raises(ModelError, match="4 random samples; the limit is 1e-06"):
        api.equalize(model)


def test_float64_behind_the_layers_stays():
    model = model_of(
        [node("MatMul", ["x", "w"], ["s"], name="layer"), node("Cast", ["s"], ["d"], to=DOUBLE),
         node("Exp", ["d"], ["y"])],
        {"w": weights(16, 16).astype(np.float32)}, [info("y", "N", 16)],
        [info("x", "N", 16, kind=FLOAT)],
    )  # fmt: skip
    assert narrow_doubles(model) == (model, None)
    quantized, result = api.quantize(model, X)
    assert result.normalization.narrowed is None
    assert Graph(quantized).elem_type("d") == DOUBLE


def test_nothing_becomes_infinite_unsaid():
    mask = np.where(np.arange(16) > 12, np.finfo(np.float64).min, 0.0)
    model = with_tail(node("Add", ["s", "mask"], ["a"]), node("Softmax", ["a"], ["y"]), mask=mask)
    narrowed, _ = narrow_doubles(model)
    constants = Graph(narrowed)
    assert constants.value("mask").min() == np.finfo(np.float32).min
    quantized, _ = api.quantize(model, X)
    assert np.isfinite(run(open_session(quantized), None, {"x": X})[0]).all()
    beyond = X.copy()
    beyond[3, 3] = 1e300
    with pytest.raises(DataError, match=r"Inf in activation 'x.float32' for sample"):
        api.quantize(model, beyond)


def test_a_file_that_does_not_run_as_given_is_refused():
    model = model_of(
        [node("Conv", ["x", "w"], ["y"], name="layer")], {"w": weights(4, 3, 3, 3)},
        [info("y", "N", 4, 6, 6)], [info("x", "N", 3, 8, 8)],
    )  # fmt: skip
    with pytest.raises(ModelError, match="what float32 loses cannot be measured") as caught:
        api.quantize(model, RNG.standard_normal((8, 3, 8, 8)))
    assert "export it in float32" in caught.value.hint


def test_commands_say_it(tmp_path):
    model, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    onnx.save(with_bodies().proto, model)
    np.savez(tmp_path / "x.npz", x=X)
    done = command("quantize", model, "--data", tmp_path / "x.npz", "-o", out)
    assert done.code == 0, done.err
    assert "float64 tensors narrowed to float32: outputs differ from the file's by" in done.out
    told = command("equalize", model, "-o", tmp_path / "e.onnx", "--json").json
    record = json.loads(json.dumps(told["normalization"]["narrowed"]))
    assert record["random"] is True
    assert 0 < record["difference"] < 1e-6
    assert command("inspect", out).code == 0
    assert command("explain", model, "layer").code == 0
    page = command("report", model, out, "--data", tmp_path / "x.npz", "-o", tmp_path / "r.html")
    assert page.code == 0, page.err
