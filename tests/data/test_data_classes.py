"""Names of a model's classes: files, spellings, refusals; how many classes a model has."""

import json

import numpy as np
import pytest
from onnxq.data.classes import as_class_names, class_count, imagenet_index, read_classes
from onnxq.errors import DataError
from onnxq.model.model import TensorSpec
from onnxq.refusal import Refusal

KERAS = {"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("\ufeffcat\r\nsea lion\r\n\r\n", ("cat", "sea lion")),
        ('["cat", "dog"]', ("cat", "dog")),
        ('{"1": "dog", "0": "cat"}', ("cat", "dog")),
        ('{"dog": 1, "cat": 0}', ("cat", "dog")),
        ('{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}', ("cat", "dog")),
        (json.dumps(KERAS), ("tench", "goldfish")),
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish", ("tench, Tinca tinca", "goldfish")),
        ("n01440764\nn01443537", ("n01440764", "n01443537")),
    ],
)
def test_files(tmp_path, text, names):
    path = tmp_path / "classes"
    path.write_bytes(text.encode())
    found = read_classes(path)
    assert found.names == names
    assert [found.index(name) for name in names] == [0, 1]
    assert as_class_names(str(path)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\n\ndog\n", "class 1 has no name"),
        ("", "class 0 has no name"),
        ("[1, 2]", "class 0 has no name: 1 .*one name a line"),
        ('{"0": "cat", "2": "dog"}', "has 2 classes, but none of index 1"),
        ('{"a": "b"}', "holds no classes by index"),
        ('{"id2label": []}', "holds no classes by index"),
        ("{}", "holds no classes by index"),
        ('["cat",', "cannot read the classes in .*: Expecting value"),
    ],
)
def test_files_that_name_no_classes(tmp_path, text, message):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="nowhere: No such file"):
        read_classes(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read the classes in"):
        read_classes(tmp_path / "binary")


def test_spellings(tmp_path):
    path = tmp_path / "synset_words.txt"
    path.write_text("n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\n")
    found = read_classes(path)
    for name in ("n01440764", "tench", "Tinca_tinca", "TENCH", "tench,_Tinca_tinca"):
        assert found.index(name) == 0
    assert found.index("n03126707") == 2
    assert found.index("crane") == Refusal("classes 1 and 2 are called 'crane'")
    assert isinstance(found.index("tenth"), Refusal)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("N", 10), 10),
        ((1, 1000, 1, 1), 1000),
        (("N", 1), None),
        (("N", "C"), None),
        (("N", 22, 2100), None),
        (("N",), None),
        (None, None),
    ],
)
def test_the_number_of_classes_of_a_model(shape, expected):
    assert class_count([TensorSpec("y", np.dtype("float32"), shape)]) == expected
    assert class_count([]) is None


def test_synsets_of_imagenet():
    assert imagenet_index(["n15075141", "n01440764"], 1000) == {"n15075141": 999, "n01440764": 0}
    assert imagenet_index(["n02123045"], 1001) == {"n02123045": 282}  # tabby, 281 of 1,000
    assert imagenet_index(["n02123045"], 999) is None
    assert imagenet_index(["cat"], 1000) is None
