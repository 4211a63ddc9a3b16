"""Calls of model-local functions that leave attributes to their defaults: they keep them."""

import numpy as np
import onnx
import onnxq
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnxq.model.function_defaults import with_defaults_given
from onnxq.model.modernize import inline_functions
from onnxq.model.session import open_session, run

SETS = [helper.make_opsetid("", 18), helper.make_opsetid("pkg", 1)]
X = {"x": np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)}
A = AttributeProto


def node(line, *, name=None, domain="", refs=(), **attributes):
    """`operator: inputs -> outputs`; `refs` are attributes taken from the function around."""
    op_type, *inputs = line.split(" -> ")[0].split()
    made = helper.make_node(
        op_type, inputs, line.split(" -> ")[1].split(), name=name, domain=domain, **attributes
    )
    for own, taken, kind in refs:
        made.attribute.add(name=own, ref_attr_name=taken, type=kind)
    return made


def function(name, nodes, *, attributes=(), defaults=None):
    protos = [helper.make_attribute(*each) for each in (defaults or {}).items()]
    return helper.make_function(
        "pkg", name, ["x"], ["y"], nodes, SETS, list(attributes), attribute_protos=protos
    )


LEAKY = [node("LeakyRelu x -> y", refs=[("alpha", "slope", A.FLOAT)])]
LEAK = function("Leak", LEAKY, defaults={"slope": 0.3})
SCALE = function(
    "Scale", [node("Constant -> c", refs=[("value_float", "by", A.FLOAT)]), node("Mul x c -> y")],
    defaults={"by": 2.5},
)  # fmt: skip
CALL = node("Leak x -> y", domain="pkg", refs=[("slope", "s", A.FLOAT)])


def branches(body):
    """A model with a call in a branch of an If."""
    taken = helper.make_graph([node(body, domain="pkg")], "t", [], [info("t")])
    other = helper.make_graph([node("Neg x -> e")], "e", [], [info("e")])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=taken, else_branch=other)
    return [node("ReduceMax x -> m", keepdims=0), node("Greater m zero -> c"), choice]


def info(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 6, 6])


def built(nodes, functions):
    graph = helper.make_graph(
        nodes, "g", [info("x")], [info("y")], [numpy_helper.from_array(np.float32(0), "zero")]
    )
    return helper.make_model(graph, opset_imports=SETS, ir_version=10, functions=functions)


CASES = {
    "left out": built([node("Leak x -> y", domain="pkg")], [LEAK]),
    "given": built([node("Leak x -> y", domain="pkg", slope=0.7)], [LEAK]),
    "both": built(
        [node("Leak x -> a", domain="pkg"), node("Leak a -> y", domain="pkg", slope=0.7)], [LEAK]
    ),
    "of a constant": built([node("Scale x -> y", domain="pkg")], [SCALE]),
    "in a branch": built(branches("Leak x -> t"), [LEAK]),
    "default handed on": built(
        [node("Outer x -> y", domain="pkg")],
        [function("Outer", [CALL], defaults={"s": 0.6}), LEAK],
    ),
    "nothing handed on": built(
        [node("Outer x -> y", domain="pkg")], [function("Outer", [CALL], attributes=["s"]), LEAK]
    ),
    "inside another": built(
        [node("Outer x -> y", domain="pkg")],
        [function("Outer", [node("Leak x -> y", domain="pkg")]), LEAK],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_written_out_it_computes_the_same(case):
    model = onnxq.load(CASES[case])
    inlined, count = inline_functions(model)
    assert count == len(CASES[case].functions)
    assert not inlined.message.functions
    (wanted,), (got,) = (run(open_session(each), None, X) for each in (CASES[case], inlined))
    assert np.array_equal(got, wanted)


def test_without_defaults_nothing_is_copied():
    model = built(
        [node("Leak x -> y", domain="pkg", slope=0.7)],
        [function("Leak", LEAKY, attributes=["slope"])],
    )
    assert with_defaults_given(model) is model


def test_the_model_itself_is_left_alone():
    before = onnx.ModelProto()
    before.CopyFrom(CASES["nothing handed on"])
    with_defaults_given(CASES["nothing handed on"])
    assert before == CASES["nothing handed on"]
