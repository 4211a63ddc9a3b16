"""Results in a shell, a notebook and pandas."""

import sys

import numpy as np
import onnxq
import onnxq.api
import pandas as pd
import pytest
from onnxq.errors import UsageError
from onnxq.report.notebook import LOOKS
from onnxq.shown import Shown

from support.reporting import EVIL, Reported

WORDS = {onnxq.api.QuantizationResult, onnxq.api.Inspection, onnxq.Model}
"""Results whose frames hold no numbers."""


@pytest.fixture(scope="module")
def results(reported: Reported) -> dict[type[Shown], Shown]:
    calibration = onnxq.calibrate(reported.model, reported.data)
    _, equalized = onnxq.equalize(reported.model, calibration=calibration)
    _, quantized = onnxq.quantize(reported.model, reported.data, bias_correction=False)
    validation = reported.report.validation
    _, tuning = onnxq.tune(reported.model, reported.data, validate_data=reported.data, budget=0.01)
    timing = onnxq.bench(reported.model, seconds=0, profile=True)
    found = (
        calibration, equalized, quantized, validation, validation.layers[0], timing, tuning,
        onnxq.inspect(reported.int8), reported.int8,
    )  # fmt: skip
    return {type(each): each for each in found}


def test_every_result_is_there(results: dict[type[Shown], Shown]):
    assert set(results) == set(LOOKS)
    assert all(kind in LOOKS for kind in Shown.__subclasses__())


@pytest.mark.parametrize("kind", LOOKS, ids=lambda kind: kind.__name__)
def test_a_result_is_one_line_tables_and_a_frame(kind: type[Shown], results):
    result = results[kind]
    text = repr(result)
    assert text.startswith(f"{kind.__name__}(")
    assert "\n" not in text
    assert len(text) < 1000
    html = result._repr_html_()
    assert html.count("<table>") == html.count("</table>") > 0
    assert EVIL not in html
    # All rows are reachable.
    rows = sum(len(each.rows) for each in LOOKS[kind].tables(result))
    assert html.count("<tr>") == rows + html.count("<table>")
    frame = result.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) > 0
    assert frame.select_dtypes("number").shape[1] > 0 or kind in WORDS


def test_numbers_are_those_of_the_result(results):
    validation = results[onnxq.api.Validation]
    frame = validation.to_pandas()
    assert frame["sqnr"][1] == validation.rows[1].values["sqnr"]  # noqa: PD011
    assert np.isnan(frame["sqnr"][0])
    assert f"{frame['sqnr'][1]:.1f} dB" in repr(validation)
    layers = validation.layers[0].to_pandas()
    assert layers["share_percent"].sum() == pytest.approx(100)
    assert list(layers["layer"]) == [layer.name for layer in validation.layers[0].layers]


def test_without_pandas_it_says_what_to_do(results, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # importing it fails, as where it is not
    with pytest.raises(UsageError, match="pip install pandas"):
        results[onnxq.api.Validation].to_pandas()


def test_a_float_model_and_its_plan_show_themselves(reported: Reported):
    assert "Quantized: no" in reported.model._repr_html_()
    found = onnxq.inspect(reported.model)
    assert "onnxq quantize --target gpu --scheme w8a8: " in repr(found)
    assert list(found.to_pandas()["becomes"]).count("quantized") > 0


def test_a_report_shows_itself_inline(reported: Reported):
    page, _ = onnxq.report(reported.int8)
    shown = page._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert shown.count('"') == 6
    assert page.lstrip().startswith("<!DOCTYPE html>")
