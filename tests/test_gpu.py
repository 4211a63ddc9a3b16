"""On a GPU: the CUDA provider computes what the emulator says. `scripts/gpu_check.sh` runs these."""

import numpy as np
import onnxq
import pytest
from onnx import parser
from onnxq.api import compare_layers
from onnxq.errors import OnnxqError, ProviderError
from onnxq.model.model import Model
from onnxq.model.session import open_session, require_cuda

from support.testdata import TESTDATA, images


def missing() -> str:
    try:
        require_cuda()
    except ProviderError as error:
        return error.message
    return ""


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(missing()), reason=f"needs an NVIDIA GPU: {missing()}"),
]


@pytest.fixture(scope="module")
def float_model():
    return onnxq.load(TESTDATA / "mobilenetv2.onnx")


@pytest.fixture(scope="module")
def int8(float_model):
    return onnxq.quantize(float_model, images("calibration", 8), rounding="nearest")[0]


def test_calibration_on_the_gpu_is_that_on_the_cpu(float_model):
    data = images("calibration", 16)
    ours, theirs = (onnxq.calibrate(float_model, data, provider=p) for p in ("cpu", "cuda"))
    for name, tensor in ours.tensors.items():
        other = theirs.tensors[name]
        assert np.isclose(tensor.low, other.low, rtol=1e-3, atol=1e-3 * abs(tensor.high))
        assert np.isclose(tensor.high, other.high, rtol=1e-3)


def test_a_model_quantized_over_the_gpu_is_as_close(float_model):
    data, test = images("calibration", 64), images("test", 64, labelled=True)
    ours, theirs = (onnxq.quantize(float_model, data, provider=p)[0] for p in ("cpu", "cuda"))
    _, one, other = onnxq.validate(float_model, [ours, theirs], test).rows
    assert other.values["sqnr"] == pytest.approx(one.values["sqnr"], abs=0.5)


def test_outputs_agree_with_the_emulator(float_model, int8):
    rows = onnxq.validate(
        float_model, int8, images("test", 8, labelled=True), executions=["emulate", "cuda"]
    ).rows
    emulated, computed = rows[-2:]
    assert computed.values["sqnr"] == pytest.approx(emulated.values["sqnr"], abs=1.0)
    assert computed.values["top1"] == pytest.approx(emulated.values["top1"], abs=1.0)


def test_layers_agree_with_the_emulator(int8):
    layers = compare_layers(int8, images("test", 100), provider="cuda")
    assert max(each.largest for each in layers) <= 1
    assert sum(each.differing for each in layers) <= 1e-3 * sum(each.values for each in layers)


def test_nothing_runs_on_the_cpu_instead(float_model):
    """A string operator has no CUDA kernel: refused, not run elsewhere."""
    text = """<ir_version: 8, opset_import: ["": 20]>
    g (string[n] x) => (string[n] y) { y = StringConcat(x, x) }"""
    with pytest.raises(OnnxqError):
        open_session(Model(parser.parse_model(text), None), provider="cuda")
