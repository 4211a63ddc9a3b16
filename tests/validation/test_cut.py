"""Running models in pieces: what is cut, injected or removed computes what it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from onnxq.api import calibrate
from onnxq.formats.parameters import dequantize, quantize
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.session import open_session, run, with_outputs
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.targets.read import SHIPPED, target_named
from onnxq.validation.cut import DELTA, OWN, cut, with_deltas
from onnxq.validation.pairing import pair
from onnxq.validation.without_qdq import is_qdq, without_qdq

from quantization.test_int8_models import network
from support.random_graphs import GRAPHS, random_feeds, random_models
from support.running import runnable

targets = pytest.mark.parametrize("target", SHIPPED)
# The others differ from these in rows only.
unlike_targets = pytest.mark.parametrize("target", ["gpu", "cpu", "qnn"])


def quantized(model, feeds, target, **options):
    calibration = calibrate(model, feeds, batch_size=len(next(iter(feeds.values()))))
    plan = plan_quantization(
        Graph(model),
        calibration,
        target_named(target),
        QuantizationOptions(ranges="minmax", **options),
    )
    return infer_shapes(insert(model, plan)), plan


def values(model, names, feeds):
    results = run(open_session(with_outputs(model, names), optimize=False), names, feeds)
    return dict(zip(names, results, strict=True))


def check_pieces(model, target):
    """Pieces fed with the model's own values give these values; an error of 0 changes nothing."""
    feeds = random_feeds(model, batch=4)
    int8, plan = quantized(model, feeds, target)
    if not plan.weights:
        return
    pairing = pair(model, int8)
    found = values(pairing.quantized, pairing.tensors, feeds)
    names = [layer.output for layer in pairing.layers]
    pieces = open_session(cut(pairing.quantized, pairing.tensors), optimize=False)
    again = run(pieces, [name + OWN for name in names], {**found, **feeds})
    for name, value in zip(names, again, strict=True):
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    exact = values(pairing.exact, pairing.tensors, feeds)
    injected = open_session(with_deltas(pairing.exact, pairing.tensors), optimize=False)
    for name, value in zip(pairing.tensors, run(injected, pairing.tensors, feeds), strict=True):
        np.testing.assert_array_equal(value, exact[name])
    # The quantized weighted nodes are all somewhere: in a layer of their own or named as not.
    told = {each.name for each in (*pairing.layers, *pairing.unmatched)}
    assert plan.weighted <= told
    assert not pairing.unmatched


@targets
def test_pieces_of_a_network_with_everything(target):
    check_pieces(network(), target)


@unlike_targets
@given(model=random_models())
@settings(max_examples=GRAPHS // 6)
def test_pieces_of_random_graphs(target, model):
    model = infer_shapes(model)
    if runnable(model):
        check_pieces(model, target)


@targets
def test_the_twin_rounds_the_weights_and_nothing_else(target):
    model = network()
    feeds = random_feeds(model, batch=4)
    int8, plan = quantized(model, feeds, target)
    stripped = without_qdq(int8)
    assert any(is_qdq(node) for node in Graph(int8).nodes)
    assert not any(is_qdq(node) for node in Graph(stripped).nodes)
    rounded = Graph(stripped)
    for (name, _), parameters in plan.weights.items():
        position = 1
        weight = Graph(model).constant(Graph(model).by_name[name].input(position))
        stored = rounded.constant(rounded.by_name[name].input(position))
        expected = dequantize(quantize(weight, parameters), parameters)
        np.testing.assert_array_equal(stored, expected)
    exact = run(open_session(model, optimize=False), None, feeds)
    for wanted, found in zip(exact, run(open_session(stripped), None, feeds), strict=True):
        assert np.square(wanted - found).sum() < 1e-3 * np.square(wanted).sum()


def test_an_injected_error_reaches_the_output():
    model = network()
    feeds = random_feeds(model, batch=2)
    tensor = next(node.output for node in Graph(model).nodes if node.name == "pointwise")
    session = open_session(with_deltas(model, [tensor]))
    plain = run(session, [tensor, model.outputs[1].name], feeds)
    error = np.full(plain[0].shape, 0.5, np.float32)
    tensor_value, output = run(
        session, [tensor, model.outputs[1].name], {**feeds, tensor + DELTA: error}
    )
    np.testing.assert_allclose(tensor_value, plain[0] + 0.5, rtol=1e-6)
    assert np.abs(output - plain[1]).max() > 1e-3
