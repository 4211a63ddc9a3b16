"""The facts and charts of the report, against what they are drawn from."""

import json
import math
import re

import numpy as np
import onnxq
import pytest
from onnxq.api import as_source
from onnxq.calibration.statistics import TensorStatistics
from onnxq.calibration.stream import observe
from onnxq.errors import DataError, UsageError
from onnxq.formats.fit import fit_range
from onnxq.formats.scheme import activations_in
from onnxq.formats.table import FORMATS
from onnxq.model.model import Model, with_metadata
from onnxq.model.normalize import FOLDS
from onnxq.model.session import open_session, run, with_outputs
from onnxq.quantization.details import METADATA_KEY, _digest
from onnxq.report.details import FOLDED, tables
from onnxq.report.html import charts, render
from onnxq.report.html.facts import view
from onnxq.report.subject import look_at

from support.builder import Builder
from support.reporting import EVIL, Reported
from support.testdata import TESTDATA, images


def seen(values: np.ndarray) -> TensorStatistics:
    """The statistics of one tensor with these values."""
    b = Builder()
    model = b.model(b.op("Relu", b.input(values.size // len(values))))
    data = as_source({"x": values.reshape(len(values), -1)}, model)
    tensors = {"x": None, model.outputs[0].name: None}
    found = observe(model, data, tensors, fingerprint="")
    return found.tensors["x"]


@pytest.mark.parametrize("offset", [0.0, 0.75])
@pytest.mark.parametrize("reach", [0.5, 1.0, 3.0])
def test_the_clipped_share_is_that_of_the_values(reach: float, offset: float):
    values = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    parameters = fit_range(-reach, reach, activations_in(FORMATS["int8"], symmetric=True))
    step = 0.5 * float(parameters.scale)
    low, high = parameters.range
    moved = values - offset
    exact = 100 * np.mean((moved < low - step) | (moved > high + step))
    found = charts.clipped_share(charts.Seen(seen(values), offset), parameters)
    # A bin is 3 % wide, so the share is known to what lies in the bins at the ends.
    assert found == pytest.approx(exact, abs=1.0)


def test_what_saturates_at_the_end_of_the_range_is_not_clipped():
    values = np.minimum(np.abs(np.random.default_rng(0).standard_normal((64, 32))) * 6, 6)
    parameters = fit_range(-6, 6, activations_in(FORMATS["int8"], symmetric=True))
    shown = charts.Seen(seen(values.astype(np.float32)))
    assert charts.clipped_share(shown, parameters) == 0
    # The last column of the picture is the peak.
    columns = charts.histogram(shown, parameters).columns
    assert columns[-1] == max(columns) == charts.FULL


def test_ranges_are_those_of_the_file_and_values_those_of_the_int8_models_float_twin(
    reported: Reported,
):
    """Histograms are moved and scaled like the channels: checked by running the model."""
    view, _ = reported.report.views
    shown = {each.name: each for each in view.tensors if each.seen and each.parameters}
    assert len(shown) > 3
    _, result = onnxq.quantize(reported.model, reported.data, weights="per-tensor")
    prepared = result.prepared.model
    names = sorted(set(shown) - {spec.name for spec in prepared.inputs})
    values = run(open_session(with_outputs(prepared, names)), names, reported.data)
    for name, value in zip(names, values, strict=True):
        # The page was made from all the data, as this run is.
        assert shown[name].seen.low == pytest.approx(float(value.min()), abs=1e-4)
        assert shown[name].seen.high == pytest.approx(float(value.max()), rel=1e-4)
        assert shown[name].parameters.range[1] == pytest.approx(
            result.plan.activations[name].parameters.range[1]
        )


def test_the_curve_begins_at_the_sum_of_parts_and_rises():
    curve = charts.sensitivity_curve([50.0, 25.0, 25.0], 20.0)
    assert curve == pytest.approx([20, 20 + 10 * math.log10(2), 20 + 10 * math.log10(4)])
    assert charts.sensitivity_curve([], 20.0) == ()
    assert charts.sensitivity_curve([100.0], math.inf) == ()


def test_boxplots_place_the_quartiles():
    boxes = charts.boxplots([np.array([-1.0, -0.5, 0.0, 0.5, 1.0])], 1.0)
    assert boxes.quartiles == ((0, 250, 500, 750, 1000),)
    assert boxes.limit == 1.0


def test_equal_channels_use_all_levels_and_one_outlier_takes_them():
    even = charts.channel_spread(np.ones(8))
    assert (set(even.places), even.median) == ({charts.FULL}, 100)
    uneven = charts.channel_spread(np.array([1.0, 1, 1, 64]))
    assert uneven.median == pytest.approx(100 / 64)
    assert charts.channel_spread(np.zeros(3)) is None


def test_the_page_is_the_same_each_time_and_small(reported: Reported):
    page = render(reported.report)
    assert page == render(reported.report)
    assert len(page) < 1_000_000
    assert EVIL not in page


def test_the_page_names_no_address(reported: Reported):
    """But for those in its libraries' comments, and the name of SVG's elements."""
    page = render(reported.report)
    assert set(re.findall(r"\b(?:src|href)=\"(#|data:,|.)", page)) <= {"#", "data:,"}
    own = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)
    addresses = set(re.findall(r"https?://[^\s\"')]+", own))
    addresses = {each for each in addresses if "example" not in each}  # of the evil name
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_other_models_by_themselves(reported: Reported):
    """A float model, and a quantized one without its original."""
    page, alone = onnxq.report(reported.int8, data=reported.data)
    assert not alone.quantized
    (view,) = alone.views
    assert {each.explanation.becomes for each in view.layers} >= {"quantized", "fused"}
    assert page
    page, bare = onnxq.report(reported.model)
    assert bare.notes[0].startswith("Nothing was measured")
    assert {each.explanation.becomes for each in bare.views[0].layers} == {"undecided"}
    assert "undecided" in page


def test_two_models_of_one_name_keep_their_own_verdicts(reported: Reported):
    int8, plain = (Model(each.proto) for each in (reported.int8, reported.plain))
    assert int8.name == plain.name
    better, worse = (row.values["sqnr"] for row in reported.report.validation.rows[1:])
    assert better > worse + 3
    limit = 100 * 10 ** (-(better + worse) / 40)
    page, gated = onnxq.report(
        reported.model, [int8, plain], data=reported.data, max_drop=limit, layers=False
    )
    assert not gated.passed
    assert re.findall(r'<div class="card (\w+)">', page) == ["passed", "failed"]
    assert len({*gated.names}) == 3


def test_settings_are_the_options_the_model_was_made_with(reported: Reported):
    settings = dict(onnxq.report(reported.int8)[1].views[0].settings)
    assert settings["weights"] == "per-tensor"
    assert settings["bias correction"] == "yes"
    assert (settings["rounding"], settings["max trials"]) == ("adaptive", "16")
    assert "data" not in settings


def test_settings_of_a_model_of_0_1(reported: Reported):
    """Its record holds those of the plan only."""
    record = json.loads(reported.int8.metadata[METADATA_KEY])
    del record["settings"], record["digest"]
    record["digest"] = _digest(record)
    old = with_metadata(reported.int8, {METADATA_KEY: json.dumps(record)})
    settings = dict(onnxq.report(old)[1].views[0].settings)
    assert settings["weights"] == "per tensor"
    assert settings["ranges"] == "mse"
    assert "rounding" not in settings


def test_what_needs_data_says_so(reported: Reported):
    with pytest.raises(UsageError, match="--max-drop needs data"):
        onnxq.report(reported.model, [reported.int8], max_drop=1.0)


def test_a_calibration_of_another_model_is_refused(reported: Reported):
    calibration = onnxq.calibrate(reported.model, reported.data)
    with pytest.raises(DataError, match="another model"):
        onnxq.report(TESTDATA / "mobilenetv2.onnx", calibration=calibration)


@pytest.mark.slow
def test_a_mobilenet_is_below_one_megabyte():
    path = TESTDATA / "mobilenetv2.onnx"
    data = images("calibration", 10)
    int8, _ = onnxq.quantize(
        path, data, bias_correction=False, rounding="nearest", ranges="minmax", target="cpu"
    )
    page, _ = onnxq.report(path, int8, data=images("test", 40))
    assert 200_000 < len(page.encode()) < 1_000_000


# --- one model, without a report ---------------------------------------------------------------


def two_layers(scale=1.0):
    """Two linear layers of a channel each way, the first scaled and the second unscaled by it."""
    b = Builder(0)
    first = np.float32([[1, 2], [4, -8], [0, 0.5]])
    x = b.op(
        "Relu", b.op("Gemm", b.input(2), b.const(first * scale), transB=1, shape=(3,), name="a")
    )
    second = np.float32([[1, 1, 1]]) / scale
    return b.model(b.op("Gemm", x, b.const(second), transB=1, shape=(1,), name="b"))


def facts_of(model, reference=None):
    given = None if reference is None else look_at(reference)
    return view("m", look_at(model), given, None, None)


def test_weights_are_drawn_by_their_outputs_from_the_narrowest_to_the_widest():
    found = {each.name: each for each in facts_of(two_layers()).layers}
    weights = found["a"].weights
    assert (weights.shape, weights.shown, weights.channels) == ((3, 2), 3, 3)
    assert (weights.spread_before, weights.boxes_before, weights.changed) == (None, None, False)
    assert found["a"].tensors == found["b"].tensors == ()


@pytest.mark.parametrize(("scale", "changed"), [(1.0, False), (1.01, False), (4.0, True)])
def test_a_weight_that_was_scaled_is_told_from_one_that_was_rounded(scale, changed):
    found = {e.name: e for e in facts_of(two_layers(scale), two_layers()).layers}
    assert found["a"].weights.changed is changed
    assert found["a"].weights.spread_before is not None


def test_a_layer_of_another_shape_has_no_before():
    other = Builder()
    model = other.model(other.gemm(other.gemm(other.input(2), 5, name="a"), 1, name="b"))
    found = {each.name: each for each in facts_of(two_layers(), model).layers}
    assert found["a"].weights.boxes_before is None


def test_what_another_node_took_up_is_called_by_its_kind():
    assert set(FOLDED) == set(FOLDS)
    b = Builder()
    conv = b.conv(b.input(3, 6, 6), 4, 3, bias=False)
    added = b.op("Add", conv, b.const(np.ones((1, 4, 1, 1), np.float32)), name="add")
    int8, _ = onnxq.quantize(Model(b.proto(added)), "random:8", target="cpu")
    details = onnxq.inspect(int8).details
    assert ("add", "joined bias") in next(tables(details)).rows
