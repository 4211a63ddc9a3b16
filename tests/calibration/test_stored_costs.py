"""What errors cost at the outputs, kept in the calibration file for who quantizes without data."""

import io
import zipfile

import numpy as np
import pytest
from onnxq.api import calibrate, explain, quantize
from onnxq.calibration import files
from onnxq.calibration.merge import merge
from onnxq.calibration.stored_costs import SCALED, of_same
from onnxq.errors import DataError, UsageError
from onnxq.gradients.measure import MOST
from onnxq.quantization.finish import NO_SAMPLES
from onnxq.quantization.weighed import Estimate

from support.builder import Builder


def model():
    """SiLU is no scale-equivariant function: nothing in front of it is scaled, the rest may be."""
    b = Builder(1)
    y = b.conv(b.input(3, 6, 6), 8, 3)
    y = b.op("Mul", y, b.op("Sigmoid", y), name="silu")
    z = b.op("Relu", b.conv(y, 8, 3), name="relu")
    return b.model(b.head(b.conv(z, 8, 3)))


def data(count=24):
    """Few values are large, as where an image has an object."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((count, 3, 6, 6)) * np.exp(rng.standard_normal((count, 1, 1, 1)))
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def calibration():
    return calibrate(model(), data(), gradients=True)


def test_the_file_holds_what_was_measured(calibration, tmp_path):
    files.save(calibration, tmp_path / "m.calib")
    loaded = files.load(tmp_path / "m.calib")
    assert loaded.costs.samples == calibration.costs.samples == 24
    assert loaded.costs.tensors.keys() == calibration.costs.tensors.keys() >= {"silu", "relu"}
    assert loaded.costs.refused == calibration.costs.refused
    for name, costs in calibration.costs.tensors.items():
        found = loaded.costs.tensors[name]
        assert found.samples == costs.samples
        for each in ("power", "products", "below", "above"):
            assert np.array_equal(getattr(found, each), getattr(costs, each)), (name, each)
        assert np.array_equal(found.products, found.products.T)
    assert files.to_bytes(loaded) == (tmp_path / "m.calib").read_bytes()


@pytest.mark.parametrize("count", [24, 3 * MOST])
def test_the_order_of_the_samples_does_not_matter(count):
    one, other = (calibrate(model(), each, gradients=True) for each in (data(count), turned(count)))
    assert one.costs.samples == min(count, MOST)
    assert files.to_bytes(one) == files.to_bytes(other)


def turned(count):
    return data(count)[::-1].copy()


def test_without_gradients_the_file_is_as_it_was(calibration):
    plain = calibrate(model(), data())
    assert plain.costs is None
    with zipfile.ZipFile(io.BytesIO(files.to_bytes(plain))) as archive:
        assert not [name for name in archive.namelist() if "cost" in name]
        assert b"costs" not in archive.read("header.json")


def test_ranges_are_weighed_by_them(calibration):
    _, plain = quantize(model(), calibration=calibrate(model(), data()), target="cpu")
    assert plain.ranges == ()
    quantized, result = quantize(model(), calibration=calibration, target="cpu", equalize=False)
    assert {each.tensor for each in result.ranges} >= {"silu", "relu"}
    assert {each.chosen for each in result.ranges} <= set(Estimate) - {Estimate.GRADIENT}
    assert not [each for each in result.ranges if each.on_trial]
    assert {each.why_not for each in result.ranges} <= {"", NO_SAMPLES}
    assert explain(quantized, "silu")


def test_what_equalization_scales_has_none(calibration):
    _, result = quantize(model(), calibration=calibration, target="cpu")
    scaled = result.prepared.calibration.tensors
    assert not calibration.tensors["relu"].has_extremes_of(scaled["relu"])
    kept = of_same(calibration.costs, calibration.tensors, scaled)
    assert "silu" in kept.tensors
    assert kept.refused["relu"] == SCALED
    assert "relu" not in {each.tensor for each in result.ranges}


def test_shards_have_none(calibration):
    with pytest.raises(UsageError, match="--gradients does not go with --shard"):
        calibrate(model(), data(), gradients=True, shard=(1, 2))
    assert merge(shards()).costs is None


def shards():
    return [calibrate(model(), data(), shard=(part, 2)) for part in (1, 2)]


def test_they_are_added_to_merged_shards(calibration):
    found = calibrate(model(), data(), gradients=True, calibration=merge(shards()))
    assert files.to_bytes(found) == files.to_bytes(calibration)


def test_they_are_not_added_to_what_does_not_fit(calibration):
    with pytest.raises(DataError, match="of a part of the data"):
        calibrate(model(), data(), gradients=True, calibration=shards()[0])
    with pytest.raises(UsageError, match="has nothing to add"):
        calibrate(model(), data(), calibration=calibration)
    for other in ({"dask": "tcp://host:1"}, {"resume": True}):
        with pytest.raises(UsageError, match=f"does not go with --{next(iter(other))}"):
            calibrate(model(), data(), gradients=True, calibration=calibration, **other)


def test_costs_that_do_not_fit_are_refused(calibration, tmp_path):
    path = tmp_path / "m.calib"
    with zipfile.ZipFile(io.BytesIO(files.to_bytes(calibration))) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    place = next(name for name in content if "cost_products" in name)
    content[place] = content[place.replace("products", "power")]
    with zipfile.ZipFile(path, "w") as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    with pytest.raises(DataError, match="not a calibration file, or a damaged one"):
        files.load(path)


def test_no_gradient_has_a_reason():
    b = Builder(1)
    y = b.op("Relu", b.conv(b.input(3, 6, 6), 8, 3), name="relu")
    chosen = b.op("ArgMax", b.head(y), axis=1, keepdims=0, name="chosen")
    found = calibrate(b.model(b.op("Cast", chosen, to=1)), data(), gradients=True)
    assert not found.costs.tensors.keys() & found.costs.refused.keys()
    assert found.costs.refused
