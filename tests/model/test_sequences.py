"""Models with sequences inside go through every stage: no piece of them is cut at a sequence."""

import numpy as np
import onnxq
import pytest
from onnxq import api
from onnxq.model.session import open_session, run
from onnxq.quantization.plan import Quantized

from support.sequences import of_sequences

IMAGES = np.random.default_rng(0).standard_normal((32, 3, 6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return of_sequences()


@pytest.mark.parametrize("target", ["cpu", "gpu", "qnn"])
def test_it_is_quantized(model, target):
    quantized, result = onnxq.quantize(model, IMAGES, target=target)
    layers = ("c1", "half0", "half1", "sum0", "sum1", "sum2")
    assert all(isinstance(result.plan.nodes[name], Quantized) for name in layers)
    (exact,), (got,) = (
        run(open_session(each, optimize=False), None, {"x": IMAGES}) for each in (model, quantized)
    )
    assert np.abs(got - exact).max() < 0.1 * np.abs(exact).max()


def test_its_layers_are_measured(model):
    quantized, _ = onnxq.quantize(model, IMAGES, effort="fast")
    (report,) = api.validate(model, quantized, IMAGES, layers=True).layers
    measured = {each.name: each.own for each in report.layers}
    assert measured.keys() >= {"c1", "half0", "half1", "sum0", "sum1", "sum2"}
    assert min(measured.values()) > 20
    compared = api.compare_layers(quantized, IMAGES)
    operators = {each.node.rstrip("0123456789") for each in compared}
    assert operators >= {"sequenceat", "concatfromsequence"}
    assert max(each.largest for each in compared) <= 1
