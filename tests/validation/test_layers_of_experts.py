"""`--layers` and `--mixed` where values decide how many rows a layer sees."""

import numpy as np
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq import api
from onnxq.model.model import Model
from onnxq.validation.layers import measure_layers

RNG = np.random.default_rng(23)
ROWS = RNG.standard_normal((64, 6, 16)).astype(np.float32)


def routed():
    """Two experts; a router of MatMul and ArgMax, which qnn computes on integers, names the one."""
    lines = [
        ("Reshape x rows -> tokens", {}), ("MatMul tokens router -> scores", {}),
        ("ArgMax scores -> chosen", {"axis": -1, "keepdims": 0}),
        ("Shape tokens -> size", {}), ("ConstantOfShape size -> seen0", {}),
    ]  # fmt: skip
    for i in range(2):
        lines += [
            (f"Equal chosen number{i} -> is{i}", {}), (f"NonZero is{i} -> found{i}", {}),
            (f"Transpose found{i} -> places{i}", {}), (f"GatherND tokens places{i} -> some{i}", {}),
            (f"MatMul some{i} up{i} -> up_{i}", {}), (f"Relu up_{i} -> high{i}", {}),
            (f"MatMul high{i} down{i} -> low{i}", {}),
            (f"ScatterND seen{i} places{i} low{i} -> seen{i + 1}", {}),
        ]  # fmt: skip
    lines += [("Shape x -> shape", {}), ("Reshape seen2 shape -> y", {})]
    nodes = []
    for line, attributes in lines:
        (op_type, *inputs), output = line.split(" -> ")[0].split(), line.split(" -> ")[1]
        nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
    weights = {"rows": np.array([-1, 16]), "router": normal(16, 2)}
    for i in range(2):
        weights |= {f"number{i}": np.int64(i), f"up{i}": normal(16, 32), f"down{i}": normal(32, 16)}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["N", 6, 16])],
        [info("y", TensorProto.FLOAT, ["N", 6, 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    opset = helper.make_opsetid("", 17)
    return Model(helper.make_model(graph, opset_imports=[opset], ir_version=8))


def normal(*shape):
    return (RNG.standard_normal(shape) * np.sqrt(2 / shape[0])).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return routed()


def test_layers_with_a_router_in_them_are_fed_nothing_that_it_chose(model):
    int8, _ = onnxq.quantize(model, ROWS, target="qnn")
    report = measure_layers(model, int8, api.as_source(ROWS, model))
    assert {each.name: each.reason for each in report.unmatched} == {
        f"up_{i}": f"'high{i}' has another size for other values; it counts within 'low{i}'"
        for i in range(2)
    }
    shares = {layer.name: layer.share for layer in report.layers}
    assert shares["low0"] > 1 < shares["low1"]


def test_layers_that_round_nothing_for_the_router_are_all_told_apart(model):
    int8, _ = onnxq.quantize(model, ROWS, target="cpu")
    report = measure_layers(model, int8, api.as_source(ROWS, model))
    assert report.unmatched == ()
    assert {"up_0", "up_1", "low0", "low1"} <= {layer.name for layer in report.layers}


def test_the_costliest_layers_of_experts_are_found(model):
    _, record = onnxq.quantize(model, ROWS, target="qnn", mixed="10%")
    assert record.quantized_sqnr > 10
