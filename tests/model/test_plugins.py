"""Models that end in plugins of TensorRT: everything before them is quantized, they come back."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.errors import ModelError
from onnxq.model import external
from onnxq.model.files import load, save
from onnxq.model.normalize import normalize
from onnxq.model.plugins import KEY

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def detector(domain=""):
    """Two layers, a plugin that reads two tensors and a constant, and a Relu behind it."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second", pads=[1] * 4),
        helper.make_node("Sigmoid", ["c"], ["scores"], name="scores"),
        helper.make_node("EfficientNMS_TRT", ["c", "scores", "w2"], ["count", "found"],
                         name="plugin", domain=domain, score_threshold=0.25),
        helper.make_node("Relu", ["found"], ["boxes"], name="behind"),
    ]  # fmt: skip
    kinds = {"count": TensorProto.INT32, "boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT}
    shapes = {"count": ["N", 1], "boxes": ["N", 9, 4], "scores": ["N", 4, 6, 6]}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info(n, kinds[n], shapes[n]) for n in shapes],
        [numpy_helper.from_array(random(8, 3, 3, 3), "w1"),
         numpy_helper.from_array(random(4, 8, 3, 3), "w2")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.onnx"


def interface(proto):
    return [(o.name, o.type) for o in proto.graph.output]


@pytest.mark.parametrize("domain", ["", "TRT", "trt.plugins"])
def test_loaded_the_model_ends_before_them(path, domain):
    onnx.save(detector(domain), path)
    model = load(path)
    assert [n.op_type for n in model.proto.graph.node] == ["Conv", "Relu", "Conv", "Sigmoid"]
    # An output that comes before them stays one; so does what they read.
    assert [spec.name for spec in model.outputs] == ["scores", "c"]
    assert normalize(model)[1].plugins == ("EfficientNMS_TRT",)


@pytest.mark.parametrize("domain", ["", "TRT"])
@pytest.mark.parametrize("large", [True, False])
def test_saved_it_has_them_again(path, domain, large, monkeypatch):
    if large:
        monkeypatch.setattr(external, "INLINE_LIMIT", 1000)
    before = detector(domain)
    onnx.save(before, path)
    target = path.with_name("q.onnx")
    save(load(path), target)
    after = onnx.load(target)
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]
    assert interface(after) == interface(before)
    assert [o.domain for o in after.opset_import] == [o.domain for o in before.opset_import]
    assert KEY not in {entry.key for entry in after.metadata_props}
    stored = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    plugin = next(n for n in after.graph.node if n.name == "plugin")
    wanted = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    assert np.array_equal(stored[plugin.input[2]], wanted["w2"])
    assert load(target).fingerprint == load(target).fingerprint


def test_what_comes_before_them_is_quantized(path):
    onnx.save(detector(), path)
    quantized, result = api.quantize(path, {"x": random(64, 3, 6, 6)})
    target = path.with_name("q.onnx")
    save(quantized, target)
    types = [n.op_type for n in onnx.load(target).graph.node]
    assert types.count("QuantizeLinear") == 2
    assert types[-2:] == ["EfficientNMS_TRT", "Relu"]
    assert result.quantized_sqnr > 20
    assert interface(onnx.load(target)) == interface(onnx.load(path))


def test_a_plugin_behind_which_nothing_is_left_is_refused(path):
    node = helper.make_node("Plugin_TRT", ["x"], ["y"], name="plugin")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", infos[:1], infos[1:]),
              opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)  # fmt: skip
    with pytest.raises(ModelError, match="does not know Plugin_TRT, and no layer comes before it"):
        load(path)


@pytest.mark.parametrize("opset", [11, 17])
def test_operators_of_onnx_runtime_in_the_default_domain_stay(path, opset):
    """Its optimizer writes SimplifiedLayerNormalization there, which ONNX does not have.

    Opset 11 is raised to 13 first.
    """
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="layer"),
        helper.make_node("SimplifiedLayerNormalization", ["a", "g"], ["y"], name="norm", axis=-1),
        helper.make_node("MatMul", ["y", "w"], ["z"], name="last"),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 8]) for n in "xz"]
    weights = [numpy_helper.from_array(random(8, 8), "w"), numpy_helper.from_array(random(8), "g")]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    quantized, result = api.quantize(path, {"x": random(64, 8)})
    save(quantized, path.with_name("q.onnx"))
    types = [n.op_type for n in quantized.proto.graph.node]
    assert types.count("QuantizeLinear") == 2
    assert {(each.domain, each.version) for each in quantized.proto.opset_import} == {
        ("", max(opset, 13))
    }
    assert "SimplifiedLayerNormalization" in types
    assert result.quantized_sqnr > 20
