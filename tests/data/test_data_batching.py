"""Each input has its own batch axis or none; feeds are told from samples by rank and shape."""

import numpy as np
import pytest
from onnxq.data.axes import find_axes
from onnxq.data.batching import Feeds, alike, join, regroup, samples_in, stack
from onnxq.data.open import open_data
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec


def spec(name, *shape, dtype="float32"):
    return TensorSpec(name, np.dtype(dtype), shape)


X, STATE, RATE = spec("x", "N", 32), spec("state", 2, "N", 16), spec("rate", dtype="int64")
IMAGE = spec("image", 3, "height", "width")


@pytest.mark.parametrize(
    ("inputs", "outputs", "axes", "fixed"),
    [
        # Shared names: on another axis, and none on a scalar.
        ([X, STATE, RATE], [], {"x": 0, "state": 1, "rate": None}, None),
        ([spec("ids", "batch", "seq"), spec("mask", "batch", "seq")], [],
         {"ids": 0, "mask": 0}, None),
        ([spec("ids", "seq", "batch"), spec("h", 2, "batch", 8)], [], {"ids": 1, "h": 1}, None),
        # Of one input, the name that an output begins with.
        ([spec("x", "T", "N", 64)], [spec("y", "N", 10)], {"x": 1}, None),
        ([spec("x", "N", 3, "H", "W")], [spec("y", "M", 1, "H", "W")], {"x": 0}, None),
        # Not the width of images, whose columns are steps of the output.
        ([spec("x", "N", 1, 32, "W")], [spec("y", "W", "N", 96)], {"x": 0}, None),
        ([spec("x", "N", 64, "T")], [spec("y", "T", "N", 96)], {"x": 0}, None),
        ([spec("x", "T", "N", 64)], [spec("y", "N", "T", 96)], {"x": 1}, None),
        # Of two that are alike otherwise, the one with a usual letter.
        ([spec("x", "T", "N", 64)], [spec("y", "T", "N", 96)], {"x": 1}, None),
        ([spec("x", "steps", "B", 64)], [spec("y", "steps", "B", 96)], {"x": 1}, None),
        ([spec("x", "N", "L")], [spec("y", "L", 96)], {"x": 0}, None),
        ([spec("x", 1, "N", 3)], [spec("y", 1, "N", 8)], {"x": 0}, 1),
        ([spec("x", "batch", "N", 64)], [spec("y", "N", "batch", 96)], {"x": 0}, None),
        # Without names: a first axis of 2 does not count samples while another input's is free.
        ([spec("x", None, None), spec("h", 2, None, 128), RATE], [],
         {"x": 0, "h": 1, "rate": None}, None),
        ([spec("x", None, 8), spec("anchors", 2, 8)], [], {"x": 0, "anchors": None}, None),
        # A name that is not the one of samples counts none.
        ([X, spec("cache", 2, "past", 16)], [], {"x": 0, "cache": None}, None),
        ([spec("ids", "batch", "seq"), spec("positions", "seq")], [],
         {"ids": 0, "positions": None}, None),
        ([spec("ids", "N", "L"), spec("positions", "L"), spec("lengths", "N")], [],
         {"ids": 0, "positions": None, "lengths": 0}, None),
        ([X, spec("z", "M", 4)], [], {"x": 0, "z": 0}, None),
        # No axis is free, or none counts samples.
        ([spec("x", 4, 8), spec("z", 4)], [], {"x": 0, "z": 0}, 4),
        ([spec("x", 1, 32), spec("h", 2, 1, 16), RATE], [], {"x": 0, "h": 1, "rate": None}, 1),
        ([spec("a", 3, 4), spec("b", 4, 5)], [], {"a": None, "b": None}, 1),
        ([IMAGE], [spec("y", 4, "height", "width")], {"image": None}, 1),
        ([spec("x", 3, "seq")], [spec("y", 3, 10)], {"x": 0}, 3),
        ([RATE], [], {"rate": None}, 1),
        ([TensorSpec("x", np.dtype("float32"), None)], [], {"x": 0}, None),
        ([spec("x", 0, 3)], [], {"x": None}, 1),
    ],
)  # fmt: skip
def test_axes_that_shapes_tell(inputs, outputs, axes, fixed):
    found = find_axes(inputs, outputs)
    assert dict(found.inputs) == axes
    assert found.fixed == fixed


@pytest.mark.parametrize(
    ("outputs", "axes"),
    [
        ([spec("y", "N", 4), spec("stateN", 2, "N", 16)], {"y": 0, "stateN": 1}),
        ([spec("y", None, 4), spec("loss")], {"y": 0, "loss": None}),
        ([spec("stateN", 2, None, 16)], {"stateN": 1}),
    ],
)
def test_axes_of_outputs(outputs, axes):
    assert find_axes([X, STATE], outputs).outputs == axes


def test_outputs_of_a_model_without_batch_axis_have_none():
    assert find_axes([IMAGE], [spec("y", "n", 4)]).outputs == {"y": None}


def feeds(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((count, 32), np.float32),
        "state": rng.standard_normal((2, count, 16), np.float32),
        "rate": np.int64(16000),
    }


def test_batches_are_taken_apart_and_joined_along_each_axis():
    axes = find_axes([X, STATE, RATE])
    whole = Feeds({name: np.asarray(v) for name, v in feeds().items()}, axes)
    assert whole.samples == samples_in(whole) == 6
    part = whole.take([1, 4])
    assert {name: v.shape for name, v in part.items()} == {
        "x": (2, 32), "state": (2, 2, 16), "rate": (),
    }  # fmt: skip
    np.testing.assert_array_equal(part["state"], whole["state"][:, [1, 4]])
    again = stack([whole.sample(row) for row in range(6)], axes)
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values)
    assert [each.samples for each in regroup(whole.singles(), 4)] == [4, 2]


def test_samples_that_share_other_values_make_other_batches():
    axes = find_axes([X, RATE])
    one, two = ({"x": np.zeros(32), "rate": np.int64(rate)} for rate in (8000, 16000))
    assert alike(one, dict(one), axes)
    assert not alike(one, two, axes)
    source = open_data({"x": np.zeros((6, 32), np.float32),
                        "rate": np.array([8, 8, 8, 16, 16, 16])}, [X, RATE])  # fmt: skip
    assert [(b.start, len(b), int(b.feeds["rate"])) for b in source.batches(4)] == [
        (0, 3, 8), (3, 1, 16), (4, 2, 16),
    ]  # fmt: skip


def test_outputs_without_a_batch_axis_are_stacked():
    parts = [np.full((4, 2), value) for value in (1, 2, 3)]
    assert join(parts, 0).shape == (12, 2)
    assert join(parts, 1).shape == (4, 6)
    assert join(parts, None).shape == (3, 4, 2)


# --- arrays ------------------------------------------------------------------------------------


def check_states(source, wanted):
    """Six samples with their states, in batches of four and two."""
    batches = list(source.batches(4))
    assert [len(batch) for batch in batches] == [4, 2]
    np.testing.assert_array_equal(
        np.concatenate([b.feeds["state"] for b in batches], 1), wanted["state"]
    )
    np.testing.assert_array_equal(np.concatenate([b.feeds["x"] for b in batches]), wanted["x"])
    assert all(b.feeds["rate"].shape == () for b in batches)


@pytest.mark.parametrize("unnamed", [False, True])
@pytest.mark.parametrize(
    "layout",
    [
        lambda d: d,
        lambda d: d | {"state": np.moveaxis(d["state"], 1, 0)},
        lambda d: d | {"rate": np.full(6, 16000)},
        lambda d: {"x": d["x"][:, None], "state": np.moveaxis(d["state"], 1, 0)[:, :, None],
                   "rate": d["rate"]},
    ],
    ids=["model's layout", "axis 0 counts", "a rate for each", "feeds one after the other"],
)  # fmt: skip
def test_an_npz_holds_states_in_any_layout(tmp_path, layout, unnamed):
    arrays = feeds()
    np.savez(tmp_path / "d.npz", **layout(arrays))
    inputs = (
        [spec("x", None, 32), spec("state", 2, None, 16), RATE] if unnamed else [X, STATE, RATE]
    )
    source = open_data(tmp_path / "d.npz", inputs)
    assert source.count == 6
    check_states(source, arrays)
    assert source.fingerprint == open_data(arrays, inputs).fingerprint


def test_the_number_of_samples_tells_an_axis():
    free = spec("h", None, None, 16)
    source = open_data({"x": feeds()["x"], "h": feeds()["state"]}, [spec("x", None, 32), free])
    assert source.axes.inputs == {"x": 0, "h": 1}
    assert source.count == 6


def test_an_array_that_may_be_read_in_two_ways_is_refused():
    with pytest.raises(DataError, match="axis 1 or axis 0 of array 'state' may count the samples"):
        open_data(feeds(2), [X, STATE, RATE])


def test_images_without_a_batch_axis():
    values = np.random.default_rng(0).standard_normal((5, 3, 6, 7), np.float32)
    for data, count in ((values, 5), (values[0], 1)):
        source = open_data(data, [IMAGE])
        assert source.count == count
        shapes = [batch.feeds["image"].shape for batch in source.batches(8)]
        assert shapes == [(3, 6, 7)] * count
        np.testing.assert_array_equal(next(source.batches(8)).feeds["image"], values[0])


def test_a_model_without_batch_axis_is_fed_whole():
    inputs = [spec("a", 3, 4), spec("b", 4, 5)]
    data = {"a": np.ones((3, 4), np.float32), "b": np.ones((4, 5), np.float32)}
    (batch,) = open_data(data, inputs).batches(8)
    assert (len(batch), batch.feeds["b"].shape) == (1, (4, 5))


# --- functions, folders ------------------------------------------------------------------------

FUNCTIONS = """
import numpy as np

def draw(i):
    r = np.random.default_rng(i)
    return r.standard_normal(32, np.float32), r.standard_normal((2, 16), np.float32)

def samples():
    for x, s in map(draw, range(6)):
        yield {"x": x, "state": s, "rate": 16000}

def whole():
    for x, s in map(draw, range(6)):
        yield {"x": x[None], "state": s[:, None], "rate": np.int64(16000)}

def threes():
    for start in (0, 3):
        x, s = zip(*map(draw, range(start, start + 3)))
        yield {"x": np.stack(x), "state": np.stack(s, 1), "rate": 16000, "label": [0, 1, 2]}

def mixed():
    for x, s in map(draw, range(6)):
        yield {"x": x, "state": s[:, None], "rate": 16000}

def lopsided():
    for x, s in map(draw, range(6)):
        yield {"x": np.stack([x, x]), "state": s[:, None], "rate": 16000}
"""


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "data.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.mark.parametrize("name", ["samples", "whole", "threes", "mixed"])
def test_a_function_yields_samples_or_whole_feeds(functions, name):
    source = open_data(f"{functions}:{name}", [X, STATE, RATE])
    expected = open_data(f"{functions}:samples", [X, STATE, RATE])
    wanted = next(iter(expected.batches(6))).feeds
    check_states(source, wanted)
    assert source.fingerprint == expected.fingerprint
    assert source.has_labels == (name == "threes")


def test_a_feed_whose_inputs_disagree_is_refused(functions):
    with pytest.raises(DataError, match="'x' has 2, 'state' has 1"):
        list(open_data(f"{functions}:lopsided", [X, STATE, RATE]).batches(1))


def test_a_folder_of_feeds(tmp_path):
    wanted = feeds()
    for number in range(6):
        one = {"x": wanted["x"][[number]], "state": wanted["state"][:, [number]], "rate": 16000}
        np.savez(tmp_path / f"{number}.npz", **one)
    source = open_data(tmp_path, [X, STATE, RATE])
    check_states(source, wanted)
    assert source.sample_name(2) == str(tmp_path / "2.npz")
    assert source.fingerprint == open_data(wanted, [X, STATE, RATE]).fingerprint
    assert open_data(tmp_path, [X, STATE, RATE], samples=2).count == 2
    # Two samples of a file that is one feed are no riddle.
    np.savez(tmp_path / "9.npz", **feeds(2))
    assert open_data(tmp_path, [X, STATE, RATE]).count == 8


# --- text --------------------------------------------------------------------------------------

COLOR = spec("color", None, 1, dtype=str)


@pytest.mark.parametrize("kind", ["U", "S", "object", "function", "parquet"])
def test_text(tmp_path, kind):
    colors = ["red", "grün", "blue", "red"]
    rows = np.array(colors)[:, None]
    data = tmp_path / "data.npz"
    if kind == "U":
        np.savez(data, color=rows)
    elif kind == "S":
        np.savez(data, color=np.array([each.encode() for each in colors])[:, None])
    elif kind == "object":
        data = rows.astype(object)
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        data = tmp_path / "data.parquet"
        parquet.write_table(pyarrow.table({"color": colors}), data)
    else:
        (tmp_path / "data.py").write_text(
            f"def samples():\n    for text in {colors}:\n        yield {{'color': [text]}}\n"
        )
        data = f"{tmp_path / 'data.py'}:samples"
    source = open_data(data, [COLOR])
    found = np.concatenate([batch.feeds["color"] for batch in source.batches(3)])
    assert found.dtype.kind == "U"
    assert found.tolist() == rows.tolist()
    if kind != "parquet":  # whose rows are fingerprinted as they are stored
        assert source.fingerprint == open_data(rows, [COLOR]).fingerprint


def test_numbers_are_no_text():
    with pytest.raises(DataError, match="'color' is float32, the model expects str"):
        open_data(np.zeros((3, 1), np.float32), [COLOR])
    with pytest.raises(DataError, match="other values than text"):
        list(open_data(np.array([["a"], [3]], object), [COLOR]).batches(2))
