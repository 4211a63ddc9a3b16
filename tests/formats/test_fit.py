"""From ranges to scales: what is covered, what is representable, what zero becomes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxq.formats import fit
from onnxq.formats.fit import coarser, derived, fit_blocks, fit_magnitude, fit_range
from onnxq.formats.granularity import PER_TENSOR, Blocks, PerChannel
from onnxq.formats.parameters import dequantize, quantize
from onnxq.formats.scheme import Representable, activations_in, weights_in
from onnxq.formats.table import FORMATS

LIMIT = 1e6
floats = st.floats(-LIMIT, LIMIT, width=32)
specs = st.builds(
    lambda name, symmetric: activations_in(FORMATS[name], symmetric=symmetric),
    st.sampled_from(["int8", "uint8", "int16", "uint16", "uint4"]), st.booleans(),
)  # fmt: skip
scales = st.builds(Representable, st.booleans(), st.booleans())


@given(floats, floats, specs, scales)
def test_ranges_are_covered(a, b, spec, allowed):
    low, high = min(a, b), max(a, b)
    p = fit_range(low, high, spec, allowed)
    assert p.scale > 0
    assert float(dequantize(quantize(np.zeros(1), p), p)[0]) == 0
    x = np.array([low, high], np.float32)
    # The zero point is whole, so either end may fall half a step outside.
    assert np.all(np.abs(dequantize(quantize(x, p), p) - x) <= float(p.scale) * 1.001)
    if spec.symmetric:
        assert int(p.zero_point) == spec.middle
    if allowed.power_of_two and not allowed.half:
        assert np.frexp(p.scale)[0] == 0.5


@given(hnp.arrays(np.float64, 5, elements=st.floats(0, LIMIT)), st.booleans(),
       st.sampled_from([8, 7, 4]))  # fmt: skip
def test_weights_cover_their_channels(magnitude, power_of_two, bits):
    spec = weights_in(FORMATS["int8"], bits)
    p = fit_magnitude(magnitude, spec, PerChannel(0), Representable(power_of_two))
    assert np.all(np.isfinite(p.scale))
    assert np.all(p.scale > 0)
    assert (p.numbers.lowest, p.numbers.highest) == (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    assert np.all(magnitude <= p.numbers.highest * p.scale.astype(np.float64) * (1 + 1e-6))


def test_what_is_all_zero_gets_an_ordinary_scale():
    p = fit_range(0.0, 0.0, activations_in(FORMATS["uint8"], symmetric=False))
    assert float(p.scale) == pytest.approx(1 / 255)
    p = fit_magnitude(np.array([0.0, 1.27]), weights_in(FORMATS["int8"]), PerChannel(0))
    assert p.scale.tolist() == pytest.approx([0.01, 0.01])


def test_sixteen_bits_have_as_many_levels():
    p = fit_range(-1.0, 3.0, activations_in(FORMATS["uint16"], symmetric=False))
    assert float(p.scale) == pytest.approx(4 / 65535)
    assert int(p.zero_point) == round(65535 / 4)
    spec = activations_in(FORMATS["int16"], symmetric=True)
    assert (spec.levels, spec.steps, spec.half) == (65535, 32767, 32767)


def test_symmetric_unsigned_numbers_have_their_zero_in_the_middle():
    spec = activations_in(FORMATS["uint8"], symmetric=True)
    p = fit_range(-1.27, 0.5, spec)
    assert int(p.zero_point) == 128
    assert float(p.scale) == pytest.approx(0.01)
    assert spec.levels == 255


def test_coarser_keeps_the_zero_point():
    p = fit_range(-1.0, 3.0, activations_in(FORMATS["uint8"], symmetric=False))
    wider = coarser(p, 2.5, Representable())
    assert float(wider.scale) == pytest.approx(2.5 * float(p.scale))
    assert wider.zero_point == p.zero_point


def test_biases_are_symmetric():
    p = derived(FORMATS["int32"], np.array([1.0, 2.0], np.float32), PerChannel(0))
    assert (p.numbers.lowest, p.numbers.highest) == (1 - 2**31, 2**31 - 1)
    assert quantize(np.array([-1e20, 3.0]), p).tolist() == [1 - 2**31, 2]
    assert derived(FORMATS["int32"], np.array(1, np.float32), PER_TENSOR).per_tensor


block_specs = st.builds(
    lambda name, symmetric: weights_in(FORMATS[name], symmetric=symmetric),
    st.sampled_from(["int8", "uint8"]), st.booleans(),
)  # fmt: skip


@given(hnp.arrays(np.float64, (7, 3), elements=st.floats(-LIMIT, LIMIT)), block_specs, scales)
def test_blocks_cover_their_values_and_zero_the_last_one_may_be_short(weight, spec, allowed):
    p = fit_blocks(weight, spec, Blocks(0, 4), allowed)
    assert p.scale.shape == p.zero_point.shape == (2, 3)
    assert p.fits(weight.shape)
    restored = dequantize(quantize(weight, p), p)
    assert np.all(np.abs(restored - weight) <= p.scale_of_each(weight.shape) * 1.001)
    assert not dequantize(quantize(np.zeros((7, 3)), p), p).any()


def test_narrow_blocks_are_cut_off_where_that_costs_less():
    """One value far out: of 16 levels wider steps cost more than the value itself."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 8))
    weight[5] *= 2
    spec = weights_in(FORMATS["uint4"], symmetric=False)
    p = fit_blocks(weight, spec, Blocks(0, 32))
    runs = Blocks(0, 32).split(weight)
    whole = (np.maximum(runs.max(1), 0) - np.minimum(runs.min(1), 0)) / 15
    assert np.all(p.scale <= whole * (1 + 1e-6))
    assert (p.scale < 0.99 * whole).any()
    restored = dequantize(quantize(weight, p), p)
    coarse = np.rint(weight / whole.repeat(32, 0)) * whole.repeat(32, 0)
    assert np.square(restored - weight).sum() < np.square(coarse - weight).sum()


@pytest.mark.parametrize("axis", [0, 1])
def test_large_matrices_are_fitted_in_parts_with_the_same_result(axis, monkeypatch):
    weight = np.random.default_rng(0).standard_normal((70, 50)).astype(np.float32)
    spec = weights_in(FORMATS["uint4"], symmetric=False)
    whole = fit_blocks(weight, spec, Blocks(axis, 32))
    monkeypatch.setattr(fit, "AT_ONCE", 300)
    parts = fit_blocks(weight, spec, Blocks(axis, 32))
    assert np.array_equal(whole.scale, parts.scale)
    assert np.array_equal(whole.zero_point, parts.zero_point)
