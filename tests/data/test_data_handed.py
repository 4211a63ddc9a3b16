"""What Python programs hand over: every kind gives the feeds that arrays give."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxq
import pytest
from onnxq.data.open import open_data
from onnxq.data.preprocess import Preprocessing
from onnxq.errors import DataError, UsageError
from onnxq.model.model import TensorSpec
from PIL import Image

from support.testdata import uneven

X = TensorSpec("x", np.dtype(np.float32), ("N", 2))
PAIR = (X, TensorSpec("y", np.dtype(np.float32), ("N", 2)))
VALUES = np.arange(12, dtype=np.float32).reshape(6, 2)
LABELS = [3, 1, 4, 1, 5, 9]
PICTURE = TensorSpec("image", np.dtype(np.float32), ("N", 3, 4, 4))
UNIT = Preprocessing.parse("unit,resize=4x4")


class Tensor:
    """A tensor as PyTorch's answers: one that needs gradients refuses to be an array."""

    def __init__(self, values, *, grad=True):
        self.values, self.grad, self.shape = np.asarray(values), grad, np.shape(values)

    def detach(self):
        return Tensor(self.values, grad=False)

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        if self.grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        return self.values


class SequentialSampler:
    pass


class RandomSampler:
    pass


class Loader:
    """What a `torch.utils.data.DataLoader` of (inputs, labels) shows: batches, again and again."""

    def __init__(self, batch, sampler):
        self.batch, self.sampler, self.batch_size = batch, sampler, batch

    def __len__(self):
        return (len(VALUES) + self.batch - 1) // self.batch

    def __iter__(self):
        for start in range(0, len(VALUES), self.batch):
            yield [
                Tensor(VALUES[start : start + self.batch]),
                Tensor(LABELS[start : start + self.batch]),
            ]


class Rows:
    """A dataset with a length and an index, and no end of its own."""

    def __len__(self):
        return len(VALUES)

    def __getitem__(self, index):
        return VALUES[index % 6], LABELS[index % 6]


class Reader:
    """As ONNX Runtime's `CalibrationDataReader`: it is read once."""

    def __init__(self):
        self.rest = iter(VALUES)

    def get_next(self):
        row = next(self.rest, None)
        return None if row is None else {"x": row[None]}


class Rewinding(Reader):
    def rewind(self):
        self.rest = iter(VALUES)


def rows():
    yield from ({"x": row, "label": label} for row, label in zip(VALUES, LABELS, strict=True))


def read(source, size=4):
    """All samples in order, and their labels where there are any."""
    batches = list(source.batches(size))
    values = np.concatenate([batch.feeds.arrays["x"] for batch in batches])
    return values, None if batches[0].labels is None else [
        label for batch in batches for label in batch.labels.tolist()
    ]


@pytest.mark.parametrize(
    ("data", "labelled"),
    [
        (rows, True),
        (rows(), True),
        (list(rows()), True),
        (list(VALUES), False),
        ([row.tolist() for row in VALUES], False),
        (Loader(4, SequentialSampler()), True),
        (Rows(), True),
        (Reader(), False),
        (Rewinding(), False),
        (Tensor(VALUES), False),
        ([{"x": VALUES[:5]}, {"x": VALUES[5:]}], False),
        ([{"features": VALUES[:4].tolist(), "labels": LABELS[:4]},
          {"features": VALUES[4:].tolist(), "labels": LABELS[4:]}], True),
    ],
    ids=["function", "generator", "list of dicts", "list of arrays", "list of lists",
         "loader", "map-style dataset", "reader", "rewinding reader", "tensor", "whole feeds",
         "columns of other names"],
)  # fmt: skip
def test_every_kind_gives_what_an_array_gives(data, labelled):
    source = open_data(data, [X])
    values, labels = read(source)
    assert np.array_equal(values, VALUES)
    assert labels == (LABELS if labelled else None)
    assert source.count == 6
    # Read again, and in parts.
    assert np.array_equal(read(source, 2)[0], VALUES)
    assert source.fingerprint == open_data(VALUES, [X]).fingerprint


def test_tuples_feed_several_inputs_in_their_order():
    data = [(row, row + 1, label) for row, label in zip(VALUES, LABELS, strict=True)]
    (batch,) = open_data(data, PAIR).batches(6)
    assert np.array_equal(batch.feeds.arrays["y"], VALUES + 1)
    assert batch.labels.tolist() == LABELS
    (batch,) = open_data([row[:2] for row in data], PAIR).batches(6)
    assert batch.labels is None


def test_lists_of_dicts_are_sequences():
    data = [[{"x": VALUES[0]}, {"x": VALUES[1]}], [{"x": VALUES[2]}]]
    assert open_data(data, [X]).source.starts == (0, 2)


def test_a_function_makes_feeds_of_what_is_yielded():
    loader = Loader(3, SequentialSampler())
    source = open_data(loader, [X], preprocessing=lambda item: {"x": item[0].detach()})
    values, labels = read(source)
    assert np.array_equal(values, VALUES)
    assert labels is None


BUFFER = np.zeros((1, 2), np.float32)


def filled(row):
    BUFFER[:] = row
    return BUFFER


class Refilling(Reader):
    def get_next(self):
        row = next(self.rest, None)
        return None if row is None else {"x": filled(row)}


class RefilledRows(Rows):
    def __getitem__(self, index):
        return filled(VALUES[index])


@pytest.mark.parametrize(
    "data",
    [
        lambda: ({"x": filled(row)} for row in VALUES),
        ({"x": filled(row)} for row in VALUES),
        (filled(row) for row in VALUES),
        ((filled(row), 1) for row in VALUES),
        Refilling(),
        RefilledRows(),
    ],
    ids=["function", "feeds", "arrays", "tuples", "reader", "dataset"],
)
def test_an_array_that_is_filled_again_for_each_sample_is_read_each_time(data):
    values, _ = read(open_data(data, [X]))
    assert np.array_equal(values, VALUES)


def test_no_more_is_taken_of_an_iterator_than_samples():
    endless = ({"x": VALUES[0]} for _ in iter(int, 1))
    assert open_data(endless, [X], samples=3).count == 3


# --- images ------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Images in class folders, and as values in the same order."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(4):
        image = Image.fromarray(generator.integers(0, 256, (6, 5, 3), np.uint8))
        path = tmp_path / "images" / f"{index // 2}_class" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        found.append((path, image))
    return tmp_path / "images", found


def images(source):
    return np.concatenate([batch.feeds.arrays["image"] for batch in source.batches(4)])


@pytest.mark.parametrize("kind", ["paths", "texts", "images", "rows", "pairs", "labelled paths"])
def test_images_in_python_give_what_their_folder_gives(pictures, kind):
    folder, found = pictures
    data = {
        "paths": [path for path, _ in found],
        "texts": [str(path) for path, _ in found],
        "images": [image for _, image in found],
        "rows": [{"image": image, "label": i // 2} for i, (_, image) in enumerate(found)],
        "pairs": [(image, i // 2) for i, (_, image) in enumerate(found)],
        "labelled paths": [(path, i // 2) for i, (path, _) in enumerate(found)],
    }[kind]
    source = open_data(data, [PICTURE], preprocessing=UNIT)
    wanted = open_data(folder, [PICTURE], preprocessing=UNIT)
    assert np.array_equal(images(source), images(wanted))
    assert str(source.preprocessing) == str(wanted.preprocessing)
    labelled = kind in {"rows", "pairs", "labelled paths"}
    assert [b.labels.tolist() for b in source.batches(4) if labelled] == [[0, 0, 1, 1]] * labelled


def by_hand(image):
    assert image.mode == "RGB"
    return np.asarray(image.resize((4, 4)), np.float32).transpose(2, 0, 1)


def as_batch(image):
    """As processors of Hugging Face's answer."""
    return {"pixel_values": [by_hand(image)]}


@pytest.mark.parametrize("transform", [by_hand, as_batch])
def test_a_function_makes_arrays_of_images(pictures, transform):
    folder, found = pictures
    wanted = np.stack([by_hand(image) for _, image in found])
    for data in (folder, [path for path, _ in found], [image for _, image in found]):
        source = open_data(data, [PICTURE], preprocessing=transform)
        assert np.array_equal(images(source), wanted)
    source = open_data(folder, [PICTURE], preprocessing=transform, samples=2)
    assert [batch.labels.tolist() for batch in source.batches(4)] == [[0, 1]]


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "kind", "message"),
    [
        (3, {}, UsageError, "data are a int .*DataLoader"),
        (Loader(2, RandomSampler()), {}, UsageError, r"shuffles \(RandomSampler\).*shuffle=False"),
        ([], {}, DataError, "yields no samples"),
        (lambda one: [one], {}, DataError, "failed: TypeError"),
        ([{"y": VALUES[0], "z": VALUES[0]}], {}, DataError, "no array for input 'x'"),
        ([VALUES[0]], {"preprocessing": UNIT}, UsageError, "takes no preprocessing"),
        ({"x": VALUES}, {"preprocessing": len}, UsageError, "dictionary of arrays takes no"),
        ([b"abc"], {}, DataError, "the model expects N×2"),
    ],
)
def test_what_makes_no_sense_is_refused(data, options, kind, message):
    with pytest.raises(kind, match=message):
        _ = open_data(data, [X], **options).count


def test_splits_are_named():
    class Split(list):
        features = ("x",)

    with pytest.raises(UsageError, match="give one of them: 'train', 'test'"):
        open_data({"train": Split(), "test": Split()}, [X])


def test_images_in_python_need_preprocessing(pictures):
    _, found = pictures
    for data in ([path for path, _ in found], [image for _, image in found]):
        with pytest.raises(DataError, match="images need preprocessing"):
            open_data(data, [PICTURE])
    mixed = [found[0][1], by_hand(found[1][1])]
    with pytest.raises(DataError, match="is no image, as the first one is"):
        _ = open_data(mixed, [PICTURE], preprocessing=UNIT).count


def test_a_function_for_files_that_hold_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=VALUES)
    with pytest.raises(UsageError, match="takes no preprocessing"):
        open_data(tmp_path / "x.npz", [X], preprocessing=by_hand)
    (tmp_path / "x.tar").touch()
    with pytest.raises(UsageError, match="a folder of images and what Python programs hold"):
        open_data(tmp_path / "x.tar", [X], preprocessing=by_hand)


# --- the public functions ------------------------------------------------------------------------


def samples(count=8):
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


def test_the_functions_take_them():
    model = uneven()
    x = samples()
    (name,) = (spec.name for spec in model.inputs)
    wanted, _ = onnxq.quantize(model, {name: x})
    given, _ = onnxq.quantize(model.proto, ({name: row} for row in x))
    assert given.proto.graph == wanted.proto.graph
    emulated = onnxq.emulate(given.proto.SerializeToString(), list(x))
    assert emulated.samples == 8
    found = onnxq.validate(model, [given.proto], lambda: iter(x), preprocess=lambda row: row)
    assert found.samples == 8


def test_processes_cannot_share_an_iterable():
    with pytest.raises(UsageError, match="cannot be sent to other processes"):
        onnxq.calibrate(uneven(), list(samples()), dask="tcp://h:1")
    with pytest.raises(UsageError, match="a function as preprocess cannot be sent"):
        onnxq.calibrate(uneven(), "images/", preprocess=by_hand, dask="tcp://h:1")


@pytest.mark.parametrize("wrong", [3, None, 2.5, object()])
def test_what_is_no_model_is_a_usage_error(wrong):
    with pytest.raises(UsageError, match=r"must be a path, an onnxq\.Model, an onnx\.ModelProto"):
        onnxq.calibrate(wrong, samples())


@pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the package datasets is not installed"
)
def test_datasets_of_hugging_face(pictures):
    import datasets

    table = datasets.Dataset.from_dict({"x": VALUES.tolist(), "label": LABELS})
    for each in (table, table.with_format("numpy"), table.to_iterable_dataset()):
        values, labels = read(open_data(each, [X]))
        assert np.array_equal(values, VALUES)
        assert labels == LABELS
    with pytest.raises(UsageError, match="'train'"):
        open_data(datasets.DatasetDict({"train": table}), [X])
    _, found = pictures
    rows = {"image": [str(path) for path, _ in found], "label": [0, 0, 1, 1]}
    shown = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    source = open_data(shown, [PICTURE], preprocessing=UNIT)
    assert np.array_equal(
        images(source), images(open_data(pictures[0], [PICTURE], preprocessing=UNIT))
    )
    assert Path(found[0][0]).exists()
