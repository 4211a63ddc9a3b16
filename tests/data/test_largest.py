"""What runs at once is planned for the largest sample, wherever it stands in the data."""

import numpy as np
import pytest
from onnxq import api
from onnxq.calibration import files
from onnxq.calibration.stream import Request, one_sample, with_largest
from onnxq.data.budget import GROUP, Limits, OneSample, plan_batching
from onnxq.data.largest import largest_sample
from onnxq.errors import DataError
from onnxq.model import blocked
from onnxq.model.files import infer_shapes
from onnxq.model.model import Model

from support.builder import Builder

SIDES = (8, 8, 20, 6, 33, 33, 12)


def convolutions(*sides):
    """On maps whose sides have names where they are open."""
    b = Builder(0)
    x = b.input(3, 8, 8)
    for _ in range(3):
        x = b.clip(b.conv(x, 4, 3))
    proto = b.model(x).proto
    del proto.graph.value_info[:]
    for each in (proto.graph.input[0], proto.graph.output[0]):
        for axis, side in zip(each.type.tensor_type.shape.dim[2:], sides, strict=True):
            if isinstance(side, str):
                axis.dim_param = side
    return infer_shapes(Model(proto))


@pytest.fixture
def folder(tmp_path):
    """Feeds of several sizes, the first ones small."""
    rng = np.random.default_rng(0)
    for number, side in enumerate(SIDES):
        x = rng.standard_normal((3, 3, side, side)).astype(np.float32)
        np.savez(tmp_path / f"{number}.npz", x=x)
    return tmp_path


def test_the_largest_of_several_sizes(folder):
    model = convolutions("h", "w")
    found = largest_sample(model, api.as_source(folder, model))
    assert found["x"].shape == (1, 3, 33, 33)


def test_the_plan_follows_the_largest(folder):
    model = convolutions("h", "w")
    source = api.as_source(folder, model)
    one = {side: OneSample(model, lambda side=side: {"x": np.zeros((1, 3, side, side), "f4")})
           for side in (8, 33)}  # fmt: skip
    assert plan_batching(one[8], Limits(memory=300_000)).size == GROUP
    expected = plan_batching(one[33], Limits(memory=300_000))
    assert expected.size < GROUP
    assert plan_batching(one_sample(model, source), Limits(memory=300_000)) == expected
    # Several processes are told.
    request = with_largest(Request({}, ""), model, source)
    assert request.sample(model, None).largest["x"].shape == (1, 3, 33, 33)


def test_no_run_of_varying_images_exceeds_the_memory(folder, monkeypatch):
    """What goes through the model at once, measured: samples × elements of each run."""
    model, seen = convolutions("h", "w"), []
    run = blocked.run

    def watched(session, names, feeds):
        seen.append(feeds["x"].size)
        return run(session, names, feeds)

    whole = files.to_bytes(api.calibrate(model, folder))
    monkeypatch.setattr(blocked, "run", watched)
    assert files.to_bytes(api.calibrate(model, folder, memory=200_000)) == whole
    assert max(seen) == 3 * 33 * 33
    assert len(seen) >= 3 * len(SIDES)


class Watched:
    """A source that tells what is read of it."""

    def __init__(self, source):
        self.source, self.read = source, 0

    def __getattr__(self, name):
        return getattr(self.source, name)

    def batches(self, size, **options):
        for batch in self.source.batches(size, **options):
            self.read += 1
            yield batch


@pytest.mark.parametrize(("sides", "read"), [((8, 8), 1), (("h", 8), 3)])
def test_what_the_model_fixes_need_not_be_looked_for(sides, read):
    model = convolutions(*sides)
    source = Watched(api.as_source(np.zeros((24, 3, 8, 8), "f4"), model))
    assert largest_sample(model, source)["x"].shape == (1, 3, 8, 8)
    assert source.read == read


def test_no_samples():
    model = convolutions(8, 8)
    source = Watched(api.as_source(np.zeros((2, 3, 8, 8), "f4"), model))
    source.batches = lambda size: iter(())
    with pytest.raises(DataError, match="no samples"):
        largest_sample(model, source)
