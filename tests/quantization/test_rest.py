"""The float remainder in float16: where the values leave room, and where it is of no use."""

import numpy as np
import pytest
from onnx import TensorProto
from onnxq.api import calibrate
from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.model.session import open_session, run
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.quantization.rest import narrow_rest, require_float_biases
from onnxq.targets.read import target_named

from support.builder import Builder

GPU = target_named("gpu")
DATA = {"x": np.random.default_rng(0).standard_normal((16, 3, 4, 4)).astype(np.float32)}


def narrowed(scale, batches=(DATA,)):
    """A quantized convolution, and behind it a float product with this number."""
    b = Builder(spread=0)
    x = b.op("Softplus", b.conv(b.input(3, 4, 4), 4, name="conv"), name="soft")
    x = b.op("Mul", b.op("Mul", x, x, name="square"), b.const(np.float32(scale)), name="scaled")
    model = b.model(b.op("Sqrt", x, name="root"))
    calibration = calibrate(model, DATA)
    options = QuantizationOptions(half=True)
    plan = plan_quantization(Graph(model), calibration, GPU, options)
    quantized = insert(model, plan, float_biases=True)
    return quantized, *narrow_rest(quantized, calibration, batches)


def kinds(model):
    graph = Graph(model)
    return {node.name: graph.elem_type(node.output) for node in graph.nodes}


@pytest.mark.parametrize("batches", [(DATA,), ()])
def test_what_leaves_room_is_float16(batches):
    if not batches:
        batches = ({"x": DATA["x"][:1]},)
    quantized, half, record = narrowed(1.0, batches)
    assert record.nodes > 0
    assert kinds(half)["square"] == TensorProto.FLOAT16
    assert [spec.dtype for spec in half.outputs] == [np.float32]
    before, after = (run(open_session(m), None, DATA)[0] for m in (quantized, half))
    np.testing.assert_allclose(after, before, rtol=5e-3)


def test_what_becomes_too_large_stays_float32():
    _, half, record = narrowed(1e6)
    assert kinds(half)["scaled"] == TensorProto.FLOAT
    assert "scaled" in {each.node for each in record.kept}


def test_integer_biases_need_float32():
    require_float_biases(GPU, GPU.scheme("w8a8"))
    cpu = target_named("cpu")
    with pytest.raises(UsageError, match="--rest fp16 is no use for target cpu: its biases are int32") as caught:  # fmt: skip
        require_float_biases(cpu, cpu.scheme("w8a8"))
    assert caught.value.hint == "use --target gpu"
    require_float_biases(cpu, cpu.scheme("w8"))
