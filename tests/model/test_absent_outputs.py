"""Optional outputs that a node lists as absent, by an empty name, are no tensors."""

import numpy as np
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.emulation.emulate import emulator
from onnxq.model.backward import sized_by_values
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, run
from onnxq.quantization.plan import Quantized

from support.builder import Builder

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((32, 3, 8, 8)).astype(np.float32)}


def pooled(*outputs):
    b = Builder(1, spread=1)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 8, 3, name="first"))
    y = b.op("MaxPool", x, shape=(8, 4, 4), name="pool", kernel_shape=[2, 2], strides=[2, 2])
    y = b.conv(y, 4, 3, name="last")
    b.nodes[2].output[1:] = outputs
    return Model(b.proto(y))


@pytest.mark.parametrize("target", ["cpu", "gpu", "qnn"])
def test_a_pool_without_its_indices_is_quantized_and_runs(target):
    quantized, result = onnxq.quantize(pooled(""), IMAGES, target=target, effort="fast")
    assert target == "gpu" or isinstance(result.plan.nodes["pool"], Quantized)
    wanted = run(open_session(pooled()), None, IMAGES)[0]
    # ONNX Runtime's other layout for the integers of a pool has none for what is absent.
    outputs, _ = emulator(quantized).run(IMAGES)
    for got in (outputs[0], run(open_session(quantized), None, IMAGES)[0]):
        assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


def test_absent_outputs_at_the_end_go_and_those_before_others_stay():
    b = Builder()
    b.input(6)
    weights = [b.const(b.random(1, 12, size)) for size in (6, 4)]
    recurrent = helper.make_node(
        "LSTM", ["at", *[b.const(b.random(1, 16, size)) for size in (6, 4)]], ["", "h", ""],
        name="recurrent", hidden_size=4,
    )  # fmt: skip
    gated = helper.make_node("GRU", ["at", *weights], ["all", ""], name="gated", hidden_size=4)
    b.op("Unsqueeze", "x", b.ints(0), shape=(1, 6), name="at")
    b.nodes += [recurrent, gated]
    proto = b.proto("h", "all")
    model, _ = normalize(Model(proto))
    found = {node.name: node for node in Graph(model).nodes}
    assert found["recurrent"].outputs == ("", "h")
    assert found["recurrent"].results == ("h",)
    assert found["gated"].outputs == ("all",)
    x = {"x": RNG.standard_normal((5, 6)).astype(np.float32)}
    for got, wanted in zip(
        run(open_session(model), None, x), run(open_session(proto), None, x), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_what_lacks_an_input_does_not_read_what_lacks_an_output():
    """A Resize without its region of interest does not depend on a node without its first output,
    nor does what a body leaves out make either of them read by a subgraph.
    """
    node = helper.make_node
    then = helper.make_graph([node("Clip", ["kept", "", "top"], ["low"])], "then", [], [
        helper.make_tensor_value_info("low", TensorProto.FLOAT, None)])  # fmt: skip
    other = helper.make_graph([node("Neg", ["kept"], ["negative"])], "other", [], [
        helper.make_tensor_value_info("negative", TensorProto.FLOAT, None)])  # fmt: skip
    graph = helper.make_graph(
        [
            node("Unique", ["x"], ["", "places"], name="unique"),
            node("Resize", ["x", "", "twice"], ["kept"], name="resize"),
            node("If", ["yes"], ["y"], name="if", then_branch=then, else_branch=other),
        ],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
         helper.make_tensor_value_info("places", TensorProto.INT64, None)],
        [numpy_helper.from_array(np.array(value), name) for name, value in
         (("twice", np.float32([1, 2])), ("top", np.float32(3)), ("yes", True))],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    found = Graph(Model(helper.make_model(graph, opset_imports=opsets, ir_version=8)))
    assert sized_by_values(found) == {"places", "y"}
    assert found.is_exposed("kept")
    assert not found.is_exposed("")
    assert not found.is_read("")
