"""Which axes count tokens, on models that are run."""

import numpy as np
import pytest
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.tokens import NO_TOKENS, Tokens, measure_tokens
from onnxq.model.session import Runtime

from support.masked import LENGTH, WIDTH, encoder, padded, sentences

AXES = BatchAxes({"x": 0, "attention_mask": 0}, mask="attention_mask")


def feeds(count=2):
    return Feeds(padded(sentences(count)), AXES)


def tokens(model, samples=None):
    return measure_tokens(model, samples or feeds(), Runtime())


def test_they_follow_the_number_of_tokens():
    axes = tokens(encoder()).axes
    assert {name: axes.get(name) for name in ("x", "attention_mask", "values", "u1", "y")} == {
        "x": 1, "attention_mask": 1, "values": 1, "u1": 1, "y": 1,
    }  # fmt: skip
    assert (axes["turned"], axes["bias"]) == (2, 2)
    # Scores have two; of what is pooled none is left.
    assert not {"scores", "weights", "total", "mean"} & axes.keys()


def test_tokens_of_all_samples_may_lie_on_one_axis():
    axes = tokens(encoder(flat=True)).axes
    assert (axes["u2"], axes["h2"], axes["h"]) == (0, 0, 1)


def test_one_token_is_enough_to_tell():
    one = Feeds({name: values[:, :1] for name, values in feeds().items()}, AXES)
    assert tokens(encoder(), one) == tokens(encoder())


def test_of_a_model_of_fixed_length_shapes_tell():
    """Its matrices, as `mean`, are left alone: they may be anything."""
    fixed = tokens(encoder(tokens=LENGTH, batch=2)).axes
    assert (fixed["x"], fixed["y"], fixed["turned"]) == (1, 1, 2)
    assert not {"attention_mask", "scores", "mean"} & fixed.keys()
    # An axis as long as another one cannot be told from it.
    wide = Feeds({"x": np.ones((2, WIDTH, WIDTH), np.float32),
                  "attention_mask": np.ones((2, WIDTH), np.int64)}, AXES)  # fmt: skip
    found = tokens(encoder(tokens=WIDTH, batch=2), wide).axes
    assert "x" not in found
    assert found["y"] == 1


def test_without_a_mask_there_is_nothing_to_tell():
    unmasked = Feeds(feeds().arrays, BatchAxes({"x": 0, "attention_mask": 0}))
    assert tokens(encoder(), unmasked) == NO_TOKENS


# --- padding -------------------------------------------------------------------------------------

REAL = np.array([[True, True, False], [True, False, False]])
MASKED = Feeds({"attention_mask": REAL}, BatchAxes({"attention_mask": 0}, mask="attention_mask"))


@pytest.mark.parametrize(
    ("axis", "shape", "kept"),
    [(1, (2, 3, 4), (1, 3, 4)), (2, (2, 4, 3), (1, 4, 3)), (2, (2, 4, 3, 5), (1, 4, 3, 5)),
     (0, (6, 4), (3, 4)), (1, (2, 3), (1, 3))],
)  # fmt: skip
def test_padding_is_taken_out_along_the_axis(axis, shape, kept):
    """Real values are ones, those of padding zeros."""
    found = Tokens({"t": axis})
    real = found.real("t", shape, MASKED)
    values = np.broadcast_to(real, shape).astype(np.float32)
    assert 0 < values.sum() < values.size
    assert found.kept("t", values, REAL).shape == kept
    assert found.kept("t", values, REAL).min() == 1
    assert found.of({"t": values, "other": values}, MASKED).keys() == {"t"}


def test_a_tensor_of_another_shape_counts_whole():
    found = Tokens({"t": 1, "flat": 0})
    assert found.real("t", (1, 3, 4), MASKED) is None
    assert found.real("t", (2,), MASKED) is None
    assert found.real("flat", (3, 4), MASKED) is None
    assert found.kept("t", np.ones((1, 3, 4)), REAL) is None
    assert found.kept("other", np.ones((2, 3, 4)), REAL) is None
