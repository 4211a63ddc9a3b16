"""Models of signed activations run in ONNX Runtime's optimized sessions."""

import numpy as np
import pytest
from onnxq import api
from onnxq.model.files import save

from support.builder import Builder
from support.running import outputs


@pytest.mark.parametrize("target", ["gpu", "cpu"])
@pytest.mark.parametrize("opset", [20, 21, 23])
def test_linear_layers_of_a_fixed_size_run_optimized_too(target, opset, tmp_path):
    """From opset 21 on ONNX Runtime refuses what it makes itself of signed activations there."""
    b = Builder(opset=opset, batch=1, spread=0)
    x = b.op("Relu", b.input(6, 16), name="x0")
    for out in (32, 16):
        x = b.op("Relu", b.op("Add", b.matmul(x, out), b.const(b.random(out))), name=f"y{out}")
    model = b.model(b.op("Add", b.matmul(x, 8), b.const(b.random(8))))
    data = b.rng.standard_normal((24, 6, 16)).astype(np.float32)
    quantized, _ = api.quantize(model, data, target=target)
    save(quantized, tmp_path / "q.onnx")
    (found,) = outputs(tmp_path / "q.onnx", {"x": data[:1]}, optimize=True)
    (wanted,) = outputs(model, {"x": data[:1]}, optimize=True)
    assert np.square(found - wanted).mean() < 0.01 * np.square(wanted).mean()
