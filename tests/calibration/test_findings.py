"""Odd tensors are named, with channel and first sample."""

import dataclasses

import numpy as np
from onnxq.api import calibrate
from onnxq.calibration import findings
from onnxq.calibration.findings import find_oddities, too_few_samples
from onnxq.calibration.merge import merge

from equalization.graphs import Builder


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
    relu = kinds(calibrate(model(), values()), "relu")
    assert relu[findings.ZERO].channels == (1,)
    assert kinds(calibrate(model(), values()), "log")[findings.CONSTANT].channels == (1,)


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
    assert "one batch" in too_few_samples(calibrate(model(), values(8)))


def test_halves_do_not_depend_on_shards():
    whole = calibrate(model(), values(100))
    merged = merge([calibrate(model(), values(100), shard=(i, 3)) for i in (2, 1, 3)])
    for name, statistics in whole.tensors.items():
        assert np.array_equal(statistics.halves, merged.tensors[name].halves)
    one = whole.tensors["log"]
    assert one.halves.min() == one.low
    assert one.halves.max() == one.high
    assert dataclasses.replace(one, halves=None).merge(one).halves is None
