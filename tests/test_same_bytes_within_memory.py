"""The same bytes, whatever runs at once and whatever memory there is."""

from pathlib import Path

import numpy as np
import pytest
from onnxq import api
from onnxq.calibration import files
from onnxq.data.shelf import Values

from support.builder import Builder

TESTDATA = Path(__file__).parent.parent / "testdata"
PREPROCESS = "unit,color=gray,mean=0.5,std=0.5"
WAYS = [{"batch_size": 1}, {"batch_size": 2}, {"memory": 30_000}, {"memory": 1}]


def tiny():
    """Convolutions, a branch, an attention and a product of matrices, on maps of any size."""
    b = Builder(3)
    x = b.clip(b.conv(b.input(3, 9, 9), 8, 3))
    x = b.op("Add", x, b.conv(x, 8, 1))
    rows = b.op("Reshape", x, b.ints(0, 8, -1), shape=(8, 81))
    across = b.op("Transpose", rows, perm=[0, 2, 1], shape=(81, 8))
    scores = b.op("Softmax", b.op("MatMul", rows, across, shape=(8, 8)), axis=-1)
    mixed = b.op("MatMul", scores, rows, shape=(8, 81))
    return b.model(b.op("MatMul", mixed, b.const(b.random(81, 5)), shape=(8, 5)))


def made(model, data, target="gpu", **way):
    calibration = api.calibrate(model, data, **way)
    quantized, _ = api.quantize(model, data, target=target, **way)
    proto = quantized.proto.SerializeToString(deterministic=True)
    return files.to_bytes(calibration), proto


@pytest.fixture
def filed(monkeypatch):
    """The number of arrays that went to a file."""
    written = []
    write = Values._write

    def counted(self, offset, array):
        written.append(array.nbytes)
        write(self, offset, array)

    monkeypatch.setattr(Values, "_write", counted)
    return written


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_of_a_tiny_model(target, filed):
    data = np.random.default_rng(0).standard_normal((70, 3, 9, 9)).astype(np.float32)
    expected = made(tiny(), data, target)
    assert not filed
    for way in WAYS:
        assert made(tiny(), data, target, **way) == expected, way
    assert filed


@pytest.mark.parametrize("name", ["encoder", "mobilenetv2"])
def test_of_a_trained_model(name):
    model = api.load(TESTDATA / f"{name}.onnx")
    folder = TESTDATA / "fashion-mnist" / "calibration"
    data = api.as_source(folder, model, preprocess=PREPROCESS, samples=24)
    expected = made(model, data)
    for way in ({"batch_size": 1}, {"memory": 30_000}):
        assert made(model, data, **way) == expected, way


def test_of_a_narrowed_remainder():
    data = np.random.default_rng(0).standard_normal((12, 3, 9, 9)).astype(np.float32)
    expected, *others = (
        api.quantize(tiny(), data, rest="fp16", **way)[0].proto.SerializeToString(
            deterministic=True
        )
        for way in ({}, *WAYS)
    )
    assert all(other == expected for other in others)


def test_equalized_with_real_scales():
    data = np.random.default_rng(0).standard_normal((20, 3, 9, 9)).astype(np.float32)
    results = [api.equalize(tiny(), data=data, scales="real", **way) for way in ({}, *WAYS)]
    assert len({str(record.change) for _, record in results}) == 1
    assert len({model.proto.SerializeToString(deterministic=True) for model, _ in results}) == 1
