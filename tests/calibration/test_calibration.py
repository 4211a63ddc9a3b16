"""The pass over the data, its file, and merging shards."""

import dataclasses
import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from onnxq.api import calibrate
from onnxq.calibration import compiled, files
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.merge import merge
from onnxq.errors import DataError

from support.builder import Builder


def model():
    b = Builder(1)
    x = b.clip(b.conv(b.input(3, 6, 6), 8, 3))
    return b.model(b.head(b.op("Add", x, b.conv(x, 8))))


def data(count=50, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def calibration():
    return calibrate(model(), data())


def saved(calibration, folder, name="c.calib"):
    path = folder / name
    files.save(calibration, path)
    return path


def assert_same(a, b):
    assert a.tensors.keys() == b.tensors.keys()
    for name, first in a.tensors.items():
        second = b.tensors[name]
        assert (first.axis, first.top, first.not_finite) == (
            second.axis, second.top, second.not_finite,
        )  # fmt: skip
        for field in ("minimum", "maximum", "counts"):
            one, two = getattr(first, field), getattr(second, field)
            assert one.dtype == two.dtype
            assert np.array_equal(one, two)
    for field in ("provenance", "data", "note", "samples", "shards"):
        assert getattr(a, field) == getattr(b, field)


# --- the pass ----------------------------------------------------------------------------------


def test_inputs_and_channels_are_counted(calibration):
    x = data()
    found = calibration.tensors["x"]
    assert found.count == x.size
    assert found.low == x.min()
    assert found.high == x.max()
    assert calibration.samples == 50
    clip = next(t for name, t in calibration.tensors.items() if name.startswith("clip"))
    assert clip.axis == 1
    assert clip.channels == 8
    assert clip.low >= 0
    assert clip.high <= 6


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shards_merge_to_the_bits_of_one_pass(calibration, count, tmp_path):
    parts = [calibrate(model(), data(), shard=(i, count)) for i in range(1, count + 1)]
    merged = merge(parts[::-1])
    assert_same(merged, calibration)
    paths = [saved(merged, tmp_path, "a"), saved(calibration, tmp_path, "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_samples_does_not_matter(calibration, seed):
    other = calibrate(model(), np.random.default_rng(seed).permutation(data()))
    assert files.to_bytes(other) == files.to_bytes(calibration)


def test_merging_in_steps(calibration):
    parts = [calibrate(model(), data(), shard=(i, 4)) for i in range(1, 5)]
    assert_same(merge([merge(parts[2:]), merge(parts[:2])]), calibration)
    assert merge(parts[:3]).shards == ((1, 4), (2, 4), (3, 4))


def test_a_shard_without_samples_is_refused():
    with pytest.raises(DataError, match="no samples in shard 5/9"):
        calibrate(model(), data(3), shard=(5, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "other"}, "different data"),
        ({"shards": ((1, 2),)}, "shard 1/2 is given twice"),
        ({"shards": ((2, 3),)}, "they split the data differently"),
    ],
)
def test_what_cannot_be_merged(change, message):
    part = calibrate(model(), data(), shard=(1, 2))
    with pytest.raises(DataError, match=message):
        merge([part, dataclasses.replace(part, **change)])


@pytest.mark.parametrize(("field", "what"), [("model", "models"), ("preprocessing", "preprocessing"),
                                             ("schema", "bins")])  # fmt: skip
def test_other_origins_cannot_be_merged(field, what):
    part = calibrate(model(), data(), shard=(1, 2))
    other = dataclasses.replace(part.provenance, **{field: "other"})
    with pytest.raises(DataError, match=f"different {what}"):
        merge([part, dataclasses.replace(part, provenance=other)])


# --- what is not finite ------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "kind"), [(-1.0, "NaN"), (0.0, "Inf")])
def test_activations_that_are_not_finite_are_named(value, kind):
    b = Builder()
    x = b.input(4)
    log = b.op("Log", x, name="log")
    proto = b.model(b.gemm(log, 3))
    values = np.ones((20, 4), np.float32)
    values[13, 2] = value
    with pytest.raises(DataError, match=f"{kind} in activation 'log' for sample .*13"):
        calibrate(proto, values)
    found = calibrate(proto, values, allow_nonfinite=True).tensors["log"]
    assert found.not_finite == 1
    assert found.count == 79


# --- the file ----------------------------------------------------------------------------------


def test_saving_and_loading_changes_nothing(calibration, tmp_path):
    path = saved(calibration, tmp_path)
    loaded = files.load(path)
    assert_same(loaded, calibration)
    assert saved(loaded, tmp_path, "again").read_bytes() == path.read_bytes()


def test_the_same_data_give_the_same_bytes(calibration, tmp_path):
    first = saved(calibration, tmp_path, "a")
    second = saved(calibrate(model(), data()), tmp_path, "b")
    assert first.read_bytes() == second.read_bytes()


def test_the_file_holds_no_pickles(calibration, tmp_path):
    with zipfile.ZipFile(saved(calibration, tmp_path)) as archive:
        for name in archive.namelist():
            assert name.endswith((".json", ".npy"))
            assert b"\x80\x04\x95" not in archive.read(name)[:16]


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such calibration file"):
        files.load(tmp_path / "none.calib")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and nothing else"])
def test_another_file(tmp_path, content):
    path = tmp_path / "c.calib"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a calibration file, or a damaged one"):
        files.load(path)


def assert_refused_or_as_it_was(damaged, calibration, path):
    path.write_bytes(damaged)
    try:
        loaded = files.load(path)
    except DataError:
        return
    assert_same(loaded, calibration)


def test_damage_is_found_wherever_it_is(calibration, tmp_path):
    """Cut short or with a byte changed, a file is refused or reads as it was."""
    content = saved(calibration, tmp_path).read_bytes()
    path = tmp_path / "damaged"
    rng = np.random.default_rng(0)
    for size in rng.integers(0, len(content), 40):
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            files.load(path)
    for position in rng.integers(0, len(content), 80):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        assert_refused_or_as_it_was(damaged, calibration, path)


def entries_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_damage_to_the_directory_loses_no_entry_without_a_word(calibration, tmp_path):
    """Names and lengths there have no checksum: halves may be missing then, which files may lack."""
    content = saved(calibration, tmp_path).read_bytes()
    path = tmp_path / "damaged"
    begin = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x01\x02", begin + (len(content) - begin) // 2)
    for position in range(content.rindex(b"PK\x01\x02", begin, end), len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        assert_refused_or_as_it_was(damaged, calibration, path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples", "x"), ("samples", -1), ("batch_size", True), ("batch_size", 0), ("data", None),
     ("model", 3), ("preprocessing", []), ("note", {}), ("shards", []), ("shards", [[2, 1]]),
     ("tensors", []), ("tensors", {})],
)  # fmt: skip
def test_a_field_of_another_type_is_refused(calibration, tmp_path, field, value):
    path = saved(calibration, tmp_path)
    entries = entries_of(path)
    header = json.loads(entries["header.json"]) | {field: value}
    write_entries(path, entries | {"header.json": json.dumps(header).encode()})
    with pytest.raises(DataError, match="not a calibration file, or a damaged one"):
        files.load(path)


def test_numbers_of_another_type_are_refused(calibration, tmp_path):
    path = saved(calibration, tmp_path)
    entries = entries_of(path)
    counts = np.load(io.BytesIO(entries["0/counts.npy"]))
    stream = io.BytesIO()
    np.save(stream, np.full(counts.shape, np.nan))
    write_entries(path, entries | {"0/counts.npy": stream.getvalue()})
    with pytest.raises(DataError, match="not a calibration file, or a damaged one"):
        files.load(path)


@pytest.mark.parametrize(("field", "value"), [("version", 99), ("bins", "others")])
def test_another_version_is_refused(calibration, tmp_path, field, value):
    path = saved(calibration, tmp_path)
    entries = entries_of(path)
    header = json.loads(entries["header.json"]) | {field: value}
    write_entries(path, entries | {"header.json": json.dumps(header).encode()})
    with pytest.raises(DataError, match="written by another onnxq"):
        files.load(path)


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loops", [None, compiled.loops()])
def test_large_maps_leave_nothing_as_large_behind(loops):
    maps = [
        np.random.default_rng(seed).standard_normal((2, 3, 700, 800)).astype(np.float32)
        for seed in (0, 1)
    ]
    found = Accumulator(1, loops=loops)
    found.add(maps[0], np.zeros(2, np.intp))
    tracemalloc.start()
    found.add(maps[1], np.ones(2, np.intp))
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < maps[0].nbytes / 50
    statistics = found.finish()
    both = np.concatenate(maps)
    assert statistics.count == both.size
    assert np.array_equal(statistics.minimum, both.min((0, 2, 3)))
    assert np.array_equal(statistics.maximum, both.max((0, 2, 3)))
    assert statistics.halves.tolist() == [[part.min(), part.max()] for part in maps]
