"""What a quantization may cost: the rows of `--effort`, and what follows from them."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import onnxq
import pytest
from onnxq.api import as_source, calibrate
from onnxq.options.effort import EFFORTS, USUAL
from onnxq.quantization.samples import take_samples

from support.builder import Builder
from support.testdata import uneven

DATA = {"x": np.random.default_rng(0).standard_normal((80, 3, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("name", [each.name for each in fields(USUAL) if each.name != "meaning"])
def test_more_effort_is_never_less_of_anything(name):
    for less, more in pairwise(EFFORTS.values()):
        assert getattr(less, name) <= getattr(more, name)


def test_no_two_rows_are_the_same():
    assert len({replace(each, meaning="") for each in EFFORTS.values()}) == len(EFFORTS)


@pytest.mark.parametrize(("name", "settle"), [("fast", 64), ("default", 128), ("best", 512)])
def test_so_many_samples_settle_layers(name, settle):
    b = Builder()
    model = b.model(b.op("Relu", b.conv(b.input(1, 9, 9), 3)))
    data = as_source({"x": np.zeros((600, 1, 9, 9), np.float32)}, model)
    found = take_samples(
        data, calibrate(model, data), hold_out=0, unseen=False, effort=EFFORTS[name]
    )
    # The widest effort wants more positions than so many samples have.
    assert sum(len(each["x"]) for each in found.correction) == max(
        settle, min(600, -(-EFFORTS[name].positions // 81))
    )


@pytest.mark.parametrize("effort", EFFORTS)
def test_only_what_is_not_fast_is_tried(effort):
    _, result = onnxq.quantize(uneven(), data=DATA, target="gpu", effort=effort, speed=False)
    trials = result.prepared.trials
    assert bool(trials) == bool(EFFORTS[effort].trials)
    # Few samples, or many: the model is as good as it can be, about.
    assert result.quantized_sqnr > 25
