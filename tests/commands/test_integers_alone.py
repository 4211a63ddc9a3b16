"""Gates of models that give integers alone, as a segmentation that ends in its ArgMax."""

import numpy as np
import onnxq
import pytest
from onnx import TensorProto, helper
from onnxq.errors import UsageError

from support.builder import Builder

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((32, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def model():
    b = Builder(spread=0)
    scores = b.conv(b.op("Relu", b.conv(b.input(3, 8, 8), 16, 3)), 4)
    classes = b.op("ArgMax", scores, shape=(8, 8), axis=1, keepdims=0)
    proto = b.proto(classes)
    del proto.graph.output[:]
    proto.graph.output.append(
        helper.make_tensor_value_info(classes, TensorProto.INT64, ["N", 8, 8])
    )
    return proto


@pytest.fixture
def nothing_made(monkeypatch):
    """No model is quantized."""

    def quantize(*_):
        raise AssertionError

    monkeypatch.setattr("onnxq.quantization.quantize.quantize", quantize)


@pytest.mark.usefixtures("nothing_made")
def test_quantize_names_what_may_decide_before_the_work(model):
    with pytest.raises(UsageError, match="sqnr has nothing to look at") as caught:
        onnxq.quantize(model, IMAGES, target="cpu", max_drop=1, validate_data=IMAGES)
    assert caught.value.hint == (
        "give --validate-data with labels, or let onnxq tune decide by another --metric"
    )


@pytest.mark.usefixtures("nothing_made")
def test_tune_tries_nothing_where_nothing_decides(model):
    with pytest.raises(UsageError, match="sqnr has nothing to look at") as caught:
        onnxq.tune(model, IMAGES, target="cpu", validate_data=IMAGES)
    assert caught.value.hint == "put another metric first: --metric top1 or FILE.py:name"


def test_another_metric_decides(model):
    int8, found = onnxq.tune(
        model, IMAGES, target="openvino", schemes=["w8"], validate_data=IMAGES,
        metrics=["miou"], max_drop=50,
    )  # fmt: skip
    assert int8 is not None
    assert found.metric == "miou"
