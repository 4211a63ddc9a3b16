"""The ranking of layers, what a model is, and what was normalized, as lines and tables."""

import math
from pathlib import Path

import numpy as np
from onnxq.api import calibrate, emulate, inspect
from onnxq.calibration.table import calibration_table
from onnxq.model.narrow import Kept, Narrowing
from onnxq.model.normalize import Normalization, normalize
from onnxq.report import calibration as calibration_report
from onnxq.report import details as details_report
from onnxq.report import emulation as emulation_report
from onnxq.report import equalization as equalization_report
from onnxq.report import layers as layers_report
from onnxq.report import normalization as normalization_report
from onnxq.report.nodes import narrowing_table
from onnxq.validation.causes import Causes
from onnxq.validation.kernels import Kernel
from onnxq.validation.layers import LayerError, LayerReport
from onnxq.validation.lint import Finding
from onnxq.validation.pairing import Unmatched

from support.reporting import Reported

NO_CAUSE = Causes(math.nan, math.nan, math.nan, math.nan, math.nan, "its input")
PATH = Path("m.onnx")


def layer(name, share, *, estimated=False):
    return LayerError(name, "Conv", name, share, 20.0, math.inf, math.nan, NO_CAUSE, estimated)


def report(*layers, unmatched=()):
    return LayerReport("m", 100, 64, 8, 17.25, 16.5, layers, unmatched, "")


# --- layers ------------------------------------------------------------------------------------


def test_a_ranking_names_the_top_and_sums_up_the_rest():
    many = [layer(f"l{i}", 4.0, estimated=i > 2) for i in range(layers_report.SHOWN + 5)]
    ranking, unmatched = layers_report.tables(report(*many), whole=False)
    assert len(ranking.rows) == layers_report.SHOWN + 1
    assert ranking.rows[0] == ("l0", "Conv", "4.0", "20.0", "identical", "–", "its input")
    assert ranking.rows[3][3] == "~20.0"
    assert ranking.rows[-1][:3] == ("5 more (-v)", "", "20.0")
    assert unmatched.rows == ()
    ranking, _ = layers_report.tables(report(*many), whole=True)
    assert len(ranking.rows) == len(many)


def test_what_could_not_be_ranked_has_a_reason():
    _, unmatched = layers_report.tables(report(unmatched=[Unmatched("a", "Add", "why")]), whole=False)  # fmt: skip
    assert unmatched.rows == (("a", "Add", "why"),)


def test_what_the_layers_add_up_to():
    assert list(layers_report.summary(PATH, report())) == [
        "m.onnx: no quantized layer could be measured by itself"
    ]
    assert list(layers_report.summary(PATH, report(layer("a", 100)))) == [
        "m.onnx: 17.2 dB SQNR on 64 samples; the errors of 1 layer add up to 16.5 dB"
    ]
    _, first = layers_report.summary(PATH, report(layer("a", 99), layer("b", 1, estimated=True)))
    assert first.endswith("the others (~) estimated on 8 samples")


def test_a_ranking_as_a_document():
    found = layers_report.document(PATH, report(layer("a", 100)))
    assert (found["together_db"], found["probes"], len(found["ranking"])) == (17.25, 64, 1)
    assert found["ranking"][0]["share_percent"] == 100


# --- what a model is ---------------------------------------------------------------------------


def test_a_quantized_model_says_what_it_is(reported: Reported):
    found = inspect(reported.int8).details
    lines = list(details_report.summary(reported.int8, found))
    assert lines[0].startswith(f"Model: {reported.int8.source}, opset {reported.int8.opset}, ")
    assert "Quantized: yes" in lines
    assert "Target: gpu" in lines
    assert f"Quantized layers: {len(found.layers)}" in lines
    activations = sum(each.format == "int8" for each in found.activations)
    assert f"Activations in int8: {activations}" in lines
    titles = {each.title: each for each in details_report.tables(found)}
    assert [row[0] for row in titles["Quantized layers"].rows] == list(found.layers)
    assert len(titles["Learnables"].rows) == len(found.learnables)
    assert {row[0]: row[2] for row in titles["Left in float"].rows} == found.float_nodes
    document = details_report.document(reported.int8, found)
    assert document["quantized_layer_count"] == len(found.layers)
    assert document["is_quantized"]


def test_a_float_model_says_so(reported: Reported):
    lines = list(details_report.summary(reported.model, inspect(reported.model).details))
    assert "Quantized: no" in lines
    assert not any(line.startswith("Target") for line in lines)


def test_rules_that_are_broken_are_counted():
    assert details_report.lint_summary([], "qnn") == "Rules of target qnn: none is broken"
    found = [Finding("scale", "a", "d", "do"), Finding("scale", "b", "d", "do"), Finding("bias", "a", "d", "do")]  # fmt: skip
    assert (
        details_report.lint_summary(found, "gpu")
        == "Rules of target gpu: 2 rules broken in 3 places"
    )
    assert details_report.lint_table(found[:1], "gpu").rows == (("scale", "a", "d", "do"),)


def test_kernels_that_run_in_float_are_listed_with_their_reason():
    found = [
        Kernel("a", "Conv", "QLinearConv", True, "", weighted=True),
        Kernel("b", "Add", "", False, "it went away"),
    ]
    said = "1 of 2 eligible nodes run in integers, 1 of 1 with a weight"
    assert details_report.kernel_summary(found) == f"ONNX Runtime's CPU provider: {said}"
    assert details_report.kernel_summary(found, "openvino") == f"OpenVINO: {said}"
    assert details_report.kernel_table(found, whole=False).rows == (("b", "Add", "–", "it went away"),)  # fmt: skip
    assert len(details_report.kernel_table(found, whole=True).rows) == 2


# --- what was done -----------------------------------------------------------------------------


def test_only_what_a_reader_should_know_of_normalization_is_said():
    assert list(normalization_report.summary(Normalization({"bn": "c"}, {}, {}, 3, 9, 2))) == []
    done = Normalization(
        {}, {}, {}, 0, 0, 0, taken_apart={"a": 1e-7, "b": 2e-6}, left_fused={"c": "it differs"},
        plugins=("EfficientNMS_TRT",),
    )  # fmt: skip
    apart, plugin, left = normalization_report.summary(done)
    assert "took 2 fused operators" in apart
    assert "2.0e-06" in apart
    assert plugin.startswith("left EfficientNMS_TRT at the end")
    assert left == "left c as it is: it differs"


def test_the_float16_remainder_lists_what_was_kept():
    found = narrowing_table(Narrowing(3, (Kept("n", "too large"),)))
    assert found.rows == (("n", "too large"),)


def test_one_number_or_the_ends_of_several():
    assert equalization_report.span(np.array([2.0, 2.0])) == "2"
    assert equalization_report.span(np.array([-1.23456, 2.0])) == "-1.23…2"


def test_a_calibration_as_a_table(reported: Reported):
    calibration = calibrate(reported.model, reported.data)
    rows = calibration_table(*normalize(reported.model), calibration)
    found = calibration_report.table_of(rows, digits=9)
    assert len(found.rows) == len(rows)
    for cells, each in zip(found.rows, rows, strict=True):
        assert np.float32(cells[3]) == np.float32(each.minimum)
        assert np.float32(cells[4]) == np.float32(each.maximum)
    document = calibration_report.document(reported.model, calibration, rows, PATH)
    assert (document["samples"], document["shards"]) == (80, ((1, 1),))
    assert document["tensors"] == len(calibration.tensors)
    assert document["not_finite"] == {}


def test_an_emulation_counts_what_every_node_became(reported: Reported):
    record = emulate(reported.int8, reported.data, samples=4)
    first, second = emulation_report.summary(record)
    layers = emulation_report.layer_table(record)
    floats = emulation_report.float_table(record)
    assert first.startswith(f"{len(record.plan)} nodes: ")
    assert f"{len(floats.rows)} in float" in first
    assert second == "no sum can leave its accumulator (proved from the weights)"
    fused = sum(len(row[6].split(", ")) for row in layers.rows if row[6])
    assert len(layers.rows) + len(floats.rows) + fused == len(record.plan)
    assert emulation_report.agreement_text([]) == "no layer to compare: nothing is quantized"
