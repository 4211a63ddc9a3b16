"""Quantized values that the body of an If reads."""

import numpy as np
import onnxq
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxq.model.status import Quantized

from support.builder import Builder

X = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
MOVES = {
    "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2], "shape": (8, 4, 4)},
    "Transpose": {"perm": [0, 1, 3, 2], "shape": (8, 8, 8)},
    "Reshape": {"to": (0, 64, 8), "shape": (64, 8)},
    "Unsqueeze": {"to": (1,), "shape": (1, 8, 8, 8)},
    "Relu": {"shape": (8, 8, 8)},
}


def chooser(*moves):
    """A convolution, operators that move its values, and an If whose bodies read the last."""
    b = Builder(1, spread=0)
    x = b.input(3, 8, 8)
    y = b.conv(x, 8, 3, name="conv")
    for number, op in enumerate(moves):
        how = dict(MOVES[op])
        more = [b.ints(*how.pop("to"))] if "to" in how else []
        y = b.op(op, y, *more, name=f"move{number}", **how)
    body = [
        helper.make_graph(
            [helper.make_node(op, [y], ["chosen"])], op, [],
            [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
        )
        for op in ("Identity", "Neg")
    ]  # fmt: skip
    most = b.op("ReduceMax", x, keepdims=0, shape=())
    chosen = b.op("If", b.op("Greater", most, b.const(0.0), shape=()), name="if",
                  then_branch=body[0], else_branch=body[1], shape=b.shapes[y])  # fmt: skip
    return b.model(b.op("Neg", chosen, shape=b.shapes[y]))


def run(model):
    """As it runs by default."""
    session = ort.InferenceSession(model.proto.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: X})[0]


def quantized_names(model, target, **options):
    """The nodes that are quantized, of a model that ONNX Runtime runs."""
    quantized, result = onnxq.quantize(model, X, target=target, effort="fast", **options)
    found, wanted = run(quantized), run(model)
    # Integer sums saturate on CPUs without VNNI.
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9
    return {name for name, each in result.plan.nodes.items() if isinstance(each, Quantized)}


@pytest.mark.parametrize("moves", [[op] for op in MOVES] + [["Transpose", "Reshape"], []], ids=str)
@pytest.mark.parametrize("target", ["cpu", "web", "qnn", "gpu"])
def test_the_model_runs(target, moves):
    """ONNX Runtime 1.32 ended the process where it moved a DequantizeLinear towards the If."""
    assert "conv" in quantized_names(chooser(*moves), target)


@pytest.mark.parametrize("moves", [["MaxPool"], ["Transpose", "Reshape"]], ids=str)
def test_it_runs_where_they_are_kept_in_float(moves):
    assert quantized_names(chooser(*moves), "cpu", exclude=["move.*"]) == {"conv"}
