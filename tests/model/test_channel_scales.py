"""Scales travel in the metadata: exactly, and adding up over several equalizations."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnxq.model.channel_scales import (
    METADATA_KEY,
    OFFSETS_KEY,
    recorded_exponents,
    recorded_offsets,
    with_exponents,
    with_offsets,
)
from onnxq.model.model import Model, with_metadata

from support.builder import Builder


def tiny():
    b = Builder()
    return b.model(b.op("Relu", b.input(2)))


exponents = st.lists(st.integers(-20, 20) | st.floats(-3, 3), min_size=1, max_size=6)


@given(st.dictionaries(st.text("abc/é", min_size=1), exponents, max_size=4))
def test_they_come_back_as_they_were(written):
    exponents = {name: np.array(values, float)[:, None] for name, values in written.items()}
    read = recorded_exponents(with_exponents(tiny(), exponents))
    assert set(read) == {name for name, values in exponents.items() if np.any(values)}
    for name, values in read.items():
        np.testing.assert_array_equal(values, exponents[name])


@given(exponents, st.data())
def test_they_add_up(first, data):
    second = data.draw(st.lists(st.integers(-20, 20), min_size=len(first), max_size=len(first)))
    a, b = np.array(first, float), np.array(second, float)
    model = with_exponents(with_exponents(tiny(), {"x": a}), {"x": b})
    np.testing.assert_array_equal(recorded_exponents(model).get("x", np.zeros(len(a))), a + b)


def test_a_model_without_scales_stays_as_it_is():
    model = tiny()
    assert with_exponents(model, {"x": np.zeros(3)}) is model
    assert recorded_exponents(model) == {}


def test_what_is_no_record_is_none():
    for text in ("{", "3", '[{"tensors": ["x"]}]', '{"x": 1}', '[{"tensors": 5, "shape": []}]'):
        broken: Model = with_metadata(tiny(), {METADATA_KEY: text})
        assert recorded_exponents(broken) == {}


def test_offsets_follow_the_scales_that_come_after():
    """y = 2·x − 1 and then z = 4·y − 3: of x, z subtracts 4·1 + 3."""
    once = with_offsets(with_exponents(tiny(), {"x": np.ones(2)}), {"x": np.ones(2)})
    scaled = with_exponents(once, {"x": np.full(2, 2.0)})
    twice = with_offsets(scaled, {"x": np.full(2, 3.0)})
    np.testing.assert_array_equal(recorded_offsets(twice)["x"], [7, 7])
    np.testing.assert_array_equal(recorded_exponents(twice)["x"], [3, 3])
    for text in ("", "[]", '{"x": "y"}'):
        assert recorded_offsets(with_metadata(tiny(), {OFFSETS_KEY: text})) == {}
