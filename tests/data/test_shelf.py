"""What waits on a shelf comes back bit for bit, from memory or from a file."""

import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnxq.data.shelf import Shelf, Values
from onnxq.errors import ResourceError

RNG = np.random.default_rng(0)
ROOMY, NONE = 1 << 30, 0


def filled(room, groups, parts=2):
    """Values that hold these groups, each in so many parts."""
    values = Shelf(room).values()
    for group in groups:
        first, *rest = np.array_split(group, parts)
        values.append(first, share=len(first) / len(group))
        for part in rest:
            values.extend(part)
    return values


@pytest.mark.parametrize("room", [ROOMY, NONE])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.float16, bool])
def test_groups_come_back(room, dtype):
    groups = [RNG.standard_normal((8, 3, 4)).astype(dtype), RNG.random((5, 3, 4)).astype(dtype)]
    values = filled(room, groups)
    assert values.shapes == [(8, 3, 4), (5, 3, 4)]
    assert values.dtype == dtype
    for found, group in zip(values, groups, strict=True):
        assert found.tobytes() == group.tobytes()
    for chosen in (slice(1, 8, 2), slice(2, 3), slice(4, None), slice(6, 6)):
        assert np.array_equal(values.rows(0, chosen), groups[0][chosen])


@pytest.mark.parametrize("room", [ROOMY, NONE])
def test_changes_stay(room):
    values = filled(room, [np.zeros((4, 2), np.float32), np.ones((3, 2), np.float32)])
    values.change(lambda array: np.add(array, 2, out=array))
    assert [each.tolist() for each in values] == [[[2, 2]] * 4, [[3, 3]] * 3]


def test_pieces_are_small_only_in_files():
    group = np.zeros((4, 1 << 22), np.float32)
    assert len(filled(ROOMY, [group]).pieces(0)) == 1
    pieces = filled(NONE, [group]).pieces(0)
    assert [len(range(*piece.indices(4))) for piece in pieces] == [1, 1, 1, 1]


def test_room_is_taken_and_given_back():
    shelf = Shelf(100)
    first, second = shelf.values(), shelf.values()
    first.append(np.zeros(20, np.float32))
    assert shelf.room == 20
    second.append(np.zeros(20, np.float32))
    assert shelf.room == 20
    del first
    gc.collect()
    assert shelf.room == 100


def test_texts_scalars_and_other_axes_stay_in_memory():
    shelf = Shelf(0)
    values = shelf.values()
    values.append(np.array(["a", "b"], object))
    values.append(np.float32(3) * np.ones(()))
    values.append(np.zeros((2, 1)), axis=1, share=0.5)
    values.extend(np.ones((2, 1)))
    values.append(np.zeros(3), axis=None, share=0.5)
    values.extend(np.ones(3))
    assert values[0].tolist() == ["a", "b"]
    assert values[1] == 3
    assert values[2].tolist() == [[0, 1], [0, 1]]
    assert values[3].tolist() == [0, 0, 0]


def test_lists_pass_for_values():
    arrays = [np.zeros(3), np.ones(2)]
    values = Values.of(arrays)
    assert values[1] is arrays[1]
    assert Values.of(values) is values


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_said(monkeypatch):
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        values = Shelf(0).values()
        with pytest.raises(ResourceError, match=r"temporary files, .*, is full \(set TMPDIR"):
            values.append(np.zeros((4, 4)))
