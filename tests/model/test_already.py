"""Whether a model is quantized already, in its bodies and functions too."""

from collections import Counter

import pytest
from onnx import TensorProto, helper
from onnxq.errors import ModelError
from onnxq.model.already import counted, quantized_operators, require_float
from onnxq.model.model import Model

from support.builder import Builder

node = helper.make_node


def graph(*nodes, name="g"):
    return helper.make_graph(
        list(nodes), name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip


def model(*nodes, functions=()):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return Model(helper.make_model(graph(*nodes), opset_imports=opsets, functions=functions))


Q, DQ = (node(f"{each}Linear", ["x", "s"], ["y"]) for each in ("Quantize", "Dequantize"))


def test_a_float_model_is_none():
    b = Builder()
    float_model = b.model(b.op("Relu", b.conv(b.input(3, 4, 4), 4)))
    assert quantized_operators(float_model) == Counter()
    require_float(float_model)


def test_operators_are_counted_wherever_they_stand():
    body = graph(DQ, node("If", ["c"], ["z"], then_branch=graph(Q), else_branch=graph(DQ)))
    function = helper.make_function(
        "f", "F", ["x"], ["y"], [node("QLinearConv", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    found = quantized_operators(
        model(Q, node("Loop", ["n", "c", "x"], ["y"], body=body), functions=[function])
    )
    assert found == {"QuantizeLinear": 2, "DequantizeLinear": 2, "QLinearConv": 1}


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, ""),
        ({"A": 1}, "1 A"),
        ({"A": 1200, "B": 2}, "2 B and 1,200 A"),
        ({"A": 3, "B": 2, "C": 1}, "1 C, 2 B and 3 A"),
    ],
)
def test_counts_as_people_read_them(counts, text):
    assert counted(Counter(counts)) == text


def test_a_quantized_model_is_refused_with_what_it_has():
    with pytest.raises(ModelError, match="g: quantized already, it has 1 QuantizeLinear") as caught:
        require_float(model(Q))
    assert "float model" in caught.value.hint
