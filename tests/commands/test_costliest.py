"""The layers that cost most are named where a model is hardly of use, and only there."""

import dataclasses

import numpy as np
import pytest
from onnxq.api import as_source, calibrate
from onnxq.commands.costliest import NAMED, PROBES, costliest, ranked_layers
from onnxq.data.budget import USUAL
from onnxq.errors import DataError
from onnxq.model.normalize import normalize
from onnxq.progress import SILENT
from onnxq.quantization import quantize as stage
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.request import LOW_SQNR, Request
from onnxq.quantization.samples import take_samples
from onnxq.targets.read import target_named

from support.testdata import uneven

DATA = {"x": np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def made():
    """A network whose channels differ by exponents, with one scale a weight, said to be bad."""
    model = uneven()
    source = as_source(DATA, model)
    calibration = calibrate(model, source)
    normalized, normalization = normalize(model)
    request = Request(
        normalized, normalization, calibration,
        take_samples(source, calibration, hold_out=0, unseen=False), target_named("gpu"),
        QuantizationOptions(per_channel=False), equalize=False, center=False, correct=False,
        adaptive=False, progress=SILENT,
    )  # fmt: skip
    quantized, result = stage.quantize(request)
    bad = dataclasses.replace(result, quantized_sqnr=LOW_SQNR - 1)
    return request, (quantized, bad), source


def test_those_with_the_largest_shares_are_named(made):
    request, (quantized, result), source = made
    found = costliest(request, (quantized, result), source, USUAL)
    ranked = ranked_layers(request, (quantized, result), source, PROBES, USUAL)
    assert [each.node for each in found] == [layer.name for layer in ranked[: len(found)]]
    assert 0 < len(found) <= NAMED
    shares = [each.share for each in found]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100 + 1e-6
    assert all(each.weighted == (each.node in result.plan.weighted) for each in found)


@pytest.mark.parametrize("sqnr", [LOW_SQNR, 40.0, np.inf, np.nan])
def test_nobody_looks_where_the_model_is_good_or_unmeasured(made, sqnr):
    request, (quantized, result), source = made
    good = dataclasses.replace(result, quantized_sqnr=sqnr)
    assert costliest(request, (quantized, good), source, USUAL) == ()


def test_without_data_they_are_unknown(made):
    request, both, _ = made
    assert costliest(request, both, None, USUAL) == ()


def test_data_that_fail_do_not_take_the_model_away(made, tmp_path):
    request, both, _ = made
    path = tmp_path / "gone.npy"
    np.save(path, DATA["x"])
    source = as_source(path, request.model)
    path.unlink()
    with pytest.raises(DataError):
        ranked_layers(request, both, source, PROBES, USUAL)
    assert costliest(request, both, source, USUAL) == ()
