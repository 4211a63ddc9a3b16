"""The compiled loops give the bits that numpy gives."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxq import api
from onnxq.calibration import bins, compiled, costs, files
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.count import add_one_by_one, add_runs
from onnxq.model.blocked import Observed

from calibration.test_layouts import data, in_blocks, model

FIELDS = ("minimum", "maximum", "counts", "halves", "top", "not_finite", "step", "count")
SPECIAL = [0.0, -0.0, 1e-45, -1e-38, 2.0**-32, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan]
values = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.one_of(st.floats(-10, 10, width=32), st.sampled_from(SPECIAL).map(np.float32)),
)  # fmt: skip


def statistics(batches, axis, step, loops):
    accumulator = Accumulator(axis, step, loops)
    rng = np.random.default_rng(samples_of(batches[0]))
    finite = [accumulator.add(batch, rng.integers(0, 2, samples_of(batch))) for batch in batches]
    return finite, accumulator.finish()


def samples_of(batch):
    shape = batch.values.shape if isinstance(batch, Observed) else batch.shape
    return max(1, shape[0])


def same(batches, axis, step):
    assert compiled.loops() is not None
    ours, found = statistics(batches, axis, step, compiled.loops())
    theirs, expected = statistics(batches, axis, step, None)
    assert ours == theirs
    for field in FIELDS:
        assert np.array_equal(getattr(found, field), getattr(expected, field)), field
    assert found.minimum.tobytes() == expected.minimum.tobytes()


@settings(max_examples=200)
@given(st.lists(values, min_size=1, max_size=3), st.integers(1, 3), st.data())
def test_whatever_the_values(arrays, step, draw):
    batches = [arrays[0], *(array for array in arrays[1:] if array.shape == arrays[0].shape)]
    axis = draw.draw(st.sampled_from([None, *range(arrays[0].ndim)]))
    same(batches, axis, step if axis else 1)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 5]),
       st.sampled_from([4, 16]), st.sampled_from([0.0, np.nan]))  # fmt: skip
def test_blocks_of_channels(samples, channels, positions, step, block, first):
    rng = np.random.default_rng(channels)
    batches = [rng.standard_normal((samples, channels, positions, 1)) for _ in range(2)]
    batches[1].ravel()[0] = first
    batches = [batch.astype(np.float32) for batch in batches]
    # In blocks and not, as batches of another size may come.
    same([in_blocks(batches[0], block), batches[0], in_blocks(batches[1], block)], 1, step)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("channels", [2, 8, 16, 24, 100, 300])
def test_channels_last(channels, step):
    """In vectors where a number of channels fits one, in rows of several or one where not."""
    rng = np.random.default_rng(channels)
    same([rng.standard_normal((3, 7, channels)).astype(np.float32) for _ in range(2)], 2, step)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_three_ways_to_count(dtype):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << 14, (3, 500, 4)).astype(np.uint16)
    rows = codes.transpose(0, 2, 1).reshape(12, 500)
    room = np.pad(codes, ((0, 0), (0, 9), (0, 0)))
    results = [np.zeros((12, 2 + 2 * bins.magnitude_bins(128)), dtype) for _ in range(3)]
    add_runs(rows, results[0], 128)
    add_one_by_one(rows, results[1], 128)
    compiled.loops().count(room, 500, results[2], 128)
    assert results[0].sum() == codes.size
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_a_calibration_has_the_same_bytes_without_numba(monkeypatch):
    with_numba = files.to_bytes(api.calibrate(model(), data()))
    monkeypatch.setattr(compiled, "loops", lambda: None)
    assert files.to_bytes(api.calibrate(model(), data())) == with_numba


def test_without_numba_there_are_no_loops(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled.loops.__wrapped__() is None


def test_loops_are_compiled_where_no_folder_can_be_written(monkeypatch):
    """A read-only container without a home: numba then has nowhere to keep what it compiled."""
    monkeypatch.setattr(numba.core.config, "CACHE_LOCATOR_CLASSES", "_IPythonCacheLocator")
    loops = compiled.loops.__wrapped__()
    accumulator = Accumulator(None, 1, loops)
    accumulator.add(np.arange(8, dtype=np.float32))
    assert accumulator.finish().high == 7.0


def test_loops_are_compiled_where_they_cannot_be_kept(tmp_path):
    """A full disk where numba keeps what it compiled."""
    program = """
import resource
import numpy as np
from onnxq.calibration import compiled
from onnxq.calibration.accumulate import Accumulator
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
accumulator = Accumulator(None, 1, compiled.loops())
accumulator.add(np.arange(8, dtype=np.float32))
print(accumulator.finish().high, compiled.loops() is not None)
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert told.stdout.split() == ["7.0", "True"]


@pytest.mark.parametrize("size", [0, 1, 1000, costs.BLOCK + 77])
def test_what_is_weighed_is_the_same(size, monkeypatch):
    rng = np.random.default_rng(size)
    values, gradient = rng.standard_normal((2, size)).astype(np.float32)
    values[::50] = np.resize(np.array(SPECIAL, np.float32), len(values[::50]))
    found = costs.sums_by_code(values, gradient)
    monkeypatch.setattr(compiled, "loops", lambda: None)
    assert np.array_equal(found, costs.sums_by_code(values, gradient))
    assert found[0].sum() == pytest.approx(np.square(gradient.astype(np.float64)).sum())
