"""One model as the reports look at it: float, quantized with a record, and without one."""

import numpy as np
import onnxq
import pytest
from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.report.page import report
from onnxq.report.subject import FLOAT, FUSED, QUANTIZED, UNDECIDED, Status, look_at

from support.builder import Builder

DATA = {"x": np.random.default_rng(0).standard_normal((16, 3, 6, 6)).astype(np.float32)}


def network():
    b = Builder(4)
    x = b.op("Relu", b.batch_norm(b.conv(b.input(3, 6, 6), 8, 3, name="conv"), name="bn"), name="relu")  # fmt: skip
    x = b.op("Softplus", b.conv(x, 8, name="second"), name="soft")
    return Model(b.proto(b.conv(x, 4, name="last")))


@pytest.fixture(scope="module")
def models():
    model = network()
    quantized, result = onnxq.quantize(model, DATA)
    return model, quantized, result


def without_record(model):
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    del proto.metadata_props[:]
    return Model(proto)


def statuses(subject, *names):
    return [subject.status(subject.graph.by_name[name]).becomes for name in names]


def test_of_a_float_model_nothing_is_decided(models):
    subject = look_at(models[0])
    assert subject.quantized is None
    node = subject.graph.by_name["conv"]
    assert subject.status(node) == Status(UNDECIDED, "the model is float")
    assert subject.weight(node) is None
    assert subject.activations == {}
    assert subject.folded == {"bn": "conv"}


def test_a_quantized_model_is_its_float_graph_and_what_became_of_it(models):
    _, quantized, result = models
    subject = look_at(quantized)
    types = {node.op_type for node in subject.graph.nodes}
    assert not types & {"QuantizeLinear", "DequantizeLinear"}
    assert statuses(subject, "conv", "relu", "soft", "last") == [QUANTIZED, FUSED, FLOAT, QUANTIZED]
    assert subject.status(subject.graph.by_name["relu"]).reason == "into conv"
    assert set(subject.activations) == set(result.plan.activations)
    for name, entry in result.plan.activations.items():
        assert subject.activations[name].scale == entry.parameters.scale
    conv = subject.graph.by_name["conv"]
    assert subject.weight(conv).axis == 0
    assert subject.data_of(conv) == ("x",)
    assert subject.layout(conv).outputs == 8
    assert subject.layout(subject.graph.by_name["relu"]) is None


def test_without_a_record_the_graph_tells(models):
    subject = look_at(without_record(models[1]))
    assert subject.record == {}
    assert statuses(subject, "conv", "relu", "soft", "last") == [QUANTIZED, FUSED, FLOAT, QUANTIZED]
    assert subject.status(subject.graph.by_name["soft"]).reason == "no Q/DQ before it"


def test_a_plan_decides_for_a_float_model(models):
    model, _, result = models
    subject = look_at(model, result.plan)
    assert statuses(subject, "conv", "relu", "soft") == [QUANTIZED, FUSED, FLOAT]
    node = subject.graph.by_name["conv"]
    assert subject.weight(node) is result.plan.weights["conv", 1]
    assert set(subject.activations) == set(result.plan.activations)


def test_a_node_is_found_by_its_name_its_host_or_its_tensor(models):
    subject = look_at(models[1])
    assert subject.find("conv").name == "conv"
    assert subject.find("bn").name == "conv"
    tensor = Graph(models[0]).by_name["relu"].output
    assert subject.find(tensor).name == "relu"
    with pytest.raises(UsageError, match="has no node 'secnod'") as caught:
        subject.find("secnod")
    assert caught.value.hint == "did you mean 'second'?"
    with pytest.raises(UsageError) as caught:
        subject.find("zzz")
    assert "--dry-run" in caught.value.hint


def test_a_page_needs_no_data(models):
    model, quantized, _ = models
    page, found = report(model, quantized)
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert [view.report for view in found.views] == [None]
    with pytest.raises(UsageError):
        report(model, quantized, max_drop=1.0)
