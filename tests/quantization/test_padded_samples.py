"""quantize and validate on padded samples: as on the same without padding."""

import numpy as np
import onnxq
import pytest
from onnxq.errors import UsageError

from support.masked import encoder, padded, save_feeds, sentences

SAMPLES = sentences(192)
OPTIONS = {"target": "cpu"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpadded(tmp_path_factory):
    return save_feeds(SAMPLES, tmp_path_factory.mktemp("unpadded") / "feeds")


@pytest.fixture(scope="module")
def made(unpadded):
    """From samples with padding, and without."""
    return [onnxq.quantize(encoder(), data, **OPTIONS) for data in (padded(SAMPLES), unpadded)]


def row(model, data, **options):
    return onnxq.validate(encoder(), model, data, **options)


def test_models_of_padded_samples_are_as_good(made, unpadded):
    """Those of the same samples with the padding counted are much worse."""
    ignoring, _ = onnxq.quantize(encoder(), padded(SAMPLES), mask="none", **OPTIONS)
    masked, wanted, bad = (
        row(model, unpadded).rows[1].values["sqnr"] for model in (made[0][0], made[1][0], ignoring)
    )
    assert masked == pytest.approx(wanted, abs=0.5)
    assert bad < wanted - 3


def test_the_estimate_is_of_real_positions(made):
    """Not the same samples are held out, so it is about the same only."""
    (_, masked), (_, wanted) = made
    assert masked.quantized_sqnr == pytest.approx(wanted.quantized_sqnr, abs=1)
    found = {each.name: each.left_out for each in masked.closeness}
    assert found["mean"] == 0
    assert 30 < found["y"] < 60
    assert all(each.left_out == 0 for each in wanted.closeness)


def test_validate_compares_real_positions(made, unpadded):
    quantized = made[1][0]
    data = padded(SAMPLES)
    masked, wanted = row(quantized, data), row(quantized, unpadded)
    for mine, each in zip(masked.rows[1].outputs, wanted.rows[1].outputs, strict=True):
        assert mine.whole.sqnr == pytest.approx(each.whole.sqnr, abs=0.05)
        assert mine.whole.cosine == pytest.approx(each.whole.cosine, abs=1e-4)
    share = 100 * (1 - data["attention_mask"].mean())
    assert masked.note == f"outputs without the {share:.0f} % that 'attention_mask' masks"
    assert wanted.note == ""
    assert row(quantized, data, mask="none").note == ""


def test_padding_may_hold_anything(made):
    """What stands there changes no figure."""
    quantized = made[1][0]
    one, other = (
        row(quantized, padded(SAMPLES, value=value), executions=["cpu"]).rows[1].values["sqnr"]
        for value in (0.0, 50.0)
    )
    assert one == pytest.approx(other, abs=0.01)


def test_a_report_is_of_real_positions(made):
    _, report = onnxq.report(encoder(), made[1][0], data=padded(SAMPLES[:16]), layers=False)
    assert any("that 'attention_mask' masks" in note for note in report.notes)
    assert any("only the positions that 'attention_mask' keeps" in note for note in report.notes)


def test_a_mask_that_the_model_lacks_is_refused():
    with pytest.raises(UsageError, match="the model has no input 'mask'"):
        onnxq.calibrate(encoder(), padded(SAMPLES[:2]), mask="mask")


def test_equalize_proves_on_padded_samples_all_the_same():
    result = onnxq.equalize(encoder(), data=padded(SAMPLES[:32]))[1]
    assert result.change.identical
    assert "attention_mask" in result.calibration.note
    assert np.isfinite(result.calibration.tensors["x"].high)


def test_layers_are_ranked_at_real_positions(made, unpadded):
    """Probes are the first samples, with padding or without."""
    quantized = made[1][0]
    masked, wanted = (row(quantized, data, layers=True, samples=32).layers[0]
                      for data in (padded(SAMPLES), unpadded))  # fmt: skip
    assert masked.together == pytest.approx(wanted.together, abs=0.3)
    shares = [{each.name: each.share for each in found.layers} for found in (masked, wanted)]
    assert shares[0] == pytest.approx(shares[1], abs=2)
