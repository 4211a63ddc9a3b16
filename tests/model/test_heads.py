"""Heads of detectors are recognized by what they compute; other networks have none."""

import onnx
import pytest
from onnxq.model.graph import Graph
from onnxq.model.heads import BOXES, DECIDES, GRID, MEAN, MEETING, decode_of
from onnxq.model.model import Model
from onnxq.model.normalize import normalize

from support.builder import Builder
from support.heads import HEADS
from support.testdata import TESTDATA

LAYERS = {"Conv", "MatMul", "Gemm"}

FOUND = {
    "dfl": {"mean": MEAN, "pixels": MEAN, "scores": MEETING, "out": MEAN},
    "anchors": {"scores": GRID, "pixels": GRID, "sizes": MEETING, "out": GRID},
    "raw": {"objectness": MEETING, "scores": MEETING, "joined": MEETING, "out": MEETING},
    "priors": {"centers": GRID, "halves": BOXES, "corners": GRID, "scores": DECIDES},
    "queries": {"anchored": GRID, "refined0": GRID, "refined1": GRID, "coordinates": GRID},
    "end_to_end": {"pixels": GRID, "best": DECIDES, "scores": DECIDES, "out": GRID},
}


def found(proto):
    graph = Graph(normalize(Model(proto))[0])
    return graph, decode_of(graph)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_found_behind_the_last_layers(head):
    graph, there = found(HEADS[head]())
    assert FOUND[head].items() <= there.items()
    layers = {name for name in there if graph.by_name[name].op_type in LAYERS}
    assert layers == ({"mean"} if head == "dfl" else set())


@pytest.mark.parametrize("head", HEADS)
def test_names_do_not_matter(head):
    proto = HEADS[head]()
    renamed = onnx.ModelProto()
    renamed.CopyFrom(proto)
    for number, node in enumerate(renamed.graph.node):
        node.name = f"n{number}"
    (_, there), (_, again) = found(proto), found(renamed)
    assert list(there.values()) == list(again.values())


def test_a_classifier_has_none():
    assert found(onnx.load(TESTDATA / "squeezenet.onnx"))[1] == {}


def test_attention_has_none():
    """Its Softmax is multiplied by an activation, its positions are many times wider than four."""
    b = Builder(batch=1)
    x = b.op("Add", b.input(24, 8), b.const(b.random(1, 24, 8)))
    query, value = b.matmul(x, 8), b.matmul(x, 8)
    key = b.op("Transpose", b.matmul(x, 8), perm=[0, 2, 1], shape=(8, 24))
    bias = b.const(b.random(4, 24, 24))
    scores = b.op("Add", b.op("MatMul", query, key, shape=(24, 24)), bias, shape=(24, 24))
    mixed = b.op("MatMul", b.op("Softmax", scores, axis=-1), value, shape=(4, 24, 8))
    assert found(b.proto(b.op("Sigmoid", b.matmul(mixed, 8))))[1] == {}
