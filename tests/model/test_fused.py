"""ONNX Runtime's fused operators, each row of the table proved against the operator itself."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.files import infer_shapes
from onnxq.model.fused import FUSED
from onnxq.model.learned import learn_types
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.take_apart import EXACT, take_apart
from onnxq.model.trials import difference, run_trials

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model(op_type, x, *weights, second=None, opset=17, outputs=("y",), **attributes):
    """One fused operator between two Sigmoids; "" for an input that is absent."""
    names = [f"w{i}" if isinstance(w, np.ndarray) else w for i, w in enumerate(weights)]
    inputs = ["x1", *([second] if second else []), *names]
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["x1"], name="before"),
        helper.make_node(op_type, inputs, list(outputs), name="fused",
                         domain="com.microsoft", **attributes),
        helper.make_node("Sigmoid", [outputs[0]], ["z"], name="after"),
    ]  # fmt: skip
    last = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    if len(outputs) > 3:
        nodes.append(helper.make_node("Sigmoid", [outputs[3]], ["z2"], name="sum"))
        last.append(helper.make_tensor_value_info("z2", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)], last,
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)
         if isinstance(w, np.ndarray)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    fused = Model(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    return learn_types(infer_shapes(fused))[0]


IMAGE, KERNEL = ["N", 3, 8, 8], random(4, 3, 3, 3)
SEQUENCE = ["N", 5, 8]
CONV = [
    ({"activation": "Relu"}, ["Conv", "Relu"]),
    ({"activation": "Tanh"}, ["Conv", "Tanh"]),
    ({"activation": "Sigmoid", "strides": [2, 2]}, ["Conv", "Sigmoid"]),
    ({"activation": "LeakyRelu", "activation_params": [0.2]}, ["Conv", "LeakyRelu"]),
    ({"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}, ["Conv", "HardSigmoid"]),
    ({"activation": "Clip", "activation_params": [-0.2, 0.3]}, ["Conv", "Clip"]),
]
GELU = ["Div", "Erf", "Add", "Mul", "Mul"]
FAST = ["Mul", "Mul", "Mul", "Add", "Mul", "Tanh", "Add", "Mul", "Mul"]
NORM = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"]

CASES = [
    *(("FusedConv", model("FusedConv", IMAGE, KERNEL, random(4), pads=[1] * 4, **given), parts)
      for given, parts in CONV),
    ("FusedGemm", model("FusedGemm", ["N", 8], random(4, 8), random(4), transB=1, alpha=0.5,
                        activation="Relu"), ["Gemm", "Relu"]),
    ("FusedGemm", model("FusedGemm", ["N", 8], random(8, 4), activation="LeakyRelu",
                        activation_alpha=0.1), ["Gemm", "LeakyRelu"]),
    ("FusedMatMul", model("FusedMatMul", SEQUENCE, random(4, 8), transB=1, alpha=0.25),
     ["Transpose", "MatMul", "Mul"]),
    ("FusedMatMul", model("FusedMatMul", [2, 5, 8], random(2, 5, 3), transA=1),
     ["Transpose", "MatMul"]),
    ("FusedMatMul", model("FusedMatMul", SEQUENCE, second="x1", transB=1),
     ["Transpose", "MatMul"]),
    ("BiasGelu", model("BiasGelu", SEQUENCE, random(8)), ["Add", *GELU]),
    ("Gelu", model("Gelu", SEQUENCE), GELU),
    ("FastGelu", model("FastGelu", SEQUENCE), FAST),
    ("FastGelu", model("FastGelu", SEQUENCE, random(8)), ["Add", *FAST]),
    ("QuickGelu", model("QuickGelu", SEQUENCE, alpha=1.5), ["Mul", "Sigmoid", "Mul"]),
    ("SkipLayerNormalization",
     model("SkipLayerNormalization", SEQUENCE, random(8), random(8), random(8), second="x",
           epsilon=1e-5), ["Add", "Add", "LayerNormalization"]),
    ("SkipLayerNormalization",
     model("SkipLayerNormalization", SEQUENCE, random(8), second="x",
           outputs=("y", "", "", "total")), ["Add", "LayerNormalization"]),
    ("SkipLayerNormalization",
     model("SkipLayerNormalization", SEQUENCE, random(8), random(8), second="x", opset=13),
     ["Add", *NORM]),
    ("SkipSimplifiedLayerNormalization",
     model("SkipSimplifiedLayerNormalization", SEQUENCE, random(8), random(8), second="x",
           epsilon=1e-5), ["Add", "Add", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]),
]  # fmt: skip


@pytest.mark.parametrize("op_type", FUSED)
def test_every_row_has_a_case(op_type):
    assert op_type in {name for name, _, _ in CASES}


@pytest.mark.parametrize(("op_type", "fused", "parts"), CASES)
def test_the_parts_compute_what_the_operator_does(op_type, fused, parts):
    apart, record = take_apart(fused)
    assert record.kept == {}
    (error,) = record.differences.values()
    assert error < EXACT / 10
    onnx.checker.check_model(apart.proto)
    types = [node.op_type for node in apart.proto.graph.node if node.name not in
             {"before", "after", "sum"}]  # fmt: skip
    assert types == parts
    names = [spec.name for spec in fused.outputs]
    for a, b in zip(run_trials(fused, names), run_trials(apart, names), strict=True):
        assert all(difference(a[name], b[name]) < EXACT for name in names)


def test_the_sum_before_an_activation():
    shape = [2, 4, 8, 8]
    fused = model("FusedConv", shape, random(4, 4, 3, 3), random(4), "x1", pads=[1] * 4,
                  activation="Relu")  # fmt: skip
    apart, record = take_apart(fused)
    assert list(record.differences) == ["fused"]
    assert [n.op_type for n in apart.proto.graph.node][1:4] == ["Conv", "Add", "Relu"]


@pytest.mark.parametrize(
    ("fused", "reason"),
    [
        (model("FusedConv", IMAGE, KERNEL, activation="Elu"), "its activation Elu is not known"),
        (model("FusedMatMul", [2, 5, 8], random(5, 2, 8), transB=1, transBatchB=1),
         "it moves the batch axis"),
        (model("FusedConv", ["N", 5, 8, 8], KERNEL, activation="Relu"),
         "the model does not run on random inputs, which would compare it"),
    ],
)  # fmt: skip
def test_what_is_left_has_a_reason(fused, reason):
    same, record = take_apart(fused)
    assert record.kept == {"fused": reason}
    assert same.proto == fused.proto


def test_parts_that_differ_are_not_used(monkeypatch):
    monkeypatch.setitem(FUSED, "QuickGelu", lambda parts, node: {0: parts.add("Tanh", "x1")})
    _, record = take_apart(model("QuickGelu", SEQUENCE))
    assert record.differences == {}
    assert record.kept["fused"].startswith("its parts would differ from it by")


def test_a_fused_convolution_is_one_of_its_layers():
    fused = model("FusedConv", IMAGE, KERNEL, random(4), pads=[1] * 4, activation="Relu")
    normalized, record = normalize(fused)
    assert [n.op_type for n in normalized.proto.graph.node] == [
        "Sigmoid", "Conv", "Relu", "Sigmoid"
    ]  # fmt: skip
    assert record.taken_apart.keys() == {"fused"}
    assert normalized.proto.graph.node[1].name == "fused"
