"""Along which axis arrays hold samples: what shapes tell, and where they do not."""

import numpy as np
import pytest
from onnxq.data.axes import find_axes
from onnxq.data.batching import BatchAxes
from onnxq.data.layouts import Holds, Layout, SampleColumn, arrange, sample_of
from onnxq.data.storage import MemoryColumn
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec

ROWS, FEED, ITEM = Holds.ROWS, Holds.FEED, Holds.ITEM


def spec(*shape, name="x"):
    return TensorSpec(name, np.dtype(np.float32), shape)


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def samples(values, wanted, axis, holds):
    """Every sample of an array, as a list of arrays."""
    found = arrange({"x": values.shape}, [wanted], BatchAxes({"x": axis}), "d", holds=holds)
    column = SampleColumn(MemoryColumn(values), found.layouts["x"])
    (rows,) = column.rows([(0, found.count)])
    return list(rows)


@pytest.mark.parametrize("holds", [ROWS, FEED, ITEM])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_samples_lie_along_the_axis_of_the_input(axis, holds):
    shape = [2, 3, 4]
    values = numbers(*shape)
    wanted = spec(*("N" if each == axis else size for each, size in enumerate(shape)))
    found = samples(values, wanted, axis, holds)
    assert len(found) == shape[axis]
    for index, sample in enumerate(found):
        assert np.array_equal(sample, values.take(index, axis))


def test_rows_may_come_first_whatever_the_axis_of_the_input():
    values = numbers(5, 2, 4)
    found = samples(values, spec(2, "N", 4), 1, ROWS)
    assert np.array_equal(found, values)


def test_a_sample_of_an_item_may_lack_the_axis_that_counts():
    values = numbers(2, 4)
    (found,) = samples(values, spec(2, "N", 4), 1, ITEM)
    assert np.array_equal(found, values)


def test_feeds_along_a_first_axis_lose_the_axis_of_one():
    values = numbers(5, 2, 1, 4)
    found = samples(values, spec(2, "N", 4), 1, FEED)
    assert np.array_equal(found, values[:, :, 0])


def test_an_input_that_counts_no_samples_is_one_for_all_or_one_each():
    shared = numbers(3)
    axes = BatchAxes({"x": 0, "rate": None})
    inputs = [spec("N", 2), spec(3, name="rate")]
    found = arrange({"x": (4, 2), "rate": (3,)}, inputs, axes, "d", holds=ROWS)
    assert (found.count, found.layouts["rate"].axis) == (4, None)
    (rows,) = SampleColumn(MemoryColumn(shared), found.layouts["rate"]).rows([(1, 3)])
    assert np.array_equal(rows, [shared, shared])
    found = arrange({"x": (4, 2), "rate": (4, 3)}, inputs, axes, "d", holds=ROWS)
    assert found.layouts["rate"].axis == 0


def test_an_image_without_the_axis_of_one():
    values = numbers(6, 3, 5)
    axes = BatchAxes({"x": None})
    found = arrange({"x": (6, 3, 5)}, [spec(1, 3, 5)], axes, "d", holds=ROWS)
    assert found.count == 6
    (rows,) = SampleColumn(MemoryColumn(values), found.layouts["x"]).rows([(0, 6)])
    assert rows.shape == (6, 1, 3, 5)
    assert np.array_equal(rows[:, 0], values)


def test_ranges_are_read_one_after_the_other():
    values = numbers(2, 7)
    column = SampleColumn(MemoryColumn(values), Layout(1))
    assert [rows.tolist() for rows in column.rows([(0, 2), (5, 6)])] == [
        [[0, 7], [1, 8]],
        [[5, 12]],
    ]
    assert column.dtype == np.float32


def test_labels_decide_between_two_axes():
    axes = BatchAxes({"x": 1})
    inputs, shapes = [spec(3, "N")], {"x": (3, 3)}
    found = arrange({"x": (3, 4)}, inputs, axes, "d", holds=ROWS, labels=4)
    assert (found.count, found.layouts["x"].axis) == (4, 1)
    with pytest.raises(DataError, match="axis 1 or axis 0 of array 'x' may count the samples"):
        arrange(shapes, inputs, axes, "d", holds=ROWS, labels=3)


def test_arrays_that_disagree_are_counted():
    inputs = [spec("N", 2), spec("N", 2, name="y")]
    axes = BatchAxes({"x": 0, "y": 0})
    with pytest.raises(DataError, match="number of samples: 'x' has 3, 'y' has 4, 'labels' has 5"):
        arrange({"x": (3, 2), "y": (4, 2)}, inputs, axes, "d", holds=ROWS, labels=5)


@pytest.mark.parametrize("holds", [FEED, ITEM])
def test_a_feed_whose_first_axes_differ_is_one_sample_where_their_names_do(holds):
    """Such as the nodes and the edges of a graph, or queries and documents."""
    inputs = [spec("V", 16, name="nodes"), spec(2, "E", name="edges"), spec("E", 8, name="weights")]
    axes = find_axes(inputs, [spec("V", 4, name="y")])
    shapes = {"nodes": (5, 16), "edges": (2, 9), "weights": (9, 8)}
    found = arrange(shapes, inputs, axes, "d", holds=holds)
    assert found.count == 1
    assert set(found.axes.inputs.values()) == {None}
    assert {layout.axis for layout in found.layouts.values()} == {None}
    with pytest.raises(DataError, match="disagree"):
        arrange(shapes, inputs, axes, "d", holds=ROWS)


@pytest.mark.parametrize("holds", [FEED, ITEM])
@pytest.mark.parametrize("count", [1, 5, 9])
def test_a_feed_beside_whose_nodes_are_edges_is_one_sample(holds, count):
    """PyTorch Geometric's inputs: the edges' only open axis is not their first one."""
    inputs = [spec("V", 16, name="nodes"), spec(2, "E", name="edges")]
    axes = find_axes(inputs, [spec("V", 4, name="y")])
    found = arrange({"nodes": (count, 16), "edges": (2, 9)}, inputs, axes, "d", holds=holds)
    assert found.count == 1
    assert dict(found.axes.inputs) == {"nodes": None, "edges": None}
    assert {layout.axis for layout in found.layouts.values()} == {None}


def test_items_without_their_axis_of_samples_get_it_beside_a_shared_input():
    inputs = [spec("N", 16, name="x"), spec(2, "P", name="cache")]
    axes = find_axes(inputs, [spec("N", 4, name="y")])
    found = arrange({"x": (16,), "cache": (2, 9)}, inputs, axes, "d", holds=ITEM)
    assert dict(found.axes.inputs) == {"x": 0, "cache": None}


@pytest.mark.parametrize(
    "inputs",
    [
        [spec("batch", 16, name="x"), spec(2, "P", name="cache")],
        [spec("N", "L", name="x"), spec(1, "L", name="places")],
        [spec("N", 16, name="x"), spec("P", name="cache")],
    ],
)
def test_other_inputs_without_samples_are_shared_by_them(inputs):
    assert not find_axes(inputs).beside


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="d holds no samples"):
        arrange({"x": (0, 2)}, [spec("N", 2)], BatchAxes({"x": 0}), "d", holds=ROWS)


@pytest.mark.parametrize(
    ("shape", "axis", "wanted", "message"),
    [
        ((3, 5), 0, ("N", 4), "has shape 3×5, the model expects N×4"),
        ((3, 5), 1, (2, "N"), "has shape 3×5, the model expects 2×N"),
        ((3,), None, (2, 2), "has shape 3, the model expects 2×2"),
    ],
)
def test_what_no_layout_fits_is_refused(shape, axis, wanted, message):
    with pytest.raises(DataError, match=message):
        arrange({"x": shape}, [spec(*wanted)], BatchAxes({"x": axis}), "d", holds=ROWS)


def test_one_number_is_an_array_of_one_element():
    found = sample_of(np.array(3), spec("N", 1), BatchAxes({"x": 0}), "d")
    assert (found.shape, found.dtype, found.tolist()) == ((1,), np.float32, [3])


def test_a_record_holds_one_sample():
    axes = BatchAxes({"x": 0})
    assert sample_of(numbers(1, 2), spec("N", 2), axes, "d").shape == (2,)
    assert sample_of(numbers(2), spec("N", 2), axes, "d").shape == (2,)
    with pytest.raises(DataError, match="input 'x' holds 3 samples"):
        sample_of(numbers(3, 2), spec("N", 2), axes, "d")
