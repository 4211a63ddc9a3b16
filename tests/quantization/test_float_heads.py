"""`--head`: what a detector computes behind its last layers, in float and in int8."""

import numpy as np
import onnxq
import pytest
from onnxq.model.graph import Graph
from onnxq.model.heads import MEETING
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.status import Float, Quantized
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.targets import target_named

from support.heads import CLASSES, HEADS

FAST = {"equalize": False, "rounding": "nearest", "ranges": "mse", "bias_correction": False,
        "speed": False}  # fmt: skip


def samples(count=8):
    draws = np.random.default_rng(0)
    return {"x": draws.standard_normal((count, 3, 32, 32)).astype(np.float32)}


def closeness(exact, found):
    """SQNR in dB."""
    exact = np.asarray(exact, np.float64)
    return 10 * np.log10(np.sum(exact**2) / np.sum((exact - found) ** 2))


def parts(head, outputs):
    """What an object's place is made of, and its scores."""
    first, *more = outputs
    if more:
        return first, more[0]
    first = first if first.shape[1] in {5, 4 + CLASSES} else np.swapaxes(first, 1, 2)
    return first[:, :4], first[:, 4:]


GAINS = [
    # head, target, dB of the boxes, dB of the scores, at least
    ("dfl", "cpu", 5, 0),
    ("dfl", "gpu", 8, 0),
    ("dfl", "qnn", 5, 4),
    ("anchors", "qnn", 1, 0.5),
    ("raw", "qnn", -0.5, 10),
    ("queries", "cpu", 2, 0),
    ("queries", "qnn", 2, 0),
]


@pytest.mark.parametrize(("head", "target", "boxes", "scores"), GAINS)
def test_a_head_in_float_is_closer(head, target, boxes, scores):
    model, feeds = Model(HEADS[head]()), samples()
    exact = parts(head, onnxq.emulate(model, feeds).outputs.values())
    reached = {}
    for numbers in ("int8", "float"):
        made, _ = onnxq.quantize(model, data=feeds, target=target, head=numbers, **FAST)
        found = parts(head, onnxq.emulate(made, feeds).outputs.values())
        reached[numbers] = [closeness(*each) for each in zip(exact, found, strict=True)]
    gains = np.subtract(reached["float"], reached["int8"])
    assert gains[0] >= boxes
    assert gains[1] >= scores


def test_the_numbers_of_a_suppression_are_not_compared_by_their_places():
    """Of boxes that are chosen anew, others come out: the ranges are settled all the same."""
    model = Model(HEADS["priors"]())
    _, result = onnxq.quantize(model, data=samples(24), target="cpu", speed=False)
    assert isinstance(result.plan.nodes["classes"], Quantized)


def test_the_record_says_why():
    _, result = onnxq.quantize(Model(HEADS["raw"]()), data=samples(), target="qnn", **FAST)
    assert result.plan.nodes["joined"] == Float(MEETING)
    assert result.plan.options.float_head


@pytest.mark.parametrize("name", ["boxes", "objects", "classes"])
def test_of_what_the_last_layers_write_nothing_is_clipped(name):
    """The largest values are the detections, however rare."""
    draws = np.random.default_rng(1)
    rare = samples()["x"] * np.where(draws.random((8, 1, 1, 1)) < 0.2, 40, 1)
    model = Model(HEADS["raw"]())
    calibration = onnxq.calibrate(model, {"x": rare.astype(np.float32)})
    graph, target = Graph(normalize(model)[0]), target_named("cpu")
    plan = plan_quantization(graph, calibration, target, QuantizationOptions())
    low, high = plan.static[name].parameters.range
    step = float(plan.static[name].parameters.scale)
    assert low <= calibration.tensors[name].low + step
    assert high >= calibration.tensors[name].high - step
