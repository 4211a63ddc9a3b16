"""Ranges that clip values which matter are told."""

import numpy as np
import onnxq
import pytest
from onnxq.calibration import ranges
from onnxq.report.quantization import clipped_text

from support.builder import Builder


def model():
    b = Builder(2, spread=0)
    return b.model(b.gemm(b.op("Relu", b.gemm(b.input(8), 8)), 4))


def data():
    """A tenth of the samples is a hundred times as large: they have nearly all of the power."""
    x = np.random.default_rng(0).standard_normal((128, 8)).astype(np.float32)
    x[::10] *= 100
    return x


def quantized(**options):
    return onnxq.quantize(model(), data(), target="cpu", equalize=False, **options)[1]


def test_a_range_that_costs_more_than_it_saves_is_named(monkeypatch):
    monkeypatch.setattr(ranges, "PERCENTILE", 95.0)
    clipped = quantized(ranges="percentile").clipped
    assert "x" in {each.tensor for each in clipped}
    assert [each.loss_db for each in clipped] == sorted((c.loss_db for c in clipped), reverse=True)
    x = next(each for each in clipped if each.tensor == "x")
    assert x.smallest < 2 * x.low < 0 < 2 * x.high < x.largest
    assert x.loss_db > 20
    text = clipped_text(clipped, "percentile")
    assert text.startswith("warning: ranges clip values that matter: ")
    assert text.endswith("--ranges auto clips where it pays only")
    assert not clipped_text(clipped, "auto").endswith("only")


@pytest.mark.parametrize("method", ["auto", "mse", "minmax", "entropy"])
def test_the_others_clip_where_it_pays_only(method):
    assert quantized(ranges=method).clipped == ()


def test_an_end_that_moves_so_that_zero_is_exact_is_no_clip():
    """Pixels of -1 to 1, most of them black: of 256 numbers one is 0, so one end is half a step off."""
    x = np.random.default_rng(0).uniform(-1, 1, (128, 8)).astype(np.float32)
    x[x < 0.6] = -1
    x[0, 0] = 1
    result = onnxq.quantize(model(), x, target="cpu", equalize=False, ranges="minmax")[1]
    low, high = result.plan.static["x"].parameters.range
    assert low > -1 or high < 1
    assert result.clipped == ()
