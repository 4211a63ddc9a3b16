"""Arrays as data: .npz, .npy and memory."""

import io
import resource
import sys
import zipfile

import numpy as np
import pytest
from onnxq.data.axes import find_axes
from onnxq.data.open import open_data
from onnxq.data.preprocess import Preprocessing
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.model.model import TensorSpec


def spec(name="x", shape=("N", 3, 4), dtype="float32"):
    return TensorSpec(name, np.dtype(dtype), shape)


X = spec()
ROWS = np.random.default_rng(0).standard_normal((10, 3, 4), np.float32)
LABELS = np.arange(10)


def save(folder, name="d.npz", *, compressed=False, **arrays):
    path = folder / name
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def save_npy(folder, array, name="d.npy"):
    path = folder / name
    np.save(path, array)
    return path


def joined(source, batch_size=4, **window):
    return np.concatenate([b.feeds["x"] for b in source.batches(batch_size, **window)])


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_streams_in_order_any_number_of_times(tmp_path, compressed):
    path = save(tmp_path, compressed=compressed, x=ROWS, labels=LABELS)
    source = open_data(path, [X])
    assert (source.count, source.has_labels, source.note) == (10, True, "")
    assert (source.spec, source.sample_name(7)) == (str(path), f"{path}[7]")
    assert source.preprocessing is None
    for _ in range(2):
        batches = list(source.batches(4))
        assert [(b.start, len(b)) for b in batches] == [(0, 4), (4, 4), (8, 2)]
        np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), LABELS)
        assert batches[0].labels.dtype == np.int64
    np.testing.assert_array_equal(joined(source), ROWS)
    np.testing.assert_array_equal(joined(source, start=3, stop=8), ROWS[3:8])
    assert list(source.batches(4, start=10)) == []


def test_npy_and_memory_give_what_npz_gives(tmp_path):
    sources = [
        open_data(ROWS, [X]),
        open_data({"x": ROWS}, [X]),
        open_data(str(save_npy(tmp_path, ROWS)), [X]),
        open_data(save_npy(tmp_path, np.asfortranarray(ROWS), "fortran.npy"), [X]),
        open_data(save(tmp_path, x=ROWS), [X]),
    ]
    for source in sources:
        np.testing.assert_array_equal(joined(source), ROWS)
        np.testing.assert_array_equal(joined(source, start=7), ROWS[7:])
    assert len({source.fingerprint for source in sources}) == 1
    assert sources[0].sample_name(2) == "<memory>[2]"
    assert not sources[0].has_labels


def test_fingerprint_ignores_order_and_labels_but_not_values():
    original = open_data(ROWS, [X]).fingerprint
    assert len(original) == 64
    assert open_data(ROWS[::-1], [X]).fingerprint == original
    assert open_data({"x": ROWS, "labels": LABELS}, [X]).fingerprint == original
    assert open_data(ROWS.astype(np.float64), [X]).fingerprint == original
    assert open_data(ROWS[:9], [X]).fingerprint != original
    assert open_data(ROWS + 1, [X]).fingerprint != original
    doubled = np.concatenate([ROWS, ROWS])
    assert open_data(doubled, [X]).fingerprint != original


def test_samples_takes_the_first(tmp_path):
    source = open_data(save(tmp_path, x=ROWS, labels=LABELS), [X], samples=3)
    assert source.count == 3
    np.testing.assert_array_equal(joined(source), ROWS[:3])
    assert open_data(ROWS, [X], samples=99).count == 10


def test_one_array_fits_a_one_input_model_whatever_its_name(tmp_path):
    np.testing.assert_array_equal(
        joined(open_data(save(tmp_path, arr_0=ROWS, labels=LABELS), [X])), ROWS
    )


def test_two_inputs(tmp_path):
    ids = np.arange(10, dtype=np.int32)[:, None]
    inputs = [spec("ids", ("N", 1), "int64"), X]
    (batch,) = open_data(save(tmp_path, x=ROWS, ids=ids), inputs).batches(16)
    assert list(batch.feeds) == ["ids", "x"]
    assert batch.feeds["ids"].dtype == np.int64


def test_an_input_called_labels_is_an_input():
    source = open_data({"x": ROWS, "labels": LABELS}, [X, spec("labels", ("N",), "int64")])
    assert not source.has_labels
    assert "labels" in next(source.batches(1)).feeds


def test_labels_may_be_a_column():
    source = open_data({"x": ROWS, "labels": LABELS[:, None].astype(np.uint8)}, [X])
    np.testing.assert_array_equal(next(source.batches(3)).labels, [0, 1, 2])


def test_fixed_batch_is_forced():
    fixed = spec(shape=(2, 3, 4))
    assert find_axes([X]).fixed is None
    assert find_axes([fixed]).fixed == 2
    assert find_axes([spec(shape=None)]).fixed is None
    assert [len(b) for b in open_data(ROWS[:4], [fixed]).batches(64)] == [2, 2]


def test_samples_that_do_not_fill_a_fixed_batch_are_refused():
    with pytest.raises(DataError, match="5 samples do not fill batches of 2"):
        list(open_data(ROWS[:5], [spec(shape=(2, 3, 4))]).batches(64))


def test_a_model_without_inputs():
    with pytest.raises(ModelError, match="no inputs"):
        open_data(ROWS, [])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (ROWS.astype(np.float64), "float32"),
        (ROWS.astype(np.float16), "float32"),
        (ROWS, "float16"),
        (np.full((2, 3, 4), 255, np.uint8), "float32"),
        (np.full((2, 3, 4), 255, np.int64), "uint8"),
        (np.full((2, 3, 4), 1 << 24, np.int64), "float32"),
        (np.ones((2, 3, 4), np.int8), "bool"),
        (ROWS.astype(">f4"), "float32"),
    ],
)
def test_conversions_that_keep_the_values(values, dtype):
    (batch,) = open_data(values, [spec(dtype=dtype)]).batches(64)
    assert batch.feeds["x"].dtype == dtype
    np.testing.assert_allclose(batch.feeds["x"].astype(float), values.astype(float), rtol=1e-3)


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (ROWS, "int64", "input 'x' is float32, the model expects int64"),
        (ROWS.astype(complex), "float32", "input 'x' is complex128"),
        (ROWS.astype(str), "float32", "input 'x' is str"),
        (
            ROWS.astype(np.float64) * 1e300,
            "float32",
            "input 'x' has float64 values that do not fit",
        ),
        (np.full((2, 3, 4), 256), "uint8", "input 'x' has int64 values that do not fit"),
        (np.full((2, 3, 4), -1), "uint64", "do not fit the model's uint64"),
        (np.full((2, 3, 4), 2**63, np.uint64), "int64", "do not fit the model's int64"),
        (np.full((2, 3, 4), (1 << 24) + 1), "float32", "do not fit the model's float32"),
        # It has no infinity: what is too large becomes NaN.
        (ROWS * np.float32(1e6), "float8_e4m3fn", "do not fit the model's float8_e4m3fn"),
    ],
)
def test_conversions_that_would_change_values(values, dtype, message):
    with pytest.raises(DataError, match=message):
        list(open_data(values, [spec(dtype=dtype)]).batches(4))


@pytest.mark.parametrize(
    ("shape", "expected", "message"),
    [
        ((3, 4), ("N", 3, 4), r"shape 3×4, the model expects N×3×4 .*x\[None\]"),
        ((2, 3, 5), ("N", 3, 4), "input 'x' has shape 2×3×5, the model expects N×3×4"),
        ((2, 8, 9, 3), ("N", 3, 8, 9), "looks like NHWC.*2×3×8×9"),
        ((2, 3, 8, 9), (1, 8, 9, 3), "looks like NCHW.*2×8×9×3"),
        ((0, 3, 4), ("N", 3, 4), "holds no samples"),
    ],
)
def test_wrong_shapes(shape, expected, message):
    with pytest.raises(DataError, match=message):
        open_data(np.zeros(shape, np.float32), [spec(shape=expected)])


def test_open_dimensions_take_any_size():
    assert open_data(ROWS, [spec(shape=("N", "C", None))]).count == 10
    assert open_data(ROWS, [spec(shape=None)]).count == 10


@pytest.mark.parametrize(
    ("arrays", "inputs", "message"),
    [
        ({"pixels": ROWS, "mask": ROWS}, [spec("pixel"), spec("mask")], "'pixel'.*mean 'pixels'"),
        ({"x": ROWS, "lables": LABELS}, [X], "array 'lables' is no input.*mean 'labels'"),
        ({"x": ROWS, "qqqq": LABELS}, [X], "'qqqq' is no input.*can have are: x, labels"),
        ({"x": ROWS}, [X, spec("y")], "no array for input 'y'.*name one array for each input"),
        ({"a": ROWS, "b": ROWS}, [X], "no array for input 'x'.*its other arrays are: a, b"),
        ({"x": ROWS, "y": ROWS[:9]}, [X, spec("y")], "'x' has 10, 'y' has 9"),
        ({"x": ROWS, "labels": LABELS[:9]}, [X], "'x' has 10, 'labels' has 9"),
        ({"x": ROWS, "labels": LABELS / 2}, [X], "'labels' is float64, integers expected"),
        ({"x": ROWS, "labels": np.eye(10, dtype=int)}, [X], "'labels' has shape 10×10.*argmax"),
        ({"x": ROWS, "labels": LABELS - 3}, [X], r"d.npz\[0\]: the label -3 is no class index"),
    ],
)
def test_wrong_names_and_counts(tmp_path, arrays, inputs, message):
    with pytest.raises(DataError, match=message):
        open_data(save(tmp_path, **arrays), inputs)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "holds 1 NaN"), (-np.inf, "holds 1 Inf")])
def test_not_finite(tmp_path, value, message):
    rows = ROWS.copy()
    rows[6, 1, 2] = value
    path = save(tmp_path, x=rows)
    with pytest.raises(DataError, match=rf"d.npz\[6\]: input 'x' {message}"):
        list(open_data(path, [X]).batches(4))
    np.testing.assert_array_equal(joined(open_data(path, [X], nonfinite=None)), rows)


def pickled(path):
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


def truncated_header(path):
    np.save(path, ROWS)
    path.write_bytes(path.read_bytes()[:40])


def truncated_values(path):
    np.save(path, ROWS)
    path.write_bytes(path.read_bytes()[:-8])


def negative_shape(path):
    np.save(path, ROWS)
    path.write_bytes(path.read_bytes().replace(b"(10, 3, 4), ", b"(-1, 3, 4), "))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled, "holds Python objects"),
        (truncated_header, "cannot read"),
        (truncated_values, "is truncated"),
        (negative_shape, "is truncated"),
        (lambda path: path.write_bytes(b"\x80\x04K\x01."), "cannot read"),
        (lambda path: path.write_bytes(b""), "cannot read"),
        (lambda path: path.mkdir(), "cannot read|holds no images"),
    ],
)
def test_damaged_npy(tmp_path, damage, message):
    path = tmp_path / "broken.npy"
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        open_data(path, [X])
    assert "broken.npy" in str(caught.value)
    if path.is_dir():
        return
    archive = tmp_path / "broken.npz"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.write(path, "x.npy")
    with pytest.raises(DataError, match=message) as caught:
        open_data(archive, [X])
    assert "'x' of " in str(caught.value)
    assert "broken.npz" in str(caught.value)


def test_truncated_after_opening(tmp_path):
    path = save_npy(tmp_path, ROWS)
    source = open_data(path, [X])
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"cannot read .*d\.npy"):
        list(source.batches(4))


@pytest.mark.parametrize("content", [b"no archive", b"PK\x03\x04", b""])
def test_damaged_archive(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*broken\.npz"):
        open_data(path, [X])


def test_archive_with_flipped_bits(tmp_path):
    path = save(tmp_path, compressed=True, x=ROWS)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read array 'x' of .*d\.npz"):
        list(open_data(path, [X]).batches(4))


def test_empty_archive(tmp_path):
    with pytest.raises(DataError, match="no array for input 'x'"):
        open_data(save(tmp_path), [X])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss in KiB")
@pytest.mark.parametrize("name", ["big.npy", "big.npz"])
def test_reading_keeps_memory_flat(tmp_path, name):
    rows = 512
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (rows, 1 << 16)}
    )
    path = tmp_path / name
    zero = bytes(1 << 18)
    if name == "big.npz":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("x.npy", "w", force_zip64=True) as member,
        ):
            member.write(header.getvalue())
            for _ in range(rows):
                member.write(zero)
    else:
        with path.open("wb") as stream:
            stream.write(header.getvalue())
            stream.truncate(stream.tell() + rows * len(zero))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = open_data(path, [spec(shape=("N", 1 << 16))])
    assert sum(len(batch) for batch in source.batches(4)) == rows
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 << 10, f"{grown} KiB for a file of 128 MiB"


def test_arguments_that_make_no_sense():
    with pytest.raises(UsageError, match="number of samples"):
        open_data(ROWS, [X], samples=0)
    with pytest.raises(UsageError, match="batch size"):
        list(open_data(ROWS, [X]).batches(0))
    with pytest.raises(UsageError, match="<memory> takes no preprocessing"):
        open_data(ROWS, [X], preprocessing=Preprocessing())


def test_paths_that_are_no_data(tmp_path):
    save(tmp_path, "calibration.npz", x=ROWS)
    (tmp_path / "notes.doc").write_text("x")
    for text, message in [
        (tmp_path / "calibratoin.npz", r"calibratoin\.npz.*did you mean 'calibration\.npz'"),
        (tmp_path / "gone" / "x.npz", r"no data at .*gone.*data are an \.npz"),
        (tmp_path / ("x" * 5000), "no data at"),
        (tmp_path / "notes.doc", r"notes\.doc is no data file.*data are an \.npz"),
        ("", "no data at ''"),
    ]:
        with pytest.raises(DataError, match=message):
            open_data(text, [X])
