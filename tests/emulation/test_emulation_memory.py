"""The emulator within a budget: fewer samples at once, the same bytes."""

import numpy as np
import onnxq
import pytest
from onnxq.emulation.emulate import Emulator

from support.builder import Builder

WAYS = [{"batch_size": 1}, {"batch_size": 3}, {"memory": 30_000}, {"memory": 1}]


def network():
    """Convolutions, a shortcut and a float remainder, whose bits depend on the batch."""
    b = Builder(3)
    x = b.clip(b.conv(b.input(3, 9, 9), 8, 3))
    x = b.op("Add", x, b.conv(x, 8, 1))
    return b.model(b.op("Softmax", b.conv(x, 4, 3), axis=1))


def images(count):
    return np.random.default_rng(0).standard_normal((count, 3, 9, 9)).astype(np.float32)


@pytest.fixture(scope="module", params=["gpu", "cpu"])
def int8(request):
    return onnxq.quantize(network(), images(40), target=request.param)[0]


@pytest.fixture
def runs(monkeypatch):
    """Samples of each run of the machine."""
    seen, run = [], Emulator.run_counted

    def watched(machine, feeds):
        seen.append(len(feeds["x"]))
        return run(machine, feeds)

    monkeypatch.setattr(Emulator, "run_counted", watched)
    return seen


def test_outputs_are_the_same_bytes(int8, runs):
    expected = onnxq.emulate(int8, images(21))
    assert sorted(runs) == [5, 8, 8]
    for way in WAYS:
        del runs[:]
        found = onnxq.emulate(int8, images(21), **way)
        assert found.samples == 21
        assert found.overflows == expected.overflows
        for name, values in expected.items():
            assert found[name].tobytes() == values.tobytes(), (way, name)
    assert max(runs) < 8


def test_layers_compare_the_same(int8):
    expected = onnxq.api.compare_layers(int8, images(21))
    for way in WAYS:
        assert onnxq.api.compare_layers(int8, images(21), **way) == expected
