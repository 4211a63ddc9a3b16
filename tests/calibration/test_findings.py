"""Odd tensors are named, with channel and first sample."""

import dataclasses

import numpy as np
from onnxq.api import calibrate
from onnxq.calibration import findings
from onnxq.calibration.findings import find_oddities, too_few_samples
from onnxq.calibration.merge import merge

from support.builder import Builder


def model():
    b = Builder()
    x = b.input(4, 2)
    log = b.op("Log", x, name="log")
    return b.model(b.op("Relu", log, name="relu"), log)


def values(count=64):
    x = np.exp(np.random.default_rng(0).uniform(-1, 1, (count, 4, 2))).astype(np.float32)
    x[:, 1] = 0.5  # log < 0: dead behind the Relu, constant before it
    return x


def kinds(calibration, tensor):
    return {each.kind: each for each in find_oddities(calibration) if each.tensor == tensor}


def test_dead_and_constant_channels_are_named():
    b = Builder()
    x = b.input(3, 4, 4)
    weight = b.random(4, 3, 1, 1)
    weight[1:3] = 0
    bias = b.const(np.array([0, -1, 0.5, 0], np.float32))
    conv = b.op("Conv", x, b.const(weight), bias, shape=(4, 4, 4), name="conv", kernel_shape=[1, 1])
    relu = b.op("Relu", conv, name="relu")
    proto = b.model(b.conv(relu, 2), conv)
    x = np.random.default_rng(0).standard_normal((20, 3, 4, 4)).astype(np.float32)
    calibration = calibrate(proto, x)
    found = kinds(calibration, "relu")
    assert found[findings.ZERO].channels == (1,)
    assert "1 of 4 channels always zero in every sample: 1" in found[findings.ZERO].text
    assert found[findings.CONSTANT].channels == (2,)
    assert kinds(calibration, "conv")[findings.CONSTANT].channels == (1, 2)
    assert findings.ZERO not in kinds(calibration, "conv")
    assert not kinds(calibration, "x")


def test_the_first_value_that_is_not_finite_is_named_whatever_the_shards():
    x = values()
    x[40, 2, 1] = -1
    x[19, 3, 0] = 0
    x[41, 0, 0] = 0
    whole = calibrate(model(), x, allow_nonfinite=True)
    finding = kinds(whole, "log")[findings.NOT_FINITE]
    assert "3 values are NaN or Inf" in finding.text
    assert "Inf in channel" in finding.text
    assert finding.text.endswith("of sample <memory>[19]")
    parts = [calibrate(model(), x, allow_nonfinite=True, shard=(i, 3)) for i in (1, 2, 3)]
    merged = merge(parts[::-1])
    assert merged.tensors["log"].first_not_finite == whole.tensors["log"].first_not_finite


def test_too_few_samples_are_said():
    wild = values(32)
    wild[3] *= 1e6
    assert "take more samples" in too_few_samples(calibrate(model(), wild))
    assert findings.UNSTABLE in kinds(calibrate(model(), wild), "log")
    assert too_few_samples(calibrate(model(), values(800))) == ""
    assert too_few_samples(calibrate(model(), values(1))).startswith("too few samples to tell")


def test_halves_do_not_depend_on_shards():
    whole = calibrate(model(), values(100))
    merged = merge([calibrate(model(), values(100), shard=(i, 3)) for i in (2, 1, 3)])
    for name, statistics in whole.tensors.items():
        assert np.array_equal(statistics.halves, merged.tensors[name].halves)
    one = whole.tensors["log"]
    assert one.halves.min() == one.low
    assert one.halves.max() == one.high
    assert dataclasses.replace(one, halves=None).merge(one).halves is None
