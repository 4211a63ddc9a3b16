"""`validate --layers` on the shipped networks: the ranking against quantizing one at a time."""

import weakref
from dataclasses import replace

import numpy as np
import onnx
import onnxq
import pytest
from onnxq import api
from onnxq.data.ahead import WORKERS
from onnxq.model.channel_scales import METADATA_KEY, OFFSETS_KEY
from onnxq.model.graph import Graph
from onnxq.model.model import Model, with_metadata
from onnxq.model.session import open_session, run, with_outputs
from onnxq.model.status import Quantized
from onnxq.quantization import quantize as stage
from onnxq.validation import layers
from onnxq.validation.effects import WORST
from onnxq.validation.layers import measure_layers

from support.random_graphs import random_feeds
from support.testdata import TESTDATA, images, uneven


def decibels(exact, other):
    exact, other = exact.astype(np.float64), other.astype(np.float64)
    return 10 * np.log10(np.square(exact).sum() / np.square(exact - other).sum())


def correlation(a, b):
    """Spearman's, of two rankings without ties."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (a, b)]
    return np.corrcoef(*ranks)[0, 1]


@pytest.fixture(scope="module")
def calibrated():
    """Network → its calibration on 64 images."""
    names = ("squeezenet", "mobilenetv2")
    return {
        name: onnxq.calibrate(TESTDATA / f"{name}.onnx", images("calibration", 8)) for name in names
    }


def measured(float_model, quantized, data, **options):
    float_model = api.as_model(float_model)
    return measure_layers(float_model, quantized, api.as_source(data, float_model), **options)


def one_at_a_time(request, result, data):
    """Layer → SQNR of the output if nothing else is quantized, dB: the expensive truth."""
    session = open_session(request.model)
    exact = run(session, None, data)[0]
    names = [n for n, status in result.plan.nodes.items() if isinstance(status, Quantized)]
    truth = {}
    for layer in sorted(result.plan.weighted):
        keep = {name: "the others" for name in names if name != layer}
        alone, _ = stage.quantize(replace(request, again=result, keep=keep))
        truth[layer] = decibels(exact, run(open_session(alone, keep_qdq=True), None, data)[0])
    return truth


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("squeezenet", {}),
        ("mobilenetv2", {"weights": "per-tensor", "equalize": False, "ranges": "minmax"}),
    ],
)
def test_the_ranking_is_that_of_quantizing_one_layer_at_a_time(
    network, options, calibrated, monkeypatch
):
    requests = []
    quantize = stage.quantize
    monkeypatch.setattr(
        stage, "quantize", lambda request: requests.append(request) or quantize(request)
    )
    path = TESTDATA / f"{network}.onnx"
    int8, result = onnxq.quantize(path, calibration=calibrated[network], **options)
    monkeypatch.undo()
    data = images("test", 80)
    report = measured(path, int8, data, first_look=25)
    truth = one_at_a_time(requests[0], result, data)
    alone = {layer.name: layer.alone for layer in report.layers}
    assert set(truth) <= set(alone)
    assert not report.unmatched
    names = list(truth)
    expensive, cheap = ([values[n] for n in names] for values in (truth, alone))
    assert correlation(expensive, cheap) > 0.98
    assert np.median(np.abs(np.subtract(expensive, cheap))) < 0.2
    # What a layer's own error says of the output is far less.
    own = {layer.name: layer.own for layer in report.layers}
    assert correlation(expensive, [own[n] for n in names]) < 0.7
    shares = [layer.share for layer in report.layers]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100)
    assert report.together == pytest.approx(report.sum_of_parts, abs=3)
    assert not report.warning
    assert not any(layer.estimated for layer in report.layers)
    # Gradients for all layers and runs of the worst say nearly the same.
    monkeypatch.setattr(layers, "FIRST_LOOK", 0)
    cheap = measured(path, int8, data)
    assert cheap.first_look == 25
    assert sum(layer.estimated for layer in cheap.layers) == len(cheap.layers) - WORST
    estimates = {layer.name: layer.alone for layer in cheap.layers}
    assert correlation([alone[n] for n in names], [estimates[n] for n in names]) > 0.9
    for layer in cheap.layers:
        if not layer.estimated:
            assert layer.alone == pytest.approx(alone[layer.name], abs=0.01)


def test_standing_and_own_errors_are_those_of_the_models(calibrated):
    """Recomputed by hand for one layer of a model whose channels carry no scales."""
    path = TESTDATA / "squeezenet.onnx"
    int8, _ = onnxq.quantize(path, calibration=calibrated["squeezenet"], equalize=False)
    data = images("test", 100)
    report = measured(path, int8, data, probes=4)
    assert (report.samples, report.probes) == (20, 4)
    layer = next(layer for layer in report.layers if layer.name == "node_conv2d_5")
    exact, feeds = onnxq.load(path), ["relu_4", layer.output]
    before, wanted = run(open_session(with_outputs(exact, feeds)), feeds, data)
    got = run(open_session(with_outputs(int8, feeds[1:]), optimize=False), feeds[1:], data)[0]
    assert layer.standing == pytest.approx(decibels(wanted, got), abs=0.01)
    part = onnx.ModelProto()
    part.CopyFrom(int8.proto)
    nodes = {node.name: node for node in part.graph.node}
    wanted_nodes = ["node_conv2d_5.weight/dequantize", "relu_4/quantize", "relu_4/dequantize",
                    "node_conv2d_5", "node_relu_5"]  # fmt: skip
    del part.graph.node[:], part.graph.input[:], part.graph.output[:]
    part.graph.node.extend(nodes[name] for name in wanted_nodes)
    shape = onnx.helper.make_tensor_value_info("relu_4", onnx.TensorProto.FLOAT, before.shape)
    part.graph.input.append(shape)
    part.graph.output.append(onnx.ValueInfoProto(name=layer.output))
    got = run(open_session(Model(part), optimize=False), None, {"relu_4": before})[0]
    assert layer.own == pytest.approx(decibels(wanted, got), abs=0.01)


def test_scales_of_an_equalized_model_are_divided_out():
    original = uneven()
    data, seen = random_feeds(original, 1, batch=32), random_feeds(original, 0, batch=32)
    int8, result = onnxq.quantize(original, seen, weights="per-tensor")
    assert sum(each.scaled for each in result.equalization.classes) > 10
    stripped = with_metadata(int8, {METADATA_KEY: "[]", OFFSETS_KEY: "{}"})
    against_original = measured(original, int8, data)
    against_prepared = measured(result.prepared.model, stripped, data)
    assert not against_original.warning
    assert len(against_original.layers) == 6
    for ours, theirs in zip(against_original.layers, against_prepared.layers, strict=True):
        assert ours.name == theirs.name
        assert ours.alone == pytest.approx(theirs.alone, abs=0.05)
        assert ours.own > 20
    # Quantized from a file that was equalized before: the scales of both steps count.
    equalized, record = onnxq.equalize(original)
    assert record.equalization.changed
    twice, result = onnxq.quantize(equalized, seen, bias_correction=False)
    assert result.equalization.changed
    for reference in (original, equalized):
        report = measured(reference, twice, data)
        assert not report.warning
        assert not report.unmatched
        assert report.sum_of_parts == pytest.approx(report.together, abs=3)
    # Scales that nobody recorded are noticed.
    assert "scale channels" in measured(original, stripped, data).warning


def test_a_collapse_is_explained(calibrated):
    """MobileNetV2 with one scale for each weight: which layers, and why."""
    path = TESTDATA / "mobilenetv2.onnx"
    int8, _ = onnxq.quantize(
        path, calibration=calibrated["mobilenetv2"], weights="per-tensor", equalize=False
    )
    report = measured(path, int8, images("test", 125), whole=False)
    worst = report.layers[:4]
    assert sum(layer.share for layer in worst) > 80
    for layer in worst:
        assert layer.op_type == "Conv"
        assert layer.causes.weights > 90
        assert "one scale for all" in layer.causes.note
        assert layer.causes.weight_levels < 5
    add = next(layer for layer in report.layers if layer.op_type == "Add")
    assert np.isnan(add.causes.weights)
    assert add.causes.note.startswith("its input")


def test_clipped_inputs_are_named():
    """A range calibrated on small inputs, measured on large ones."""
    path = TESTDATA / "squeezenet.onnx"
    small = {"image": images("calibration", 16)["image"] / 16}
    int8, _ = onnxq.quantize(path, small, equalize=False, bias_correction=False)
    report = measured(path, int8, images("test", 100), whole=False)
    first = next(layer for layer in report.layers if layer.name == "node_conv2d")
    assert first.causes.clipped > 50
    assert first.causes.clipping > 90
    assert "clipped" in first.causes.note


@pytest.mark.usefixtures("own_kernels")
@pytest.mark.filterwarnings("ignore")
def test_models_of_another_tool(tmp_path, calibrated):
    """ONNX Runtime's quantizer: other names of Q/DQ, asymmetric, Relu left to the quantizer."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    path = TESTDATA / "squeezenet.onnx"

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter([images("calibration", 20)])

        def get_next(self):
            return next(self.batches, None)

    for form in ("QDQ", "QOperator"):
        quantization.quantize_static(
            path, tmp_path / f"{form}.onnx", Reader(), per_channel=True,
            quant_format=quantization.QuantFormat[form],
        )  # fmt: skip
    data = images("test", 100)
    int8 = onnxq.load(tmp_path / "QDQ.onnx")
    assert not any(node.op_type == "Relu" for node in Graph(int8).nodes)
    report = measured(path, int8, data)
    assert not report.unmatched
    assert not report.warning
    assert len([layer for layer in report.layers if layer.op_type == "Conv"]) == 26
    assert min(layer.own for layer in report.layers) > 25
    assert report.sum_of_parts == pytest.approx(report.together, abs=3)
    # In the other form integers run between the nodes, and nothing can be told apart.
    report = measured(path, onnxq.load(tmp_path / "QOperator.onnx"), data)
    assert len(report.unmatched) > 20
    for each in report.unmatched:
        assert "the float model has no tensor" in each.reason
        assert "it counts within" in each.reason


def test_renamed_and_reshaped_tensors_are_named(calibrated):
    path = TESTDATA / "squeezenet.onnx"
    int8, _ = onnxq.quantize(path, calibration=calibrated["squeezenet"], equalize=False)
    proto = onnx.ModelProto()
    proto.CopyFrom(int8.proto)
    swapped = {"relu_4": "renamed", "relu_9": "relu_21", "relu_21": "relu_9"}
    for node in proto.graph.node:
        node.input[:] = [swapped.get(name, name) for name in node.input]
        node.output[:] = [swapped.get(name, name) for name in node.output]
    del proto.graph.value_info[:]
    report = measured(path, Model(proto), images("test", 200), whole=False)
    reasons = {each.name: each.reason for each in report.unmatched}
    assert set(reasons) == {"node_conv2d_4", "node_conv2d_9", "node_conv2d_21"}
    assert "no tensor 'renamed'" in reasons["node_conv2d_4"]
    assert "counts within 'node_conv2d_5'" in reasons["node_conv2d_4"]
    assert "64×7×7 in the quantized one" in reasons["node_conv2d_9"]
    assert report.sum_of_parts == pytest.approx(report.together, abs=3)


def test_a_float_model_has_no_layers(calibrated):
    path = TESTDATA / "squeezenet.onnx"
    report = measured(path, onnxq.load(path), images("test", 200))
    assert report.layers == report.unmatched == ()


def test_memory_does_not_grow_with_the_samples(calibrated):
    """Of the batches that were read, few more are alive than run side by side."""
    path = TESTDATA / "squeezenet.onnx"
    int8, _ = onnxq.quantize(path, calibration=calibrated["squeezenet"], equalize=False)
    model = onnxq.load(path)
    source = api.as_source(images("test", 20), model)
    batches, alive, most = source.batches, [], 0

    class Watched:
        def __getattr__(self, name):
            return getattr(source, name)

        def batches(self, size, **options):
            nonlocal most
            for batch in batches(size, **options):
                copy = replace(batch, feeds={n: v.copy() for n, v in batch.feeds.items()})
                alive.append(weakref.ref(copy.feeds["image"]))
                yield copy
                del copy
                most = max(most, sum(each() is not None for each in alive))

    report = measure_layers(model, int8, Watched(), probes=4)
    assert report.samples == 100
    assert len(alive) > 15
    assert most <= WORKERS + 2
