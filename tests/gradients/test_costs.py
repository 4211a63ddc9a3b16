"""What errors cost, against what they do to the outputs."""

import numpy as np
import pytest
from onnxq.calibration import bins
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.costs import CostSums, ends_of
from onnxq.calibration.stream import observe
from onnxq.commands.inputs import as_source
from onnxq.data.tokens import measure_tokens
from onnxq.equalization.observed import tensors_to_observe
from onnxq.gradients import measure_costs
from onnxq.model.graph import Graph
from onnxq.model.normalize import normalize
from onnxq.model.session import Runtime, open_session, run
from onnxq.validation.cut import with_deltas

from support.builder import Builder
from support.masked import encoder, padded, sentences


def calibrated(model, feeds):
    source = as_source(feeds, model)
    return observe(model, source, tensors_to_observe(Graph(model)), fingerprint="")


def network(outputs=3):
    b = Builder(1, spread=0)
    y = b.op("Relu", b.conv(b.input(2, 6, 6), 6, 3), name="first")
    z = b.op("Sigmoid", b.conv(y, 4, 3), name="second")
    return b.model(b.head(z, outputs))


def samples(count, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, 2, 6, 6))
    return {"x": values.astype(np.float32)}


@pytest.fixture(scope="module")
def measured():
    model, feeds = network(), samples(64)
    return model, feeds, measure_costs(model, calibrated(model, feeds), [feeds])


def true_cost(model, feeds, name, change):
    """Σ ((y' − y) / σ)² of the outputs when a tensor changes."""
    (output,) = [spec.name for spec in model.outputs]
    session = open_session(with_deltas(model, [name]))
    plain, values = run(session, [output, name], feeds)
    (moved,) = run(session, [output], {**feeds, f"{name}@delta": change(values) - values})
    return float(np.square((moved - plain) / plain.std()).sum())


@pytest.mark.parametrize("name", ["x", "first", "second"])
def test_rounding_costs_what_it_does_to_the_outputs(measured, name):
    model, feeds, costs = measured
    step = 0.02

    def rounded(values):
        return (np.rint(values / step) * step).astype(np.float32)

    if name == "x":
        (output,) = [spec.name for spec in model.outputs]
        session = open_session(model)
        (plain,) = run(session, [output], feeds)
        (moved,) = run(session, [output], {"x": rounded(feeds["x"])})
        true = float(np.square((moved - plain) / plain.std()).sum())
    else:
        true = true_cost(model, feeds, name, rounded)
    assert costs.tensors[name].rounding(step) == pytest.approx(true, rel=0.3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_clipping_adds_up_within_a_sample(measured, share):
    model, feeds, costs = measured
    high = share * 2.0
    true = true_cost(model, feeds, "first", lambda values: np.minimum(values, np.float32(high)))
    found = costs.tensors["first"]
    assert float(found.clipping(0.0, high)) == pytest.approx(true, rel=0.5)
    # As if they were independent, errors of one sign cancel each other.
    assert found.spread_clipping(0.0, high) < 0.8 * true


def test_nothing_is_clipped_beyond_all_values(measured):
    _, _, costs = measured
    for name, found in costs.tensors.items():
        assert float(found.clipping(-1e3, 1e3)) == 0, name
        assert found.spread_clipping(-1e3, 1e3) == 0
        assert not found.power[1:][found.power[1:] < 0].size


def test_the_order_of_samples_does_not_matter():
    model, feeds = network(), samples(24)
    turned = {"x": feeds["x"][::-1].copy()}
    one, other = (measure_costs(model, calibrated(model, f), [f]) for f in (feeds, turned))
    for name, found in one.tensors.items():
        assert np.array_equal(found.power, other.tensors[name].power)
        assert np.array_equal(found.products, other.tensors[name].products)


def test_less_room_takes_more_passes_to_the_same_end():
    model, feeds = network(), samples(8)
    calibration = calibrated(model, feeds)
    whole = measure_costs(model, calibration, [feeds])
    parts = measure_costs(model, calibration, [feeds], room=1)
    assert whole.tensors.keys() == parts.tensors.keys()
    for name, found in whole.tensors.items():
        assert np.allclose(found.power, parts.tensors[name].power, rtol=1e-4, atol=1e-9)


def test_few_samples_are_drawn_for_more_often():
    model, feeds = network(), samples(4)
    costs = measure_costs(model, calibrated(model, feeds), [feeds], samples=12)
    assert costs.samples == 4
    assert costs.tensors["first"].samples == 12


def test_sums_beyond_an_end_are_exact():
    """Against the values themselves, up to the width of a bin."""
    rng = np.random.default_rng(2)
    values = (rng.standard_normal(5000) * 3 - 1).astype(np.float32)
    gradient = rng.standard_normal(5000).astype(np.float32)
    accumulator = Accumulator(None)
    accumulator.add(values[None])
    found = accumulator.finish()
    sums = CostSums(found.top, found.low, found.high)
    sums.add(sums.of_sample(values, gradient))
    found = sums.finish()
    assert found.power.sum() == pytest.approx(
        np.square(gradient.astype(np.float64)).sum(), rel=1e-12
    )
    for low, high in [(-2.0, 1.0), (-0.5, 100.0), (-100.0, 0.0), (-4.0, 5.5)]:
        cut = float((gradient * (values - np.clip(values, low, high))).sum()) ** 2
        assert float(found.clipping(low, high)) == pytest.approx(cut, rel=0.1, abs=2.0)
    many = found.clipping(np.array([-2.0, -0.5]), np.array([1.0, 100.0]))
    assert many.tolist() == [float(found.clipping(-2.0, 1.0)), float(found.clipping(-0.5, 100.0))]


@pytest.mark.parametrize("largest", [0.0, 1e-12, 0.3, 1.0, 51.0, 3e38])
def test_ends_are_edges_of_bins_up_to_the_largest_value(largest):
    ends = ends_of(largest)
    assert ends[0] == 0
    assert (np.diff(ends) > 0).all()
    assert ends[-1] >= largest or len(ends) == 1
    assert np.isin(ends[1:], bins.edges(bins.top_of(largest))).all()


# --- what has no costs --------------------------------------------------------------------------


def test_gradients_that_are_no_numbers_are_named():
    """The root of 0 has an infinite slope."""
    b = Builder()
    y = b.op("Relu", b.input(3), name="zeros")
    model = b.model(b.op("Sqrt", y))
    feeds = {"x": np.array([[1, 2, 3], [-1, 4, 5]], np.float32)}
    costs = measure_costs(model, calibrated(model, feeds), [feeds])
    assert str(costs.refused["zeros"]) == "its gradient is NaN or infinite in sample 2"
    assert not costs.tensors.keys() & costs.refused.keys()


def test_outputs_that_do_not_vary_cost_nothing():
    b = Builder()
    y = b.op("Relu", b.input(3), name="unread")
    model = b.model(b.op("Mul", y, b.const(np.zeros(3))))
    feeds = {"x": np.ones((4, 3), np.float32)}
    costs = measure_costs(model, calibrated(model, feeds), [feeds])
    assert not costs.tensors
    assert {str(reason) for reason in costs.refused.values()} == {
        "no float output of the model varies"
    }


def test_a_tensor_without_calibration_is_refused():
    model, feeds = network(), samples(4)
    costs = measure_costs(model, calibrated(model, feeds), [feeds], ["first", "nowhere"])
    assert set(costs.tensors) == {"first"}


def test_outputs_whose_number_depends_on_the_values():
    """NonZero decides how many rows come out of each sample."""
    b = Builder(batch=1)
    y = b.op("Relu", b.gemm(b.input(8), 8), name="kept")
    rows = b.op("Squeeze", y, b.ints(0))
    places = b.op("NonZero", rows)
    model = b.model(b.op("Gather", rows, b.op("Squeeze", places, b.ints(0))))
    model_outputs = [spec.name for spec in model.outputs]
    values = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    feeds = [{"x": each[None]} for each in values]
    costs = measure_costs(model, calibrated(model, {"x": values}), feeds)
    assert set(costs.tensors) == set(model_outputs)
    assert "NonZero" in str(costs.refused["kept"])


# --- padding ------------------------------------------------------------------------------------


def test_padding_does_not_count():
    """As if the samples had come without it; where it counts, half as much again is there."""
    model, texts = normalize(encoder())[0], sentences(40)
    source = as_source(padded(texts), model)
    calibration = observe(model, source, tensors_to_observe(Graph(model)), fingerprint="")
    batches = [batch.feeds for batch in source.batches(8)]
    tokens = measure_tokens(model, batches[0], Runtime())
    alone = [
        {"x": each[None], "attention_mask": np.ones((1, len(each)), np.int64)} for each in texts
    ]
    wanted = measure_costs(model, calibration, alone)
    found = measure_costs(model, calibration, batches, tokens=tokens)
    careless = measure_costs(model, calibration, batches)
    for name in ("h", "u1", "x"):
        power, whole = (each.tensors[name].power.sum() for each in (found, wanted))
        assert power == pytest.approx(whole, rel=0.1), name
    assert careless.tensors["h"].power.sum() > 1.3 * wanted.tensors["h"].power.sum()
