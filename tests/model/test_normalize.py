"""Normalization: the same function in the one form that later stages read."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper
from onnxq.errors import ModelError
from onnxq.model import constants, external, modernize
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.rewrite import edit

from support.builder import Builder
from support.random_graphs import random_feeds, random_protos
from support.running import outputs


def assert_same_function(proto, model, *, rtol=1e-5):
    feeds = random_feeds(model, batch=2)
    before = outputs(Model(proto), feeds, optimize=False)
    for a, c in zip(before, outputs(model, feeds, optimize=False), strict=True):
        assert a.shape == c.shape
        assert np.abs(a - c).max(initial=0) <= rtol * max(np.abs(a).max(initial=0), 1e-6)


def types(model):
    return [node.op_type for node in model.proto.graph.node]


@settings(max_examples=60)
@given(random_protos())
def test_random_graphs_compute_the_same(proto):
    model, record = normalize(Model(proto))
    onnx.checker.check_model(model.proto)
    # A batch norm folded before a steep function moves its input by a rounding.
    assert_same_function(proto, model, rtol=1e-3)
    again, second = normalize(model)
    assert again.proto == model.proto
    assert second.folded_batch_norms == {}
    assert record.raised_from == 0


# --- constants ---------------------------------------------------------------------------------


def test_constant_nodes_and_identities_of_initializers_become_initializers():
    b = Builder()
    x = b.input(4)
    weight = b.op("Identity", b.constant_node(b.random(3, 4)), shape=())
    scaled = b.op("Mul", weight, b.const(np.float32(2)), shape=())
    y = b.op("Gemm", x, scaled, shape=(3,), transB=1)
    proto = b.proto(y)
    model, record = normalize(Model(proto))
    assert types(model) == ["Gemm"]
    assert record.folded_constants == 3
    graph = Graph(model)
    assert graph.constant(graph.nodes[0].input(1)) is not None
    assert_same_function(proto, model)


def test_shapes_known_before_run_time_are_constants():
    b = Builder(batch=2)
    x = b.input(4, 3)
    size = b.op("Shape", x, shape=())
    first = b.op("Gather", size, b.ints(0), shape=())
    target = b.op("Concat", first, b.ints(-1), axis=0, shape=())
    proto = b.proto(b.op("Reshape", x, target, shape=(12,)))
    model, _ = normalize(Model(proto))
    assert types(model) == ["Reshape"]
    assert_same_function(proto, model)


def test_an_output_that_is_constant_stays_an_output():
    b = Builder()
    y = b.op("Relu", b.input(3))
    anchors = b.op("Neg", b.constant_node(np.arange(6).reshape(2, 3)), name="anchors", shape=(3,))
    doubled = b.op("Add", y, anchors)
    proto = b.proto(doubled, anchors)
    model, _ = normalize(Model(proto))
    assert [spec.name for spec in model.outputs] == [doubled, "anchors"]
    assert_same_function(proto, model)


def test_a_subgraph_may_read_a_folded_constant():
    b = Builder()
    x = b.input(3)
    shift = b.op("Neg", b.constant_node(np.float32([1, 2, 3])), name="shift", shape=())
    condition = b.op("Greater", b.op("ReduceMax", x, keepdims=0, shape=()),
                     b.const(np.float32(0)), shape=())  # fmt: skip
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x", "shift"], [f"{op}_out"], name=op)], op, [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)],
        )
        for op in ("Add", "Sub")
    ]  # fmt: skip
    y = b.op("If", condition, then_branch=branches[0], else_branch=branches[1], shape=(3,))
    proto = b.proto(y)
    model, _ = normalize(Model(proto))
    assert "Neg" not in types(model)
    assert_same_function(proto, model)
    assert shift in Graph(model).constants


def test_random_numbers_are_not_folded():
    b = Builder(batch=2)
    noise = b.op("RandomNormal", shape=(2, 3), seed=1.0)
    proto = b.proto(b.op("Add", b.input(3), noise))
    model, record = normalize(Model(proto))
    assert record.folded_constants == 0
    assert types(model) == ["RandomNormal", "Add"]


def test_an_overridable_initializer_is_no_constant():
    b = Builder()
    weight = b.const(b.random(3, 4), "w")
    proto = b.proto(b.op("Gemm", b.input(4), b.op("Neg", weight, shape=()), shape=(3,), transB=1))
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4]))
    model, record = normalize(Model(proto))
    assert record.folded_constants == 0
    assert [spec.name for spec in model.inputs] == ["x"]
    assert "w" in {i.name for i in model.proto.graph.input}


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["Transpose", "Constant", "Identity"])
@pytest.mark.parametrize("parked", [True, False])
def test_large_constants_fold_where_they_do_not_grow(how, parked, monkeypatch):
    """A Linear of a language model's last layer, as MatMul(x, Transpose(W))."""
    monkeypatch.setattr(constants, "FOLD_LIMIT", 10)
    if parked:
        monkeypatch.setattr(external, "PARK_LIMIT", 1000)
        monkeypatch.setattr(external, "SMALL", 16)
    b = Builder()
    values = b.random(64, 8)
    weight = b.constant_node(values) if how == "Constant" else b.const(values)
    weight = b.op("Identity", weight, shape=()) if how == "Identity" else weight
    weight = b.op("Transpose", weight, perm=[1, 0], shape=())
    x = b.input(3, 8)
    wide = b.op("Expand", b.const(np.float32([2])), b.ints(3, 8), shape=())
    proto = b.proto(b.op("MatMul", b.op("Add", x, wide), weight, shape=(3, 64)))
    model, _ = normalize(Model(proto))
    # One number spread over many would grow.
    assert types(model) == ["Expand", "Add", "MatMul"]
    stored = {t.name: t for t in model.message.graph.initializer}[Graph(model).nodes[2].input(1)]
    assert external.is_parked(stored) == parked
    assert np.array_equal(external.values_of(stored), values.T)
    assert_same_function(proto, model)


def test_every_node_gets_a_name_of_its_own():
    b = Builder()
    x = b.input(3)
    for _ in range(3):
        x = b.op("Relu", x)
    proto = b.proto(x)
    for node, name in zip(proto.graph.node, ["same", "", "same"], strict=True):
        node.name = name
    model, record = normalize(Model(proto))
    names = [node.name for node in model.proto.graph.node]
    assert names[0] == "same"
    assert len(set(names)) == 3
    assert all(names)
    assert record.renamed == 2
    assert proto.graph.node[1].name == ""


# --- batch norms -------------------------------------------------------------------------------


def folded(b, build):
    x = build(b)
    y = b.batch_norm(x, name="norm")
    proto = b.proto(b.op("Relu", y))
    model, record = normalize(Model(proto))
    assert_same_function(proto, model)
    return model, record


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_a_batch_norm_folds_into_a_convolution(group, bias):
    model, record = folded(
        Builder(), lambda b: b.conv(b.input(4, 5, 5), 8, 3, group=group, bias=bias, name="conv")
    )
    assert types(model) == ["Conv", "Relu"]
    assert record.folded_batch_norms == {"norm": "conv"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_a_batch_norm_folds_into_a_transposed_convolution(group, bias):
    model, record = folded(
        Builder(),
        lambda b: b.conv_transpose(b.input(4, 5, 5), 8, group=group, bias=bias, name="conv"),
    )
    assert types(model) == ["ConvTranspose", "Relu"]
    assert record.folded_batch_norms == {"norm": "conv"}


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", ["vector", "row", "scalar", None])
def test_a_batch_norm_folds_into_gemm(trans_b, bias):
    model, record = folded(
        Builder(),
        lambda b: b.gemm(
            b.input(4), 3, trans_b=trans_b, bias=bias, alpha=0.7, beta=1.3, name="gemm"
        ),
    )
    assert types(model) == ["Gemm", "Relu"]
    assert record.folded_batch_norms == {"norm": "gemm"}


@pytest.mark.parametrize("bias", ["vector", "row", "scalar", None])
def test_gemm_loses_its_factors(bias):
    b = Builder()
    proto = b.proto(b.gemm(b.input(4), 3, bias=bias, alpha=0.7, beta=1.3))
    model, _ = normalize(Model(proto))
    node = Graph(model).nodes[0]
    assert not {"alpha", "beta"} & set(node.attributes) or bias is None
    assert node.attributes.get("alpha", 1.0) == 1.0
    if bias:
        assert Graph(model).constant(node.input(2)).shape == (3,)
    assert_same_function(proto, model)


def test_a_bias_by_row_stays():
    b = Builder(batch=3)
    x = b.input(4)
    proto = b.proto(
        b.op("Gemm", x, b.const(b.random(4, 3)), b.const(b.random(3, 1)), shape=(3,), beta=2.0)
    )
    model, _ = normalize(Model(proto))
    assert Graph(model).constant(Graph(model).nodes[0].input(2)).shape == (3, 1)
    feeds = random_feeds(model)
    (a,), (c,) = (outputs(m, feeds, optimize=False) for m in (Model(proto), model))
    assert np.allclose(a, c, rtol=1e-5)


@pytest.mark.parametrize("obstacle", ["second reader", "graph output", "relu", "run-time bias"])
def test_batch_norms_that_cannot_fold_stay(obstacle):
    b = Builder()
    x = b.input(4, 5, 5)
    if obstacle == "run-time bias":
        bias = b.op("ReduceMean", x, axes=[0, 2, 3], keepdims=0, shape=())
        conv = b.op("Conv", x, b.const(b.random(4, 4, 1, 1)), bias, shape=(4, 5, 5))
    else:
        conv = b.conv(x, 4)
    norm = b.batch_norm(b.op("Relu", conv) if obstacle == "relu" else conv)
    extra = {"second reader": [b.op("Neg", conv)], "graph output": [conv]}.get(obstacle, [])
    proto = b.proto(norm, *extra)
    model, record = normalize(Model(proto))
    assert not record.folded_batch_norms
    assert "BatchNormalization" in types(model)
    assert_same_function(proto, model)


def test_two_batch_norms_in_a_row():
    b = Builder()
    first = b.batch_norm(b.conv(b.input(4, 5, 5), 4, name="conv"), name="first")
    proto = b.proto(b.batch_norm(first, name="second"))
    model, record = normalize(Model(proto))
    assert record.folded_batch_norms == {"first": "conv", "second": "conv"}
    assert_same_function(proto, model)


def test_a_weight_shared_with_another_layer_is_folded_for_one():
    b = Builder()
    weight = b.const(b.random(4, 4, 1, 1))
    x = b.input(4, 5, 5)
    norm = b.batch_norm(b.conv(x, 4, weight=weight, bias=False))
    proto = b.proto(norm, b.conv(x, 4, weight=weight, bias=False))
    model, _ = normalize(Model(proto))
    assert types(model) == ["Conv", "Conv"]
    assert_same_function(proto, model)


# --- operator sets -----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", range(7, 13))
def test_old_operator_sets_are_raised(opset):
    b = Builder(opset=opset)
    x = b.op("Relu", b.batch_norm(b.conv(b.input(3, 4, 4), 4, name="conv")))
    x = b.op("Clip", x, min=0.0, max=6.0) if opset < 11 else b.clip(x)
    x = b.op("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], shape=(4, 6, 6)) if opset < 11 else x
    x = b.op("Dropout", x)
    x = b.op("GlobalAveragePool", x, shape=(4, 1, 1))
    x = b.op("Squeeze", x, axes=[2, 3], shape=(4,))
    proto = b.proto(b.op("Softmax", b.gemm(x, 3), axis=1))
    helper.set_model_props(proto, {"licence": "MIT"})
    proto.doc_string, proto.producer_name, proto.model_version = "documented", "a tool", 3
    model, record = normalize(Model(proto))
    assert model.opset == 13
    assert record.raised_from == opset
    assert "BatchNormalization" not in types(model)
    assert model.metadata == {"licence": "MIT"}
    assert (model.proto.doc_string, model.proto.producer_name) == ("documented", "a tool")
    assert model.proto.model_version == 3
    assert [spec.name for spec in model.outputs] == [o.name for o in proto.graph.output]
    assert_same_function(proto, model)


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factor", [2.0, 1.5, 0.75])
def test_upsample_and_old_resize_find_the_same_samples(opset, mode, factor):
    b = Builder(opset=opset)
    x = b.input(3, 4, 4)
    if factor < 1 and opset < 10:
        return  # Upsample cannot shrink
    scales = [1.0, 1.0, factor, factor]
    size = int(4 * factor)
    if opset < 9:
        y = b.op("Upsample", x, scales=scales, mode=mode, shape=(3, size, size))
    else:
        op_type = "Resize" if opset == 10 else "Upsample"
        y = b.op(op_type, x, b.const(np.array(scales)), mode=mode, shape=(3, size, size))
    proto = b.proto(b.op("Relu", y))
    model, _ = normalize(Model(proto))
    assert_same_function(proto, model, rtol=1e-6)


@pytest.mark.parametrize(
    ("opset", "wanted"), [(13, 8), (17, 8), (18, 8), (19, 9), (20, 9), (21, 10)]
)
@pytest.mark.parametrize("ir_version", [7, 10, 11])
def test_the_ir_version_is_the_lowest_that_the_opset_needs(opset, wanted, ir_version):
    b = Builder(opset=opset)
    proto = b.proto(b.op("Relu", b.conv(b.input(3, 4, 4), 4)))
    proto.ir_version = ir_version
    model, _ = normalize(Model(proto))
    assert model.proto.ir_version == wanted


def test_an_edit_that_raises_the_opset_raises_the_ir_version():
    b = Builder(opset=17)
    model = b.model(b.op("Relu", b.input(3)))
    assert edit(model, lambda _: None, opset=21).proto.ir_version == 10


def test_a_conversion_that_changes_what_is_computed_is_refused(monkeypatch):
    """Where more is known of the outputs than before, both models must agree."""
    proto = Builder(opset=11)
    x = proto.op("Softmax", proto.op("Relu", proto.input(3, 4, 4)), axis=3)
    source = proto.proto(x)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    convert = onnx.version_converter.convert_version

    def wrong(model, opset):
        converted = convert(model, opset)
        converted.graph.output[0].CopyFrom(
            helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 3, 4, 4])
        )
        converted.graph.node[-1].op_type = "LogSoftmax"
        return converted

    monkeypatch.setattr(onnx.version_converter, "convert_version", wrong)
    monkeypatch.setattr(modernize, "infer_shapes", lambda model: model)
    with pytest.raises(ModelError, match="would change its inputs or outputs"):
        modernize.raise_opset(Model(source))


def test_operator_sets_that_cannot_be_raised_are_refused():
    b = Builder(opset=5)
    x = b.op("Scan", b.input(3), b.const(b.random(2)), shape=(3,))
    with pytest.raises(ModelError, match="cannot be raised to 13"):
        normalize(Model(b.proto(x)))


def test_the_source_is_left_alone():
    b = Builder()
    proto = b.proto(b.op("Relu", b.batch_norm(b.conv(b.input(3, 4, 4), 4))))
    before = proto.SerializeToString(deterministic=True)
    normalize(Model(proto))
    assert proto.SerializeToString(deterministic=True) == before


def test_a_quantized_model_is_not_simplified():
    """Which kernels run integers depends on what stands beside what."""
    b = Builder()
    scale, zero = b.const(np.float32(0.1)), b.const(np.zeros((), np.int8))
    x = b.op("QuantizeLinear", b.input(3, 4, 4), scale, zero)
    x = b.op("DequantizeLinear", x, scale, zero, shape=(3, 4, 4))
    x = b.op("Mul", b.conv(x, 4), b.const(np.float32([0.5])))
    x = b.op("Identity", b.op("Min", b.op("Relu", x), b.const(np.float32(6))))
    proto = b.proto(b.op("Relu", b.op("Flatten", x, shape=(64,))))
    model, record = normalize(Model(proto))
    assert types(model) == [node.op_type for node in proto.graph.node]
    assert (record.copies, record.clips, record.folded_factors) == (0, 0, {})


def test_metadata_survive_folding():
    b = Builder()
    proto = b.proto(b.op("Relu", b.batch_norm(b.conv(b.input(3, 4, 4), 4, name="conv"))))
    helper.set_model_props(proto, {"classes": "a,b"})
    conv = next(n for n in proto.graph.node if n.name == "conv")
    conv.doc_string = "the stem"
    conv.metadata_props.add(key="origin", value="layer1")
    model, _ = normalize(Model(proto))
    after = next(n for n in model.proto.graph.node if n.name == "conv")
    assert model.metadata == {"classes": "a,b"}
    assert after.doc_string == "the stem"
    assert [(p.key, p.value) for p in after.metadata_props] == [("origin", "layer1")]
    assert all(
        isinstance(numpy_helper.to_array(t), np.ndarray) for t in model.proto.graph.initializer
    )
