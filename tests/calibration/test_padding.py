"""Padding that a mask names does not count: as if the samples had been given without it."""

import numpy as np
import pytest
from onnxq.api import as_source, calibrate
from onnxq.calibration import files
from onnxq.calibration.merge import merge
from onnxq.calibration.ranges import distribution, estimate
from onnxq.errors import DataError

from support.masked import encoder, padded, save_feeds, sentences

SAMPLES = sentences(40)
ALONE = {"scores", "biased", "weights"}
"""Tensors of two axes of tokens, all of which counts."""


@pytest.fixture(scope="module")
def unpadded(tmp_path_factory):
    folder = save_feeds(SAMPLES, tmp_path_factory.mktemp("masked") / "feeds")
    return calibrate(encoder(), folder)


@pytest.mark.parametrize("kind", [np.int64, np.float32])
@pytest.mark.parametrize("left", [False, True])
def test_histograms_are_those_of_the_samples_without_padding(unpadded, kind, left):
    """Values may differ in their last bits: sums have other numbers of zeros among them."""
    model = encoder(mask={np.int64: 7, np.float32: 1}[kind])
    found = calibrate(model, padded(SAMPLES, kind=kind, left=left))
    assert found.note == "only the positions that 'attention_mask' keeps"
    assert {"x", "values", "mixed", "u1", "h", "y"} <= found.tensors.keys()
    for name in unpadded.tensors.keys() - ALONE:
        mine, wanted = found.tensors[name], unpadded.tensors[name]
        assert mine.axis == wanted.axis
        assert np.allclose(mine.minimum, wanted.minimum, atol=1e-5), name
        assert np.allclose(mine.maximum, wanted.maximum, atol=1e-5), name
        assert mine.count == wanted.count, name
        assert np.allclose(mine.mean_square, wanted.mean_square, rtol=0.01), name


def test_a_model_that_joins_samples_and_tokens_leaves_it_out_too(unpadded):
    found = calibrate(encoder(flat=True), padded(SAMPLES))
    for name, other in (("u2", "u1"), ("h2", "h"), ("y", "y")):
        assert found.tensors[name].count == unpadded.tensors[other].count
        assert found.tensors[name].high == pytest.approx(unpadded.tensors[other].high, rel=1e-4)


def test_with_no_mask_padding_counts():
    found = calibrate(encoder(), padded(SAMPLES), mask="none")
    assert found.note == ""
    assert found.tensors["x"].high == 30
    assert calibrate(encoder(), padded(SAMPLES)).tensors["x"].high < 10


def test_samples_without_padding_are_counted_as_ever():
    whole = [np.repeat(sample, 12, axis=0)[:12] for sample in SAMPLES]
    some, other = (calibrate(encoder(), padded(whole), mask=mask) for mask in (None, "none"))
    assert some.note == other.note == ""
    for name, each in some.tensors.items():
        assert np.array_equal(each.counts, other.tensors[name].counts)


def test_neither_order_nor_shards_nor_batches_matter(tmp_path):
    data = padded(SAMPLES)
    whole = calibrate(encoder(), data)
    turned = calibrate(encoder(), {name: values[::-1] for name, values in data.items()})
    parts = []
    for index in (1, 2, 3):
        path = tmp_path / f"{index}.calib"
        files.save(calibrate(encoder(), data, shard=(index, 3), batch_size=1), path)
        parts.append(path)
    joined = merge([files.load(path) for path in parts])
    for other in (turned, joined):
        assert files.to_bytes(other) == files.to_bytes(whole)
    halves = [each.halves for each in whole.tensors.values()]
    assert all(np.isfinite(each).all() for each in halves)
    assert any(not np.array_equal(*each) for each in halves)


def test_a_model_of_fixed_length_leaves_it_out_where_shapes_tell(unpadded):
    fixed = calibrate(encoder(tokens=12), padded(SAMPLES))
    assert fixed.tensors["u1"].count == unpadded.tensors["u1"].count
    # All positions of a fixed shape would be thinned; which ones depends on what lies before them.
    assert {each.step for each in fixed.tensors.values()} == {1}


def test_ranges_are_no_matter_of_padding(unpadded):
    def width(calibration):
        parts = [(calibration.tensors["u1"], None)]
        return estimate(distribution(parts), "mse", levels=256, symmetric=False)[1]

    data = padded(SAMPLES)
    assert width(calibrate(encoder(), data)) == pytest.approx(width(unpadded), rel=1e-3)
    assert width(calibrate(encoder(), data, mask="none")) > 2 * width(unpadded)


def test_a_source_says_which_mask_it_has():
    model = encoder()
    assert as_source(padded(SAMPLES), model).axes.mask == "attention_mask"
    assert as_source(padded(SAMPLES), model, mask="none").axes.mask == ""


def test_a_mask_that_keeps_nothing_is_refused():
    """All the same one sample may be padding throughout; its mean is NaN."""
    data = padded(SAMPLES)
    data["attention_mask"][3] = 0
    assert "u1" in calibrate(encoder(), data, allow_nonfinite=True).tensors
    data["attention_mask"][:] = 0
    with pytest.raises(DataError, match="'attention_mask' keeps no position of any sample"):
        calibrate(encoder(), data, allow_nonfinite=True)
