"""Scales of what matrices multiply, by the error that is measured at their outputs."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxq.calibration.stream import observe
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.budget import WHOLE
from onnxq.data.masks import USUAL as MASK
from onnxq.data.open import open_data
from onnxq.data.tokens import Tokens
from onnxq.equalization.choose import EqualizationOptions, choose
from onnxq.equalization.equalize import carry_out
from onnxq.equalization.measured import Job, _candidates, _jobs, _measure, _rows, measured
from onnxq.equalization.observed import tensors_to_observe
from onnxq.formats.scheme import REFERENCE
from onnxq.model.graph import Graph

from support.builder import Builder
from support.random_graphs import random_feeds
from support.running import same_outputs

WIDTH = 32
OPTIONS = EqualizationOptions(per_channel=True, factors_worth=0.0)


def two_readers():
    """An input that two matrices and a residual read: its scales are free in front of them only."""
    b = Builder(3, spread=0)
    x = b.input(16, WIDTH)
    weights = [b.random(WIDTH, WIDTH, scale=WIDTH**-0.5) for _ in range(2)]
    one, other = (b.op("MatMul", x, b.const(w), shape=(16, WIDTH)) for w in weights)
    return b.model(b.op("Add", b.op("Add", x, one), other))


def samples():
    """Channels of many sizes, four of which are far larger at the first position."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((32, 16, WIDTH)) * np.exp2(generator.uniform(-3, 3, WIDTH))
    values[:, 0, :4] *= 64
    return {"x": values.astype(np.float32)}


def chosen(model, feeds, options=OPTIONS):
    data = open_data(feeds, model.inputs)
    names = tensors_to_observe(Graph(model))
    calibration = observe(model, data, names, fingerprint="x", allow_nonfinite=True)
    return choose(model, calibration, options)


def errors(choice, feeds):
    """At the outputs of what reads each job's tensor, as the choice scales it."""
    found = {}
    scheme = choice.options.scheme
    jobs = _jobs(choice)
    rows = _rows(choice.original, jobs, feeds, WHOLE)
    for job in jobs:
        measure = _measure(job, rows[job.tensor], scheme.activation, scheme.weight, share=1.0)
        now = (choice.solution.exponents - choice.solution.start)[job.variables]
        found[job.tensor] = measure(now)
    return found


def test_measured_scales_are_never_worse_than_solved_ones_where_they_are_measured():
    choice, feeds = chosen(two_readers(), samples()), [samples()]
    before = errors(choice, feeds)
    after = errors(measured(choice, feeds), feeds)
    assert list(before) == ["x"]
    assert after["x"] <= before["x"]


def test_candidates_alone_find_what_large_channels_cost():
    choice, feeds = chosen(two_readers(), samples()), [samples()]
    start = choice.solution.start
    hardly = start + (np.arange(len(start)) == 1)
    unsolved = replace(choice, solution=replace(choice.solution, exponents=hardly))
    before, found = errors(unsolved, feeds), measured(unsolved, feeds)
    assert errors(found, feeds)["x"] < before["x"] / 6
    change = (found.solution.exponents - start)[1:]
    assert change.min() <= -4


def test_the_float_outputs_keep_their_bits():
    model = two_readers()
    feeds = samples()
    scaled, record = carry_out(measured(chosen(model, feeds), [feeds]), [feeds])
    assert record.proof.identical
    assert record.changed
    assert same_outputs(model, scaled, feeds, optimize=True)


def test_padding_is_not_among_what_is_measured():
    b = Builder(3, spread=0)
    x = b.input(16, WIDTH)
    b.inputs.append(helper.make_tensor_value_info(MASK, TensorProto.INT64, ["N", 16]))
    real = b.op("Cast", MASK, to=TensorProto.FLOAT, shape=(16,))
    read = b.op("MatMul", x, b.const(b.random(WIDTH, 4)), shape=(16, 4))
    column = b.op("Unsqueeze", real, b.ints(2), shape=(16, 1))
    model = b.model(b.op("Add", b.op("Mul", read, column), b.op("ReduceMean", x, axes=[2])))
    mask = np.ones((4, 16), np.int64)
    mask[:, 5:] = 0
    values = np.where(mask[:, :, None] > 0, 1.0, 1000.0) * np.ones((4, 16, WIDTH))
    arrays = {"x": values.astype(np.float32), MASK: mask}
    feeds = Feeds(arrays, BatchAxes(dict.fromkeys(arrays, 0), mask=MASK))
    one = np.ones(WIDTH)
    weight = np.ones((WIDTH, 4), np.float32)
    job = Job("x", -1, np.arange(WIDTH), weight, -one, one, one, weight[0], per_channel=True)
    kept = _rows(model, [job], [feeds], WHOLE, Tokens({"x": 1}))["x"]
    assert kept.shape == (4 * 5, WIDTH)
    assert kept.max() == 1
    assert _rows(model, [job], [feeds], WHOLE)["x"].max() == 1000


def test_the_same_samples_give_the_same_scales():
    model = two_readers()
    feeds = samples()
    one, other = (measured(chosen(model, feeds), [feeds]).solution.exponents for _ in range(2))
    assert np.array_equal(one, other)
    assert np.array_equal(one % 1, chosen(model, feeds).solution.start % 1)


def test_channels_that_share_a_scale_get_the_same():
    variables = np.array([1, 2, 1, 2, 3])
    generator = np.random.default_rng(0)
    job = Job(
        "x", -1, variables, generator.normal(size=(5, 4)).astype(np.float32),
        -np.ones(5), np.ones(5), np.array([1.0, 8.0, 2.0, 0.0, 64.0]),
        np.ones(4, np.float32), per_channel=True,
    )  # fmt: skip
    found = _candidates(job, np.zeros(5))
    assert len(found) > 4
    for exponents in found:
        assert exponents[0] == exponents[2]
        assert exponents[1] == exponents[3]
        assert np.all(exponents % 1 == 0)
    assert any(exponents[4] < exponents[0] for exponents in found)


@pytest.mark.parametrize("role", ["weight", "activation"])
def test_where_a_role_stays_in_float_nothing_is_measured(role):
    model = two_readers()
    feeds = samples()
    choice = chosen(model, feeds)
    scheme = replace(REFERENCE, **{role: None})
    other = replace(choice, options=replace(choice.options, scheme=scheme))
    assert measured(other, [feeds]) is other


def test_a_tensor_that_something_else_reads_too_keeps_its_scales():
    """A convolution beside a matrix would move with it."""
    b = Builder(4)
    x = b.conv(b.input(4, 8, 8), 16)
    pooled = b.op("Flatten", b.op("GlobalAveragePool", x), shape=(16,))
    model = b.model(b.gemm(pooled, 8), b.conv(x, 4))
    feeds = random_feeds(model, 1, batch=8)
    choice = chosen(model, feeds)
    assert [job for job in _jobs(choice) if "gemm" in job.tensor] == []
    assert np.array_equal(measured(choice, [feeds]).solution.exponents, choice.solution.exponents)


@pytest.mark.filterwarnings("error")
def test_huge_values_are_measured_as_small_ones_are():
    """Their squares are no float32 numbers."""
    model, feeds = two_readers(), samples()
    huge = {name: values * np.float32(2.0**110) for name, values in feeds.items()}
    (job,) = _jobs(chosen(model, huge))
    rows = _rows(model, [job], [huge], WHOLE)[job.tensor]
    measure, other = (
        _measure(
            replace(job, low=job.low / unit, high=job.high / unit), rows / np.float32(unit),
            REFERENCE.activation, REFERENCE.weight, share=1.0,
        )
        for unit in (1.0, 2.0**100)
    )  # fmt: skip
    tried = np.random.default_rng(0).integers(-3, 3, (3, len(job.variables))).astype(float)
    ratios = {measure(each) / other(each) for each in tried}
    assert len(ratios) == 1, "each has a unit of its own"
