"""A piece cut out of a model computes what it does within it."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import open_session, run, with_outputs
from onnxq.model.subgraph import names_read, subgraph_model

from support.builder import Builder


def network():
    b = Builder(2)
    x = b.op("Relu", b.conv(b.input(3, 5, 5), 4, 3, name="first"), name="relu")
    return b.model(b.conv(b.op("Add", x, x, name="sum"), 2, name="last"))


def test_it_computes_what_the_whole_model_does():
    model = network()
    graph = Graph(model)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)}
    inner, wanted = run(open_session(with_outputs(model, ["relu", "last"]), optimize=False), ["relu", "last"], feeds)  # fmt: skip
    nodes = [graph.by_name[name] for name in ("sum", "last")]
    part = subgraph_model(graph, nodes, {"relu": (TensorProto.FLOAT, [None, 4, 5, 5])}, ["last"])
    (got,) = run(open_session(Model(part), optimize=False), ["last"], {"relu": inner})
    assert np.array_equal(got, wanted)


def test_only_what_it_reads_goes_with_it():
    graph = Graph(network())
    node = graph.by_name["last"]
    part = subgraph_model(graph, [node], {"sum": (TensorProto.FLOAT, [1, 4, None, 5])}, ["last"])
    assert {tensor.name for tensor in part.graph.initializer} == {*node.inputs[1:]}
    shape = part.graph.input[0].type.tensor_type.shape
    assert [d.dim_value or None for d in shape.dim] == [1, 4, None, 5]
    assert part.opset_import == graph.model.proto.opset_import


def test_a_weight_may_be_fed_instead():
    graph = Graph(network())
    node = graph.by_name["last"]
    weight = np.zeros((2, 4, 1, 1), np.float32)
    inputs = {
        "sum": (TensorProto.FLOAT, [None, 4, 5, 5]),
        node.inputs[1]: (TensorProto.FLOAT, weight.shape),
    }
    part = subgraph_model(graph, [node], inputs, ["last"])
    assert [tensor.name for tensor in part.graph.initializer] == [node.inputs[2]]
    feeds = {"sum": np.ones((1, 4, 5, 5), np.float32), node.inputs[1]: weight}
    (got,) = run(open_session(Model(part)), None, feeds)
    bias = graph.constant(node.inputs[2])
    assert np.array_equal(got, np.broadcast_to(bias[:, None, None], (1, 2, 5, 5)))


def test_bodies_are_read_too():
    def branch(name):
        return helper.make_graph(
            [helper.make_node("Neg", [name], ["out"])], name, [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        )  # fmt: skip

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"))
    graph = onnx.helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    found = Graph(Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])))
    assert {"a", "b", "c"} <= names_read(found, found.nodes[0])
