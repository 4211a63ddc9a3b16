"""`--layers` and `emulate --compare` on graphs of every kind: lengths, branches, float16."""

import sys

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.cli.machine import examine, judge
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.validation.layers import measure_layers
from onnxq.validation.suffix import stages_of, suffix_of
from onnxq.validation.workbench import open_bench

from support import masked

FLOAT = TensorProto.FLOAT


def values(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def info(name, *shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def unknown(name):
    """A float tensor of any rank."""
    return helper.make_tensor_value_info(name, FLOAT, None)


def built(nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes, "g", inputs, outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return Model(made)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), output.split(), name=f"n_{output}", **attributes)


def encoder():
    """Tokens N×T×8 of any number T, with a residual Add."""
    nodes = [
        node("MatMul", "x w", "a"), node("Relu", "a", "r"), node("Add", "r x", "s"),
        node("MatMul", "s v", "y"),
    ]  # fmt: skip
    weights = {"w": values(8, 8, seed=1, scale=0.3), "v": values(8, 4, seed=2, scale=0.3)}
    return built(nodes, [info("x", "N", "T", 8)], [info("y", "N", "T", 4)], weights)


LENGTHS = """
import numpy as np
def samples():
    for length in [5, 9, 5, 7, 9, 12, 5, 7] * 4:
        yield {"x": np.random.default_rng(length).standard_normal((length, 8)).astype(np.float32)}
"""


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_samples_of_several_lengths(target, tmp_path):
    (tmp_path / "lengths.py").write_text(LENGTHS)
    data = f"{tmp_path / 'lengths.py'}:samples"
    int8, _ = onnxq.quantize(encoder(), data, target=target)
    found = onnxq.validate(encoder(), int8, data, layers=True).layers[0]
    assert found.samples == 32
    assert {layer.op_type for layer in found.layers} >= {"MatMul"}
    assert found.together > 25
    assert found.sum_of_parts == pytest.approx(found.together, abs=3)
    assert not found.warning
    _, page = onnxq.report(encoder(), [int8], data=data)
    assert page.validation.layers
    _, bare = onnxq.report(encoder(), [int8], data=data, layers=False)
    assert not bare.validation.layers


def halves():
    """float16 throughout."""
    nodes = [
        node("Conv", "x w b", "a", pads=[1] * 4), node("Relu", "a", "r"),
        node("Conv", "r v", "y", pads=[1] * 4),
    ]  # fmt: skip
    weights = {
        "w": values(8, 3, 3, 3, seed=1, scale=0.3).astype(np.float16),
        "b": values(8, seed=2).astype(np.float16),
        "v": values(4, 8, 3, 3, seed=3, scale=0.3).astype(np.float16),
    }
    kind = TensorProto.FLOAT16
    return built(nodes, [info("x", "N", 3, 8, 8, kind=kind)],
                 [info("y", "N", 4, 8, 8, kind=kind)], weights)  # fmt: skip


def test_layers_of_a_float16_model():
    x = values(64, 3, 8, 8).astype(np.float16)
    int8, _ = onnxq.quantize(halves(), x)
    (found,) = onnxq.validate(halves(), int8, x, layers=True).layers
    assert [layer.op_type for layer in found.layers] == ["Conv", "Conv"]
    assert not found.unmatched
    assert found.together > 25


def branches():
    """An If whose bodies read a tensor and a weight of the main graph."""
    then = helper.make_graph(
        [helper.make_node("Conv", ["r", "v"], ["t1"], pads=[1] * 4),
         helper.make_node("Add", ["t1", "r"], ["t2"])], "then", [], [unknown("t2")],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["e1"])], "e", [], [unknown("e1")]
    )
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4), node("Relu", "a", "r"),
        node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m limit", "c"),
        node("If", "c", "z", then_branch=then, else_branch=other),
        node("Conv", "z v", "y", pads=[1] * 4),
    ]  # fmt: skip
    weights = {
        "w": values(4, 3, 3, 3, seed=1, scale=0.3), "v": values(4, 4, 3, 3, seed=2, scale=0.3),
        "limit": np.float32(3.0),
    }  # fmt: skip
    return built(nodes, [info("x", 1, 3, 8, 8)], [info("y", 1, 4, 8, 8)], weights)


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_branches_that_read_a_weight(target):
    x = values(32, 3, 8, 8)
    int8, _ = onnxq.quantize(branches(), x, target=target)
    (found,) = onnxq.validate(branches(), int8, x, layers=True).layers
    assert {layer.name for layer in found.layers} >= {"n_a", "n_y"}
    assert found.sum_of_parts == pytest.approx(found.together, abs=3)
    compared = api.compare_layers(int8, x)
    assert compared
    assert all(each.largest <= 1 for each in compared)


def test_nothing_quantized_compares_nothing():
    assert api.compare_layers(branches(), values(4, 3, 8, 8)) == ()


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_an_input_that_is_an_output(target):
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4), node("Relu", "a", "r"),
        node("Conv", "r v", "y", pads=[1] * 4),
    ]  # fmt: skip
    weights = {"w": values(8, 3, 3, 3, seed=1), "v": values(4, 8, 3, 3, seed=2)}
    shape = ("N", 3, 8, 8)
    model = built(nodes, [info("x", *shape)], [info("y", "N", 4, 8, 8), info("x", *shape)], weights)
    x = values(64, 3, 8, 8)
    int8, _ = onnxq.quantize(model, x, target=target)
    found = onnxq.validate(model, int8, x, layers=True)
    same, through = found.rows[1].outputs
    assert (through.name, through.equal, through.whole.sqnr) == ("x", 100, np.inf)
    assert same.whole.sqnr > 25
    assert len(found.layers[0].layers) == 2


def selected(*, threshold=0.5):
    """A layer behind a NonZero: how many rows it has depends on the data."""
    nodes = [
        node("MatMul", "x w", "a"), node("ReduceMax", "a", "m", axes=[1], keepdims=0),
        node("Greater", "m t", "above"), node("Compress", "a above", "rows", axis=0),
        node("MatMul", "rows v", "y"),
    ]  # fmt: skip
    weights = {"w": values(8, 8, seed=1), "v": values(8, 4, seed=2), "t": np.float32(threshold)}
    return built(nodes, [info("x", "N", 8)], [info("y", "M", 4)], weights)


def test_layers_whose_size_depends_on_the_data():
    x = values(96, 8)
    int8, _ = onnxq.quantize(selected(), x)
    found = onnxq.validate(selected(), int8, x, layers=True)
    assert found.rows[1].outputs[0].other_shape < 100
    assert {layer.name for layer in found.layers[0].layers} == {"n_a", "n_y"}
    assert np.isfinite(found.layers[0].together)


def test_what_lies_behind_a_tensor_computes_what_the_model_does():
    """With an error added in the whole graph, and in the part that follows."""
    model = branches()
    names = ["a", "r", "z"]
    for seed in range(4):
        x = values(1, 3, 8, 8, seed=seed)
        whole = open_session(onnx_with_outputs(model, [*names, "m", "c", "y"]))
        known = dict(zip([*names, "m", "c", "y"], run(whole, None, {"x": x}), strict=True))
        known["x"] = x
        for stage in stages_of(names, {}, model.size):
            behind = suffix_of(model, stage, ["y"]).open(known)
            for name in stage:
                error = values(*known[name].shape, seed=9, scale=0.1)
                got = behind(known, name, error)["y"]
                np.testing.assert_allclose(got, by_hand(known, name, error), atol=2e-5)


def onnx_with_outputs(model, names):
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return proto


def by_hand(known, name, error):
    """The rest of `branches`, run from a tensor with its error."""
    model = branches()
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    renamed = f"{name}_before"
    for each in proto.graph.node:
        each.output[:] = [renamed if output == name else output for output in each.output]
    place = 1 + next(i for i, each in enumerate(proto.graph.node) if renamed in each.output)
    proto.graph.initializer.append(numpy_helper.from_array(error, "error"))
    proto.graph.node.insert(place, helper.make_node("Add", [renamed, "error"], [name]))
    return run(open_session(proto), ["y"], {"x": known["x"]})[0]


def test_layers_follow_the_outputs_that_are_chosen():
    """Two heads: each is the whole of the other's nothing."""
    nodes = [node("MatMul", "x w", "left"), node("MatMul", "x v", "right")]
    weights = {"w": values(8, 8, seed=1), "v": values(8, 4, seed=2)}
    outputs = [info("left", "N", 8), info("right", "N", 4)]
    model = built(nodes, [info("x", "N", 8)], outputs, weights)
    x = values(64, 8)
    int8, _ = onnxq.quantize(model, x)
    source = api.as_source(x, model)
    both = measure_layers(model, int8, source)
    shares = {layer.name: layer.share for layer in both.layers}
    assert min(shares.values()) > 10
    alone = measure_layers(model, int8, source, outputs=["left"])
    assert {layer.name: layer.share for layer in alone.layers} == {"n_left": 100, "n_right": 0}
    bench = open_bench(model, int8, [{"x": x[:4]}])
    assert [part[0] for part in bench.parts.parts] == ["left", "right"]


def test_doctor_with_a_half_removed_onnxruntime(tmp_path, monkeypatch):
    """pip leaves a folder without an `__init__.py`, which Python imports as an empty package."""
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = {each.name: each for each in examine()}
    assert found["providers"].found == "none"
    assert "in part" in found["providers"].implies
    assert judge().text.startswith("ready for --target cpu: no: ONNX Runtime is there in part (pip")


def test_padding_counts_for_no_layer(tmp_path):
    """As a mask names it: the layers of padded samples are those of the same ones unpadded."""
    model, samples = masked.encoder(), masked.sentences(24)
    apart = masked.save_feeds(samples, tmp_path / "feeds")
    int8, _ = onnxq.quantize(model, apart, target="cpu")
    # Where it counts, it is the most of each tensor.
    filled = masked.padded(samples, value=3.0)
    reports = [onnxq.validate(model, int8, data, layers=True).layers[0] for data in (apart, filled)]
    wanted, found = ({layer.name: layer for layer in each.layers} for each in reports)
    assert wanted.keys() == found.keys()
    assert reports[1].together == pytest.approx(reports[0].together, abs=0.05)
    for name, layer in wanted.items():
        for key in ("alone", "own", "standing"):
            assert getattr(found[name], key) == pytest.approx(getattr(layer, key), abs=0.05)
    counted = onnxq.validate(model, int8, filled, layers=True, mask="none").layers[0]
    assert any(abs(layer.own - wanted[layer.name].own) > 1 for layer in counted.layers), (
        "padding would matter"
    )
