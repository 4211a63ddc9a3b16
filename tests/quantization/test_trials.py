"""What equalization expects of itself is tried before it is kept."""

import numpy as np
import pytest
from onnxq.api import quantize
from onnxq.equalization.prepare import unchanged
from onnxq.quantization.trials import Variant, best_of

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
        ([("plain", 20.0, 0.0), ("as good", 19.9, -0.25)], "as good"),
        ([("plain", 20.0, 0.0), ("costly", 20.4, 0.5)], "plain"),
        ([("plain", 20.0, 0.0), ("worse", 10.0, 0.0), ("costly", 20.6, 0.5)], "costly"),
        ([("plain", float("nan"), 0.0), ("as bad", float("nan"), 0.0)], "plain"),
    ],
)
def test_each_must_be_worth_what_it_adds(entries, kept):
    level = {name: sqnr for name, sqnr, _ in entries}
    candidates = [
        Variant(name, lambda name=name: model_named(name), worth) for name, _, worth in entries
    ]
    best = best_of(candidates, lambda prepared: level[name_of(prepared)])
    assert name_of(best) == kept
    assert [trial.name for trial in best.trials] == [name for name, _, _ in entries]
    assert [trial.sqnr for trial in best.trials] == pytest.approx(list(level.values()), nan_ok=True)


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
def test_equalized_is_never_much_worse_than_not(target):
    model = prelu_blocks()
    data = random_feeds(model, 5, batch=128)
    (_, plain), (_, found) = (
        quantize(model, data, target=target, equalize=equalized) for equalized in (False, True)
    )
    assert len(found.prepared.trials) >= 2
    assert found.quantized_sqnr > plain.quantized_sqnr - 0.5
