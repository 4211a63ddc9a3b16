"""Random graphs out of the operator table: every node is explained, and the page holds them all."""

import json
import re

import onnxq
import pytest
from hypothesis import assume, given, settings
from onnxq.report.explain import explain, headline, tables

from support.random_graphs import random_feeds, random_models
from support.running import runnable


@pytest.mark.slow
@settings(max_examples=6)
@given(random_models())
def test_every_node_of_a_random_graph_is_explained(model):
    assume(runnable(model))
    data = random_feeds(model, batch=8)
    int8, _ = onnxq.quantize(model, data, weights="per-tensor")
    page, found = onnxq.report(model, [int8], data=data)
    (view,) = found.views
    content = re.search(r'id="facts">(.*?)</script>', page)[1]
    named = {each["name"] for each in json.loads(content)["nodes"]}
    assert {layer.name for layer in view.layers} <= named
    for layer in view.layers:
        each = layer.explanation
        assert each.becomes in {"quantized", "fused", "float"}
        assert each.reason or each.becomes == "quantized"
        assert each.equalization
    # From the model, as the command asks, it is the same.
    first = view.layers[0].explanation
    assert explain(int8, first.node) == first
    assert first.node in headline(first)
    assert [content.title for content in tables(first)][:2] == ["Equalization", "Quantization"]
