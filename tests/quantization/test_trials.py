"""What equalization expects of itself is tried before it is kept."""

import numpy as np
import pytest
from onnxq.api import quantize
from onnxq.equalization.prepare import unchanged
from onnxq.quantization.trials import Variant, chosen

from support.builder import Builder
from support.random_graphs import random_feeds


def model_named(name):
    b = Builder(0)
    return unchanged(b.model(b.gemm(b.input(4), 2, name=name)), None)


def name_of(prepared):
    return prepared.model.proto.graph.node[-1].name


@pytest.mark.parametrize(
    ("entries", "hidden", "taken"),
    [
        ([("plain", 20.0, 0.0)], 1.5, "plain"),
        ([("plain", 20.0, 0.0), ("better", 24.0, 0.0)], 1.5, "better"),
        ([("plain", 20.0, 0.0), ("close", 19.0, 0.0)], 1.5, "close"),
        ([("plain", 20.0, 0.0), ("close", 19.0, 0.0)], 0.0, "plain"),
        ([("plain", 20.0, 0.0), ("worse", 18.0, 0.0)], 1.5, "plain"),
        ([("plain", 20.0, 0.0), ("costly", 20.4, 0.5)], 1.5, "plain"),
        ([("plain", 20.0, 0.0), ("costly", 20.6, 0.5)], 1.5, "costly"),
        ([("plain", 20.0, 0.0), ("worse", 10.0, 0.0), ("costly", 20.6, 0.5)], 1.5, "costly"),
        ([("plain", 20.0, 0.0), ("close", 19.0, 0.0), ("costly", 19.2, 0.5)], 1.5, "close"),
        ([("plain", float("nan"), 0.0), ("better", 4.0, 0.0)], 1.5, "better"),
        ([("plain", float("nan"), 0.0), ("expected", float("nan"), 0.0)], 0.0, "expected"),
        ([("plain", float("inf"), 0.0), ("worse", 90.0, 0.0)], 1.5, "plain"),
    ],
)
def test_what_trials_say_is_taken(entries, hidden, taken):
    levels = {name: sqnr for name, sqnr, _ in entries}
    name, prepared = chosen(
        [variant(name, worth) for name, _, worth in entries],
        lambda prepared: levels[name_of(prepared)],
        hidden=hidden,
    )
    assert name == name_of(prepared) == taken
    assert [trial.name for trial in prepared.trials] == list(levels)
    sqnr = [trial.sqnr for trial in prepared.trials]
    assert sqnr == pytest.approx(list(levels.values()), nan_ok=True)


def test_no_variant_is_an_error():
    with pytest.raises(ValueError, match="no variant"):
        chosen([], lambda _: 1.0, hidden=0.0)


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
    (final,) = [trial.final for trial in found.prepared.trials if trial.final == trial.final]
    assert found.quantized_sqnr == final
