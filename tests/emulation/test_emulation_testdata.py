"""The emulator on the shipped networks and images: exact, and beside ONNX Runtime's kernels."""

from pathlib import Path

import numpy as np
import onnxq
import pytest
from onnxq.api import as_source
from onnxq.data.gather import gather
from onnxq.emulation.agreement import SATURATES, agreement
from onnxq.emulation.emulate import emulator
from onnxq.emulation.layers import Accumulation
from onnxq.formats.accumulators import Accumulator

from support.qdq_models import integer_tensors

INT32 = Accumulator(32)

TESTDATA = Path(__file__).parents[2] / "testdata"
IMAGES = TESTDATA / "fashion-mnist"
GRAY = "unit,color=gray,mean=0.5,std=0.5"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[("squeezenet", "cpu"), ("mobilenetv2", "gpu")],
                ids="-".join)  # fmt: skip
def machine(request):
    """Emulator and 8 test images of one network for one target."""
    network, target = request.param
    int8, _ = onnxq.quantize(
        TESTDATA / f"{network}.onnx", IMAGES / "calibration", preprocess=GRAY, target=target,
        equalize=False, samples=64,
    )  # fmt: skip
    source = as_source(IMAGES / "test", int8, preprocess=GRAY)
    return emulator(int8), gather(source, 8)


def test_every_layer_is_proved_to_fit(machine):
    emulated, _ = machine
    sums = [s for s in emulated.plan.values() if isinstance(s, Accumulation)]
    assert len(sums) > 25
    assert all(status.reach.fits(INT32) for status in sums)
    assert emulated.counters == {}


def test_onnx_reference_evaluator_computes_the_same_integers(machine):
    emulated, batches = machine
    for name, (ours, theirs) in integer_tensors(emulated.machine, batches[0]).items():
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_layers_differ_from_onnx_runtime_by_one_step_at_most(machine):
    emulated, batches = machine
    layers = agreement(emulated, batches)
    assert len(layers) > 30
    # What is compared with integer kernels really ran on them.
    requantized = [s.requantization for s in emulated.plan.values() if isinstance(s, Accumulation)]
    assert any("QLinearConv" in layer.kernels for layer in layers) == any(requantized)
    for layer in layers:
        assert layer.largest <= 1 or SATURATES in layer.reason
        assert layer.share < 1e-3 or SATURATES in layer.reason
        assert bool(layer.reason) == bool(layer.differing)
