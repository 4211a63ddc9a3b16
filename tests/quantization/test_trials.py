"""What equalization expects of itself is tried before it is kept."""

import numpy as np
import pytest
from onnxq.api import quantize
from onnxq.equalization.prepare import unchanged
from onnxq.quantization.trials import Variant, best_of, shortlist

from support.builder import Builder
from support.random_graphs import random_feeds


def model_named(name):
    b = Builder(0)
    return unchanged(b.model(b.gemm(b.input(4), 2, name=name)), None)


def name_of(prepared):
    return prepared.model.proto.graph.node[-1].name


@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        ([("plain", 20.0, 0.0)], "plain"),
        ([("plain", 20.0, 0.0), ("better", 20.1, 0.0)], "better"),
        ([("plain", 20.0, 0.0), ("worse", 19.9, 0.0)], "plain"),
        ([("plain", 20.0, 0.0), ("costly", 20.4, 0.5)], "plain"),
        ([("plain", 20.0, 0.0), ("worse", 10.0, 0.0), ("costly", 20.6, 0.5)], "costly"),
        ([("plain", float("nan"), 0.0), ("as bad", float("nan"), 0.0)], "plain"),
    ],
)
def test_each_must_be_worth_what_it_adds(entries, kept):
    finished = [(variant(name, worth), sqnr) for name, sqnr, worth in entries]
    assert entries[best_of(finished)][0] == kept


@pytest.mark.parametrize(
    ("levels", "kept"),
    [
        ({"plain": 20.0, "better": 24.0}, ["better"]),
        ({"plain": 20.0, "close": 21.0}, ["plain", "close"]),
        ({"plain": 20.0, "worse": 18.0}, ["plain"]),
        ({"plain": 20.0, "close": 19.0, "best": 20.4, "bad": 3.0}, ["plain", "close", "best"]),
        ({"plain": float("nan"), "better": 4.0}, ["better"]),
        ({"plain": float("nan"), "expected": float("nan")}, ["expected"]),
        ({"plain": float("inf"), "as good": float("inf"), "worse": 90.0}, ["plain", "as good"]),
    ],
)
def test_what_trials_leave_open_is_finished(levels, kept):
    found = shortlist(list(map(variant, levels)), lambda prepared: levels[name_of(prepared)])
    assert [each.name for each, _ in found] == kept
    assert [name_of(prepared) for _, prepared in found] == kept
    for _, prepared in found:
        assert [trial.name for trial in prepared.trials] == list(levels)
        sqnr = [trial.sqnr for trial in prepared.trials]
        assert sqnr == pytest.approx(list(levels.values()), nan_ok=True)


def test_no_variant_is_an_error():
    with pytest.raises(ValueError, match="no variant"):
        shortlist([], lambda _: 1.0)


def variant(name, worth=0.0):
    return Variant(name, lambda: model_named(name), worth)


def prelu_blocks():
    """A layer's own output is rounded in front of a float PReLU on `cpu`, which no scale knows."""
    b = Builder(0, spread=2)
    x = b.input(3, 16, 16)
    for number in range(4):
        x = b.conv(x, 16, 3, stride=2 if number == 0 else 1)
        slope = b.const(0.12 * b.rng.standard_normal((16, 1, 1)).astype(np.float32))
        x = b.op("PRelu", x, slope)
    return b.model(b.head(x, 8))


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_equalized_is_never_worse_than_not(target):
    model = prelu_blocks()
    data = random_feeds(model, 5, batch=128)
    (_, plain), (_, found) = (
        quantize(model, data, target=target, equalize=equalized) for equalized in (False, True)
    )
    assert len(found.prepared.trials) >= 2
    assert found.quantized_sqnr >= plain.quantized_sqnr
    finals = {trial.name: trial.final for trial in found.prepared.trials}
    assert found.quantized_sqnr == max(each for each in finals.values() if each == each)
