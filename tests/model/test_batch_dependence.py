"""What runs in parts of a batch has the bits of the whole batch: each row that says so, proved.

Sides are odd, so that samples begin at every alignment.
"""

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import OPERATORS, depends_on_batch
from onnxq.model.session import open_session, run

RNG = np.random.default_rng(0)
SAMPLES = 8
MAP = (5, 13, 11)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


CASES = {
    "Conv": [((5, 13, 11), (floats(7, 5, 3, 3), floats(7)), {}),
             ((16, 14, 14), (floats(32, 16, 3, 3), floats(32)), {"pads": [1] * 4}),
             ((6, 9, 9), (floats(6, 1, 3, 3),), {"group": 6}),
             ((64, 30), (floats(32, 64, 3),), {}),
             ((4, 5, 7, 7), (floats(3, 4, 3, 3, 3),), {})],
    "Gemm": [((17,), (floats(17, 3), floats(3)), {}), ((255,), (floats(10, 255),), {"transB": 1})],
    "MatMul": [((17,), (floats(17, 3),), {}), ((5, 33), (floats(33, 10),), {}),
               ((1, 300), (floats(300, 65),), {})],
    "BatchNormalization": [(MAP, (positive(5), floats(5), floats(5), positive(5)), {})],
    "InstanceNormalization": [(MAP, (positive(5), floats(5)), {})],
    "LayerNormalization": [((7, 33), (positive(33), floats(33)), {})],
    "PRelu": [(MAP, (floats(5, 1, 1),), {})],
    "Clip": [(MAP, (np.float32(-0.5), np.float32(0.7)), {})],
    "Softmax": [((7, 33), (), {"axis": -1}), (MAP, (), {"axis": 1})],
    "Where": [(MAP, (), {})],
    "MaxPool": [(MAP, (), {"kernel_shape": [3, 3]})],
    "AveragePool": [(MAP, (), {"kernel_shape": [3, 3], "pads": [1] * 4})],
    "Pad": [(MAP, (ints(0, 0, 1, 1, 0, 0, 2, 2),), {})],
    "Resize": [(MAP, ("", np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"})],
    "Concat": [(MAP, ("x",), {"axis": 1})],
    "Split": [((6, 5), (ints(2, 4),), {"axis": 1})],
    "Slice": [(MAP, (ints(1), ints(4), ints(2)), {})],
    "Gather": [(MAP, (ints(3, 0),), {"axis": 1})],
    "Reshape": [(MAP, (ints(0, -1),), {})],
    "Transpose": [(MAP, (), {"perm": [0, 2, 1, 3]})],
    "Squeeze": [((1, 5), (ints(1),), {})],
    "Unsqueeze": [((5,), (ints(1),), {})],
    "Expand": [((1, 5), (ints(1, 3, 1),), {})],
    "DepthToSpace": [((8, 3, 3), (), {"blocksize": 2})],
    "SpaceToDepth": [((2, 6, 6), (), {"blocksize": 2})],
    **{name: [(MAP, (floats(5, 1, 1),), {})] for name in
       ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean")},
    **{name: [(MAP, (), {"axes": [2], "keepdims": 1})] for name in ("ReduceMax", "ReduceMin")},
}  # fmt: skip
PLAIN = [(MAP, (), {})]
ROWS = [
    row.op_type for row in OPERATORS.values()
    if not row.batch_dependent and row.op_type not in {"ArgMax", "ArgMin", "Shape", "Size"}
]  # fmt: skip


def one_node(op_type, shape, constants, attributes, through=()):
    """A model of one node; `through` names constants that are computed by other nodes."""
    nodes, weights, inputs = [], [], ["x"]
    for number, value in enumerate(constants):
        name = value if isinstance(value, str) else f"c{number}"
        inputs.append(f"{name}.made" if number in through else name)
        if not isinstance(value, str):
            weights.append(numpy_helper.from_array(np.asarray(value), name))
        if number in through:
            nodes.append(helper.make_node("Abs", [name], [f"{name}.made"], name="made"))
    if op_type == "Where":
        weights.append(numpy_helper.from_array(RNG.random((1, *shape)) > 0.5, "mask"))
        inputs = ["mask", "x", "x"]
    if op_type in {"ReduceMax", "ReduceMin"}:
        weights.append(numpy_helper.from_array(ints(*attributes["axes"]), "axes"))
        inputs, attributes = ["x", "axes"], {"keepdims": 1}
    outputs = ["y", "z"] if op_type == "Split" else ["y"]
    nodes.append(helper.make_node(op_type, inputs, outputs, name="node", **attributes))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["n", *shape])],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs], weights,
    )  # fmt: skip
    opset = helper.make_opsetid("", 20)
    return infer_shapes(Model(helper.make_model(graph, opset_imports=[opset], ir_version=9)))


def parts_agree(model, shape, size):
    """Whether both optimization levels give a batch in parts what they give it whole."""
    x = floats(SAMPLES, *shape)
    for optimize in (True, False):
        session = open_session(model, optimize=optimize, threads=1)
        whole = run(session, None, {"x": x})
        parts = [run(session, None, {"x": x[at : at + size]}) for at in range(0, SAMPLES, size)]
        for index, value in enumerate(whole):
            joined = np.concatenate([part[index] for part in parts])
            if joined.tobytes() != value.tobytes():
                return False
    return True


@pytest.mark.parametrize("op_type", ROWS)
def test_parts_have_the_bits_of_the_whole(op_type):
    for shape, constants, attributes in CASES.get(op_type, PLAIN):
        model = one_node(op_type, shape, constants, attributes)
        graph = Graph(model)
        assert not depends_on_batch(graph, graph.by_name["node"])
        for size in (1, 2, 3, 4):
            assert parts_agree(model, shape, size), (shape, size)


def test_operators_without_a_row_are_not_trusted():
    graph = Graph(one_node("Softplus", MAP, (), {}))
    assert depends_on_batch(graph, graph.by_name["node"])
    graph = Graph(one_node("Shape", MAP, (), {}))
    assert not depends_on_batch(graph, graph.by_name["node"])


def test_a_scalar_holds_no_samples():
    """Ranges of floats, which have no row, in a detector: the places of its anchors."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[n, 3] x, float side) => (float[n, 3] y)
    <float zero = {0}, float one = {1}, float two = {2}>
    {
        [range] places = Range (zero, side, one)
        [root] half = Pow (side, two)
        [power] p = Pow (x, two)
        y = Add (p, half)
    }"""
    graph = Graph(infer_shapes(Model(parser.parse_model(text))))
    found = {node.name: depends_on_batch(graph, node) for node in graph.nodes[:3]}
    assert found == {"range": False, "root": False, "power": True}


def test_a_cast_is_one_of_each_element():
    graph = Graph(one_node("Cast", MAP, (), {"to": 11}))
    assert not depends_on_batch(graph, graph.by_name["node"])


def test_a_computed_matrix_is_not_packed_in_advance():
    graph = Graph(one_node("MatMul", (17,), (floats(17, 3),), {}, through=(0,)))
    assert depends_on_batch(graph, graph.by_name["node"])
    assert depends_on_batch(graph, graph.by_name["node"]) == (
        not parts_agree(graph.model, (17,), 1)
    )


def test_a_stack_of_matrices_has_one_for_each_sample():
    turned = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1], name="turn")
    product = helper.make_node("MatMul", ["x", "t"], ["y"], name="node")
    graph = helper.make_graph(
        [turned, product], "g", [helper.make_tensor_value_info("x", 1, ["n", 17, 5])],
        [helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    opset = helper.make_opsetid("", 17)
    model = infer_shapes(Model(helper.make_model(graph, opset_imports=[opset], ir_version=8)))
    assert not depends_on_batch(Graph(model), Graph(model).by_name["node"])
    assert all(parts_agree(model, (17, 5), size) for size in (1, 2, 4))
