"""Activations in blocks of channels hold the bits of the usual outputs, and are counted alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxq import api
from onnxq.calibration import accumulate, bins, files
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.merge import merge
from onnxq.calibration.thinning import PRIMES, step_of
from onnxq.model import external
from onnxq.model.blocked import Observed, block_size, open_observer
from onnxq.model.graph import Graph
from onnxq.model.normalize import normalize
from onnxq.model.session import Runtime, open_session, run, with_outputs

from support.builder import Builder


def model():
    """Channel numbers that do and do not fill whole blocks."""
    b = Builder(1)
    x = b.clip(b.conv(b.input(3, 24, 24), 24, 3))
    x = b.clip(b.conv(x, 20))
    return b.model(b.head(b.op("Add", x, b.conv(x, 20))))


def data(count=24):
    return np.random.default_rng(0).standard_normal((count, 3, 24, 24)).astype(np.float32)


def in_blocks(values, block):
    """As the runtime hands it out: the memory in blocks, the shape that of padded channels."""
    samples, channels, *positions = values.shape
    padded = -(-channels // block) * block
    full = np.full((samples, padded, *positions), 99, np.float32)
    full[:, :channels] = values
    memory = full.reshape(samples, padded // block, block, -1).swapaxes(2, 3)
    return Observed(np.ascontiguousarray(memory).reshape(full.shape), block, channels)


@pytest.mark.parametrize("limit", [external.PARK_LIMIT, 1000])
def test_what_is_handed_out_in_blocks_has_the_bits_of_the_usual_outputs(monkeypatch, limit):
    """Also where the weights lie in files."""
    monkeypatch.setattr(external, "PARK_LIMIT", limit)
    monkeypatch.setattr(external, "SMALL", 16)
    normalized, _ = normalize(model())
    names = [n for n in api.tensors_to_observe(Graph(normalized)) if n != "x"]
    proto = with_outputs(normalized, names)
    assert external.has_parked(external.settled(proto)) == (limit == 1000)
    usual = run(open_session(proto), names, {"x": data()})
    observer = open_observer(proto, names, Runtime())
    if not block_size():
        pytest.skip("ONNX Runtime uses no blocks on this processor")
    assert len(observer.blocked) >= 4
    for name, expected in zip(names, usual, strict=True):
        found = observer.run({"x": data()})[name].plain
        assert found.tobytes() == expected.tobytes()


def test_calibration_has_the_same_bytes_without_blocks(monkeypatch):
    expected = files.to_bytes(api.calibrate(model(), data()))
    monkeypatch.setattr("onnxq.model.blocked.block_size", lambda: 0)
    assert files.to_bytes(api.calibrate(model(), data())) == expected


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 40), st.sampled_from([1, 3, 5]),
       st.sampled_from([None, 1]), st.sampled_from([4, 16]))  # fmt: skip
def test_blocks_are_counted_alike(samples, channels, positions, step, axis, block):
    values = np.random.default_rng(0).standard_normal((samples, channels, positions, 1))
    values = values.astype(np.float32)
    found = []
    for given_ in (Observed(values), in_blocks(values, block)):
        accumulator = Accumulator(axis, step)
        for _ in range(3):
            assert accumulator.add(given_)
        found.append(accumulator.finish())
    for field in ("minimum", "maximum", "counts", "halves"):
        assert np.array_equal(getattr(found[0], field), getattr(found[1], field))


# --- thinning ------------------------------------------------------------------------------------


def test_a_step_visits_every_row_and_column():
    for side in (7, 9, 12, 14, 28, 31, 48, 112, 224):
        step = step_of(("n", 16, side, side), 1, 10_000)
        assert step in PRIMES
        visited = np.arange(side * side)[step // 2 :: step]
        assert len(np.unique(visited % side)) == min(side, len(visited))
        assert len(np.unique(visited // side)) == side


def test_few_values_are_all_counted():
    assert step_of(("n", 16, 6, 6), 1, 100) == 1
    assert step_of(("n", 16), 1, 10**9) == 1
    assert step_of(("n", 16, 200, 200), None, 1000) == 1
    assert step_of(("n", 16, "height", 200), 1, 1000) == 1
    assert step_of(("n", 16, 200, 200), 1, None) == 1
    assert step_of(None, 1, 1000) == 1


def test_positions_before_the_channels_are_thinned_too():
    assert step_of(("n", 197, 384), 2, 4000) == 13
    values = np.random.default_rng(0).standard_normal((4, 197, 8)).astype(np.float32)
    accumulator = Accumulator(2, 13)
    accumulator.add(values)
    found = accumulator.finish()
    expected = Accumulator(2)
    expected.add(np.ascontiguousarray(values[:, 6::13]))
    assert np.array_equal(
        bins.regrow(expected.finish().counts, expected.finish().top, found.top), found.counts
    )
    assert np.array_equal(found.maximum, values.max(axis=(0, 1)))


def test_thinned_extremes_and_what_is_not_finite_are_those_of_all_values(monkeypatch):
    monkeypatch.setattr("onnxq.calibration.thinning.ENOUGH", 64)
    monkeypatch.setattr(accumulate, "BLOCK", 100)
    values = data()
    values[11, 1, 23, 22] = np.inf
    calibrated = api.calibrate(
        model(), api.as_source(values, model(), allow_nonfinite=True), allow_nonfinite=True
    )
    assert calibrated.tensors["x"].not_finite == 1
    assert calibrated.tensors["x"].first_not_finite.sample == 11
    assert any(found.step > 1 and found.not_finite for found in calibrated.tensors.values())
    accumulator = Accumulator(1, 5)
    assert not accumulator.add(values)
    found = accumulator.finish()
    good = np.where(np.isfinite(values), values, 0)
    assert found.not_finite == 1
    assert np.array_equal(found.minimum, good.min(axis=(0, 2, 3)))
    assert np.array_equal(found.maximum, good.max(axis=(0, 2, 3)))
    parts = [api.calibrate(model(), data(), shard=(i, 3)) for i in (3, 1, 2)]
    assert files.to_bytes(merge(parts)) == files.to_bytes(api.calibrate(model(), data()))
