"""Models quantized for their targets, run where they are meant to run.

`make runtimes` has an environment with the runtimes; without them these tests are skipped.
"""

import dataclasses

import numpy as np
import onnxq
import pytest
from onnxq.model.model import Model

from support.builder import Builder
from support.testdata import TESTDATA, images

CLOSE = {"openvino": 1.0, "qnn": 4.0, "web": 1.0}
"""dB of SQNR that a runtime may lose against the emulator; QNN's simulator rounds by rules of its
own in places."""

NAMES = ("squeezenet", "mobilenetv2", "encoder", "detector")
SHAPES = dict.fromkeys(NAMES, (1, 28, 28)) | {"detector": (3, 32, 32)}
SAMPLES = 48


def detector() -> Model:
    """Boxes beside scores from two scales, joined at the end, as detectors have them."""
    b = Builder(3, spread=1)
    x, channels, side = b.op("Relu", b.conv(b.input(3, 32, 32), 16, 3, name="stem")), 16, 32
    heads = []
    for scale in range(2):
        y = b.op("Relu", b.conv(x, 16, 3, name=f"branch{scale}"))
        channels, side = channels + 16, side // 2
        x = b.op("Concat", x, y, axis=1, shape=(channels, 2 * side, 2 * side))
        shape = (channels, side, side)
        x = b.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], shape=shape)
        head = b.conv(x, 6, name=f"head{scale}")
        heads.append(b.op("Reshape", head, b.ints(0, 6, side * side), shape=(6, side * side)))
    return b.model(b.op("Concat", *heads, axis=2, shape=(6, 5 * side * side)))


@dataclasses.dataclass(frozen=True)
class Made:
    model: Model
    quantized: Model
    data: dict


@pytest.fixture(scope="session")
def made():
    """(name, target, scheme) → the float model, the quantized one and samples of its own."""
    known = {}

    def make(name, target, scheme="w8a8"):
        if (name, target, scheme) not in known:
            known[name, target, scheme] = _make(name, target, scheme)
        return known[name, target, scheme]

    return make


def _make(name, target, scheme):
    if name == "detector":
        model = detector()
        rng = np.random.default_rng(0)
        calibration, test = (
            {model.inputs[0].name: rng.standard_normal((n, 3, 32, 32), np.float32)}
            for n in (64, SAMPLES)
        )
    else:
        model = onnxq.load(TESTDATA / f"{name}.onnx")
        # On 50 images two ways to round a few values differ by 1 dB, on 200 by 0.4.
        calibration, test = images("calibration", 16), images("test", 10)
    shape = "x".join(map(str, (1, *SHAPES[name])))
    quantized, _ = onnxq.quantize(
        model, calibration, target=target, scheme=scheme, input_shapes=[shape], rounding="nearest"
    )
    return Made(model, quantized, test)
