"""Masks: which input is one, and which positions it leaves."""

import numpy as np
import pytest
from onnxq.data.axes import find_axes
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.masks import find_mask, has_padding, real_positions
from onnxq.errors import UsageError
from onnxq.model.model import TensorSpec


def spec(name, *shape, kind=np.int64):
    return TensorSpec(name, np.dtype(kind), shape)


IDS, MASK = spec("ids", "N", "T"), spec("attention_mask", "N", "T")


def found(asked, *inputs):
    return find_mask(asked, inputs, find_axes(inputs))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.bool_, np.float32])
def test_an_attention_mask_is_one_without_being_named(kind):
    assert found(None, IDS, spec("attention_mask", "N", "T", kind=kind)) == "attention_mask"


def test_it_can_be_switched_off_and_another_one_named():
    assert found("none", IDS, MASK) == ""
    assert found("ids", IDS, MASK) == "ids"
    assert found(None, IDS) == ""
    # What has four axes, such as a mask that is added to scores, says nothing of positions.
    assert found(None, IDS, spec("attention_mask", "N", 1, "T", "T")) == ""
    # An input of that name is one.
    assert found("none", IDS, spec("none", "N", "T")) == "none"


def test_names_that_are_no_mask_are_refused():
    with pytest.raises(UsageError, match="the model has no input 'attention_maks'") as caught:
        found("attention_maks", IDS, MASK)
    assert "attention_mask" in caught.value.hint
    with pytest.raises(UsageError, match="'x' is no mask of samples × tokens"):
        found("x", IDS, spec("x", "N", 3, 8, 8))


def batch(mask, name="attention_mask"):
    return Feeds({"attention_mask": np.asarray(mask)}, BatchAxes({"attention_mask": 0}, mask=name))


def test_positions_above_zero_are_real():
    real = real_positions(batch([[1, 1, 0], [0, 1, 1]]))
    assert real.tolist() == [[True, True, False], [False, True, True]]
    assert real_positions(batch(np.array([[0.5, 0.0], [1.0, 1.0]]))).tolist() == [
        [True, False], [True, True],
    ]  # fmt: skip


def test_of_a_mask_that_is_added_zeros_are_real():
    """Also the one of a sample without padding beside another that has some."""
    real = real_positions(batch(np.array([[0.0, 0.0, -np.inf], [0.0, 0.0, 0.0]], np.float32)))
    assert real.tolist() == [[True, True, False], [True, True, True]]


def test_without_padding_all_count():
    assert real_positions(batch([[1, 1], [1, 1]])) is None
    assert real_positions(batch([[1, 0]], name="")) is None
    assert real_positions({"attention_mask": np.array([[1, 0]])}) is None
    assert not has_padding([batch([[1, 1]])])
    assert has_padding([batch([[1, 1]]), batch([[1, 0]])])
