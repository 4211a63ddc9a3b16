"""The stage: idempotence, clip modes, rollback, and calibrations that follow the scales."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxq.api import calibrate, tensors_to_observe
from onnxq.calibration import bins
from onnxq.calibration.stream import observe
from onnxq.data.open import open_data
from onnxq.data.random import random_feeds
from onnxq.equalization.apply import apply_scales
from onnxq.equalization.choose import EqualizationOptions
from onnxq.equalization.classes import find_classes
from onnxq.equalization.derive import derive_calibration
from onnxq.equalization.equalize import equalize, weight_ranges
from onnxq.equalization.sites import scales_of
from onnxq.errors import UsageError
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model

from support.builder import Builder
from support.random_graphs import random_feeds as fixed_feeds
from support.random_graphs import random_models
from support.running import random_exponents, same_outputs


def uneven(clip=True, channels=16):
    """Conv, depthwise and pointwise, with rows of very different size: MobileNet's trouble."""
    b = Builder(3)
    act = b.clip if clip else (lambda x: b.op("Relu", x))
    x = act(b.conv(b.input(3, 8, 8), channels, 3))
    x = act(b.conv(x, channels, 3, group=channels, name="depthwise"))
    x = b.conv(x, 8)
    x = b.op("Add", x, b.conv(act(b.conv(x, channels)), 8))
    return b.model(b.head(x))


def samples(model, count=32, seed=0):
    return {"x": fixed_feeds(model, seed, batch=count)["x"]}


def shifted_rows(first, second):
    """Both histograms in the wider of the two windows."""
    top = max(first.top, second.top)
    return [bins.regrow(s.counts, s.top, top) for s in (first, second)]


@pytest.mark.parametrize("relu6", ["auto", "per-channel", "skip"])
@pytest.mark.parametrize("with_calibration", [True, False])
def test_outputs_stay_bit_identical(relu6, with_calibration):
    model = uneven()
    calibration = calibrate(model, samples(model)) if with_calibration else None
    result, record = equalize(
        model, calibration, random_feeds(model), EqualizationOptions(relu6=relu6)
    )
    assert record.proof.identical
    assert not record.rolled_back
    assert record.changed
    assert record.expected_gain > 0
    assert same_outputs(model, result, fixed_feeds(model, 5, batch=7), optimize=False)


@pytest.mark.parametrize("with_calibration", [True, False])
@pytest.mark.parametrize("clip", [True, False])
def test_equalizing_twice_changes_nothing(with_calibration, clip):
    model = uneven(clip)
    data = samples(model)
    calibration = calibrate(model, data) if with_calibration else None
    result, _ = equalize(model, calibration, random_feeds(model))
    calibration = calibrate(result, data) if with_calibration else None
    again, record = equalize(result, calibration, random_feeds(model))
    assert not record.changed, f"{record.expected_gain} dB, {record.classes}"
    assert again.proto == result.proto


def test_weights_become_even():
    model = uneven(clip=False)
    result, record = equalize(model, None, random_feeds(model))
    before, after = (weight_ranges(Graph(m), "depthwise") for m in (model, result))
    assert np.ptp(np.log2(after)) < np.ptp(np.log2(before))
    assert any(r.spread_after < r.spread_before for r in record.classes)


def test_real_scales_stay_within_their_tolerance():
    model = uneven(clip=False)
    result, record = equalize(
        model, None, random_feeds(model), EqualizationOptions(real_scales=True)
    )
    assert 0 < record.proof.difference <= 1e-5
    assert not record.rolled_back
    assert not same_outputs(model, result, samples(model), optimize=False)


def test_a_tie_adds_no_kernel_and_is_exact_on_the_calibration_data():
    model = uneven()
    data = samples(model)
    calibration = calibrate(model, data)
    result, record = equalize(model, calibration, [data], EqualizationOptions(relu6="tie"))
    assert record.kernels_added == 0
    assert record.changed
    assert {node.op_type for node in Graph(result).nodes} >= {"Clip"}
    assert same_outputs(model, result, data, optimize=False)


@pytest.mark.parametrize("relu6", ["tie", "relu"])
def test_ties_need_a_calibration(relu6):
    model = uneven()
    with pytest.raises(UsageError, match="needs to know what saturates"):
        equalize(model, None, random_feeds(model), EqualizationOptions(relu6=relu6))


def test_a_class_that_fails_the_proof_is_rolled_back_and_named():
    """ONNX Runtime fuses Conv and Add only if the constant has one value a channel, as the scaled
    scalar has: the optimized sum is then rounded once less, and its bits change."""
    b = Builder(4)
    x = b.input(3, 8, 8)
    bad = b.op("Add", b.conv(x, 16, name="bad"), b.const(np.float32(0.3)))
    good = b.op("Relu", b.conv(x, 16, name="good"))
    # Normalized, the constant would be part of the convolution's bias.
    model = infer_shapes(Model(b.proto(b.head(b.conv(bad, 8)), b.head(b.conv(good, 8)))))
    classes = find_classes(Graph(model))
    exponents = random_exponents(classes)
    assert not same_outputs(
        model, apply_scales(Graph(model), classes, exponents)[0], samples(model), optimize=True
    )
    result, record = equalize(model, None, [samples(model)])
    assert record.rolled_back == ("bad",)
    assert record.proof.identical
    assert record.changed
    before, after = Graph(model), Graph(result)
    for name, scaled in (("bad", False), ("good", True)):
        weights = [g.constant(g.by_name[name].input(1)) for g in (before, after)]
        assert np.array_equal(*weights) is not scaled


@settings(max_examples=40)
@given(random_models(), st.integers(0, 100))
def test_a_derived_calibration_equals_a_new_one(model, seed):
    """Histograms move by whole exponents, so no value is counted again."""
    graph = Graph(model)
    classes = find_classes(graph)
    exponents = random_exponents(classes, seed)
    scaled, _ = apply_scales(graph, classes, exponents)
    exponents = {name: np.log2(scales_of(p, exponents)) for name, p in classes.patterns.items()}
    tensors = tensors_to_observe(graph)
    # Optimized graphs may round sums in another order where kernels were added.
    source = open_data(fixed_feeds(model, seed), model.inputs)
    if not same_outputs(model, scaled, fixed_feeds(model, seed), optimize=True):
        return
    before = observe(model, source, tensors, fingerprint="before")
    derived, lost = derive_calibration(before, exponents)
    fresh = observe(scaled, source, tensors, fingerprint="after")
    assert set(derived.tensors) | set(lost) == set(fresh.tensors)
    for name, statistics in derived.tensors.items():
        assert np.array_equal(statistics.minimum, fresh.tensors[name].minimum), name
        assert np.array_equal(statistics.maximum, fresh.tensors[name].maximum), name
        assert np.array_equal(*shifted_rows(statistics, fresh.tensors[name])), name


def test_nothing_is_lost_where_scales_vary_along_the_counted_axis():
    model = uneven()
    graph = Graph(model)
    classes = find_classes(graph)
    exponents = random_exponents(classes)
    exponents = {name: np.log2(scales_of(p, exponents)) for name, p in classes.patterns.items()}
    _, lost = derive_calibration(calibrate(model, samples(model)), exponents)
    assert lost == ()


def test_real_scales_lose_the_tensors_they_move():
    model = uneven(clip=False)
    calibration = calibrate(model, samples(model))
    exponents = {name: np.full(1, 0.5) for name in calibration.tensors}
    derived, lost = derive_calibration(calibration, exponents)
    assert not derived.tensors
    assert set(lost) == set(calibration.tensors)
