"""`edit` loses nothing: over onnx's own node models, and over all a model may carry besides."""

import functools
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.rewrite import constant, edit, node, variable

SAMPLE = 150


@functools.cache
def node_models():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # It seeds numpy, so it is the same every time.
        return [(case.name, case.model) for case in collect_testcases(None)]


def value(attribute):
    """An attribute as something that compares by value, however its tensors are stored."""
    if attribute.type == onnx.AttributeProto.TENSOR:
        tensor = attribute.t
        if tensor.data_type == TensorProto.STRING:
            return list(tensor.string_data)
        return tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()
    if attribute.type == onnx.AttributeProto.GRAPH:
        body = attribute.g
        return (
            sorted((list(n.output), n.op_type, list(n.input)) for n in live_nodes(body)),
            [i.name for i in body.input], [o.name for o in body.output],
        )  # fmt: skip
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        return attribute.sparse_tensor.SerializeToString(deterministic=True)
    return helper.get_attribute_value(attribute)


def described(proto):
    return (
        proto.op_type, proto.domain, proto.name, tuple(proto.input), tuple(proto.output),
        proto.doc_string, {a.name: value(a) for a in proto.attribute},
        {p.key: p.value for p in proto.metadata_props},
    )  # fmt: skip


def live_nodes(graph):
    """Nodes that some output depends on."""
    needed = {output.name for output in graph.output}
    kept = []
    for proto in reversed(graph.node):
        if needed & set(proto.output):
            kept.append(proto)
            needed |= set(proto.input)
            for attribute in proto.attribute:
                for inner in attribute.g.node:
                    needed |= set(inner.input)
                needed |= {output.name for output in attribute.g.output}
    return kept


def assert_nothing_lost(before, after):
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version",
                 "doc_string", "opset_import", "metadata_props", "functions"):  # fmt: skip
        assert str(getattr(before, name)) == str(getattr(after, name)), name
    for name in ("name", "doc_string", "input", "output", "metadata_props",
                 "quantization_annotation", "sparse_initializer"):  # fmt: skip
        assert str(getattr(before.graph, name)) == str(getattr(after.graph, name)), name
    kept = {tuple(n.output): described(n) for n in after.graph.node}
    for proto in live_nodes(before.graph):
        assert kept[tuple(proto.output)] == described(proto)
    tensors = {t.name: t for t in after.graph.initializer}
    used = {name for n in live_nodes(before.graph) for name in n.input}
    for tensor in before.graph.initializer:
        if tensor.name in used:
            assert tensors[tensor.name].data_type == tensor.data_type
            assert np.array_equal(
                numpy_helper.to_array(tensors[tensor.name]), numpy_helper.to_array(tensor)
            )
    infos = {i.name: i for i in after.graph.value_info}
    produced = {name for n in after.graph.node for name in n.output}
    for info in before.graph.value_info:
        if info.name in produced:
            assert infos[info.name] == info


def round_trip(models):
    refused = []
    for name, proto in models:
        try:
            after = edit(Model(proto), lambda _graph: None)
        except ModelError:
            refused.append(name)
            continue
        assert_nothing_lost(proto, after.proto)
    return refused


def test_a_sample_of_node_models_round_trips():
    models = node_models()
    refused = round_trip(models[:: len(models) // SAMPLE])
    assert all("opt" in name for name in refused)


@pytest.mark.slow
def test_all_node_models_round_trip():
    refused = round_trip(node_models())
    # Those with optional values.
    assert len(refused) <= 8, refused
    assert all("opt" in name or name == "test_loop16_seq_none" for name in refused), refused


@pytest.mark.slow
def test_all_node_models_normalize():
    """Or are refused with a reason; nothing else escapes."""
    refused = []
    for name, proto in node_models():
        try:
            normalize(Model(proto))
        except ModelError:
            refused.append(name)
    assert len(refused) < 0.1 * len(node_models()), refused


def full_model():
    """One of everything a round trip may lose."""
    relu = helper.make_node("Relu", ["sum"], ["y"], name="relu", doc_string="the activation")
    relu.metadata_props.add(key="origin", value="layer1.0")
    nodes = [helper.make_node("Add", ["x", "w"], ["sum"], name="add"), relu]
    weight = numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    graph = helper.make_graph(
        nodes, "everything",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "w")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2], "the output")],
        initializer=[weight], doc_string="the graph",
        value_info=[helper.make_tensor_value_info("sum", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    graph.quantization_annotation.add(tensor_name="sum").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="w"
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("custom", 3)],
        ir_version=10, producer_name="a tool", producer_version="1.2", domain="org.example",
        model_version=7, doc_string="the model",
    )  # fmt: skip
    helper.set_model_props(proto, {"licence": "MIT", "classes": "a,b"})
    return proto


def test_everything_a_model_may_carry():
    proto = full_model()
    after = edit(Model(proto), lambda _graph: None).proto
    assert_nothing_lost(proto, after)
    # The weight stays an input that a caller may override.
    assert [i.name for i in after.graph.input] == ["x", "w"]
    assert [t.name for t in after.graph.initializer] == ["w"]


def custom_node(**attributes):
    return helper.make_node("Foo", ["x"], ["y"], "custom", domain="custom", **attributes)


def custom_model(proto, *, inside):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "y"))
    nodes, inputs = [proto], [x]
    if inside:
        body = helper.make_graph([proto], "body", [], [y])
        nodes = [helper.make_node("If", ["c"], ["y"], "if", then_branch=body, else_branch=body)]
        inputs.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    graph = helper.make_graph(nodes, "g", inputs, [y])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("custom", 1)]
    return Model(helper.make_model(graph, opset_imports=opsets, ir_version=10))


@pytest.mark.parametrize("inside", [False, True])
def test_lists_of_tensors_and_sparse_ones_stay(inside):
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1, 2], np.float32), "values"),
        numpy_helper.from_array(np.array([0, 3]), "indices"), [5],
    )  # fmt: skip
    tensors = [numpy_helper.from_array(np.arange(n), f"t{n}") for n in (2, 3)]
    proto = custom_node(before=[1, 2], tensors=tensors, sparse=sparse)
    after = edit(custom_model(proto, inside=inside), lambda _graph: None).proto.graph.node[0]
    (kept,) = after.attribute[0].g.node if inside else [after]
    assert {a.name: a for a in kept.attribute} == {a.name: a for a in proto.attribute}


@pytest.mark.parametrize("inside", [False, True])
def test_what_cannot_be_read_is_refused(inside):
    body = helper.make_graph([], "body", [], [])
    proto = custom_node(bodies=[body])
    with pytest.raises(
        ModelError,
        match=r"'custom' \(Foo\) has a list of graphs as attribute 'bodies', which onnxq cannot rewrite",
    ):
        edit(custom_model(proto, inside=inside), lambda _graph: None)


def optional_model(*, inside):
    """An optional value between two nodes, or one that an If gives."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "y"))
    wrap = helper.make_node("Optional", ["x"], ["some"], "wrap")
    nodes, inputs = [wrap], [x]
    if inside:
        body = helper.make_graph([wrap], "body", [], [helper.make_value_info("some", kind)])
        nodes = [helper.make_node("If", ["c"], ["got"], "if", then_branch=body, else_branch=body)]
        inputs.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    name = nodes[0].output[0]
    nodes.append(helper.make_node("OptionalGetElement", [name], ["y"], "unwrap"))
    infos = [helper.make_value_info(name, kind)]
    graph = helper.make_graph(nodes, "g", inputs, [y], value_info=infos)
    opsets = [helper.make_opsetid("", 18)]
    return Model(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_optional_values_keep_their_types():
    model = optional_model(inside=False)
    after = edit(model, lambda _graph: None).proto
    assert_nothing_lost(model.proto, after)
    assert after.graph.value_info == model.proto.graph.value_info


def test_a_body_that_gives_an_optional_value_is_refused():
    with pytest.raises(ModelError, match=r"'some' in the body of 'if' \(If\) is an optional value"):
        edit(optional_model(inside=True), lambda _graph: None)


def test_the_source_stays_as_it_is():
    model = Model(full_model())
    before = model.proto.SerializeToString(deterministic=True)

    def change(graph):
        relu = next(n for n in graph.nodes if n.name == "relu")
        relu.op = "Neg"
        relu.name = "other"
        graph.nodes[0].inputs[1] = constant("w", np.array([5, 5], np.float32))

    after = edit(model, change)
    assert model.proto.SerializeToString(deterministic=True) == before
    assert {n.op_type for n in after.proto.graph.node} == {"Add", "Neg"}


def test_new_tensors_never_take_a_name_that_is_used():
    def change(graph):
        add = next(n for n in graph.nodes if n.name == "add")
        middle = variable("sum", np.float32)
        (old,) = add.outputs
        add.outputs = [middle]
        shift = constant("x", np.array([1, 1], np.float32))
        graph.nodes.append(node("Add", "shift", [middle, shift], [old]))

    after = edit(Model(full_model()), change).proto
    assert len({name for n in after.graph.node for name in n.output}) == 3
    assert "x_2" in {t.name for t in after.graph.initializer}


def test_an_invalid_edit_is_refused():
    def change(graph):
        graph.nodes[0].op = "NoSuchOperator"

    with pytest.raises(ModelError, match="the rewritten graph is not valid"):
        edit(Model(full_model()), change)


def test_raising_the_opset():
    assert edit(Model(full_model()), lambda _graph: None, opset=19).opset == 19
    assert edit(Model(full_model()), lambda _graph: None, opset=13).opset == 17


def test_nothing_is_printed(tmp_path):
    """Graphsurgeon warns on stdout, where a command writes its JSON."""
    proto = full_model()
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    onnx.save(proto, tmp_path / "m.onnx")
    code = (
        "import sys, onnx; from onnxq.model.model import Model; "
        "from onnxq.model.rewrite import edit; "
        "edit(Model(onnx.load(sys.argv[1])), lambda graph: None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.onnx"],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert done.stdout == ""
    assert done.stderr == ""


def test_new_nodes_get_names_of_their_own():
    """ONNX Runtime refuses two of one name; a new one in the place of an old one keeps its."""
    relu = helper.make_node("Relu", ["x"], ["h"], "x/quantize")
    last = helper.make_node("Neg", ["h"], ["y"], "last")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy"]
    graph = helper.make_graph([relu, last], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    model = Model(helper.make_model(graph, opset_imports=opset, ir_version=8))

    def change(gs_graph):
        old = next(each for each in gs_graph.nodes if each.name == "last")
        (result,), (read,) = old.outputs, old.inputs
        between = variable("between", np.float32)
        old.outputs.clear()
        gs_graph.nodes.append(node("Abs", "x/quantize", [read], [between]))
        gs_graph.nodes.append(node("Exp", "last", [between], [result]))

    found = {each.op_type: each.name for each in edit(model, change).proto.graph.node}
    assert found == {"Relu": "x/quantize", "Abs": "x/quantize_2", "Exp": "last"}
