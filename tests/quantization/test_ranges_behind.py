"""Ranges by what errors cost behind the readers."""

import numpy as np
import onnxq
import pytest
from onnxq.calibration.ranges import AUTO
from onnxq.model.graph import Graph
from onnxq.quantization.ranges import Ranges
from onnxq.quantization.weighed import Estimate
from onnxq.targets.read import target_named

from support.builder import Builder
from support.histograms import statistics_of

SPEC = target_named("cpu").scheme("w8a8").activation
VALUES = np.random.default_rng(0).standard_normal(50_000) * 3


def ranges_of(graph, tensors, method=AUTO):
    statistics = {name: statistics_of(values) for name, values in tensors.items()}
    return Ranges(graph, statistics, {}, {}, SPEC, method)


def silu_model(b, x):
    return b.op("Mul", x, b.op("Sigmoid", x, name="gate"), name="result")


def behind_silu():
    b = Builder(1)
    return Graph(b.model(b.conv(silu_model(b, b.conv(b.input(3, 4, 4), 4, name="before")), 2)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def error(values, function, found):
    low, high = found
    step = (high - low) / 255
    return np.mean(
        (
            function(np.clip(np.rint((values - low) / step) * step + low, low, high))
            - function(values)
        )
        ** 2
    )


def test_in_front_of_a_silu_the_negative_half_is_worth_less():
    graph = behind_silu()
    known = {"before": VALUES}
    auto, mse = (ranges_of(graph, known, method).of(["before"]) for method in (AUTO, "mse"))
    assert auto[0] > mse[0]

    def silu(x):
        return x * sigmoid(x)

    assert error(VALUES, silu, auto) < error(VALUES, silu, mse)


def test_a_gate_counts_by_what_it_multiplies():
    """Where the logits are large the gate is near 1, and an error of it counts times the logit."""
    graph = behind_silu()
    values = np.concatenate([VALUES / 10, [30.0]])
    known = {"before": values, "gate": sigmoid(values)}
    loss = ranges_of(graph, known).loss(["gate"])
    alone = ranges_of(graph, {"gate": known["gate"]}).loss(["gate"])
    clipped, whole = (0.0, 0.8), (0.0, 1.0)
    # 30 · (1 − 0.8), squared, of one value; without the logit 0.2, squared.
    assert loss(clipped) - loss(whole) > 36 > alone(clipped) - alone(whole)


def test_what_is_only_moved_on_counts_where_it_arrives():
    b = Builder(2)
    x = b.input(3, 4, 4)
    one, other = b.conv(x, 4, name="one"), b.conv(x, 4, name="other")
    joined = b.op("Concat", one, other, shape=(8, 4, 4), axis=1, name="joined")
    graph = Graph(b.model(b.conv(joined, 2), b.conv(other, 2)))
    rng = np.random.default_rng(3)
    tensors = {"one": rng.standard_normal(100), "other": rng.standard_normal(100) * 2}
    tensors["joined"] = np.concatenate([tensors["one"], tensors["other"]])
    ranges = ranges_of(graph, tensors)
    candidate = (-2.0, 2.0)
    wanted = ranges.loss(["joined"])(candidate) + ranges.loss(["other"])(candidate)
    assert ranges.loss(["joined", "one", "other"])(candidate) == pytest.approx(wanted)
    # All of them are known by what arrives, also where only a part is.
    assert ranges.loss(["one"])(candidate) > 0


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_without_functions_auto_is_mse(target):
    b = Builder(4)
    x = b.conv(b.input(3, 6, 6), 4)
    model = b.model(b.conv(x, 4), b.conv(x, 2))
    data = np.random.default_rng(5).standard_normal((64, 3, 6, 6)).astype(np.float32)
    calibration = onnxq.calibrate(model, data)
    made = [
        onnxq.quantize(model, calibration=calibration, target=target, ranges=ranges)[1].plan.static
        for ranges in (AUTO, "mse")
    ]
    assert made[0].keys() == made[1].keys()
    for name, entry in made[0].items():
        assert entry.parameters.scale == made[1][name].parameters.scale
    # With data gradients may prefer another one, of which they must say that it costs less.
    _, result = onnxq.quantize(model, data, target=target, equalize=False)
    assert result.ranges
    for each in result.ranges:
        assert each.of(each.chosen).share <= each.of(Estimate.BEHIND).share
