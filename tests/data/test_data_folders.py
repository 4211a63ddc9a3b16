"""Folders of images: their order, their classes, what is chosen of them. Names are enough."""

import pytest
from onnxq.data.classes import Classes, as_class_names
from onnxq.data.folders import ImageFile, find_images, spread
from onnxq.errors import DataError


def tree(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(folder, classes=None):
    return [
        (str(file.path.relative_to(folder)), file.label)
        for file in find_images(folder, classes).files
    ]


def test_a_flat_folder_is_in_the_order_of_names_without_classes(tmp_path):
    tree(tmp_path, "b.PNG", "a.jpeg", ".hidden.png", "notes.txt", "10.png", "9.png")
    assert found(tmp_path) == [("10.png", None), ("9.png", None), ("a.jpeg", None), ("b.PNG", None)]


def test_leading_numbers_are_class_indices_and_order_the_files(tmp_path):
    tree(tmp_path, "10_ship/a.png", "2-dog/b.png", "2-dog/a.png", "007/c.png")
    assert found(tmp_path) == [
        ("2-dog/a.png", 2), ("2-dog/b.png", 2), ("007/c.png", 7), ("10_ship/a.png", 10)
    ]  # fmt: skip


def test_numbers_of_more_digits_than_an_index_has_are_names(tmp_path):
    tree(tmp_path, "1234567890123456789/a.png", "2/a.png")
    assert found(tmp_path) == [("1234567890123456789/a.png", 0), ("2/a.png", 1)]


def test_without_numbers_places_are_indices(tmp_path):
    tree(tmp_path, "dog/a.png", "cat/a.png", ".git/a.png")
    assert found(tmp_path) == [("cat/a.png", 0), ("dog/a.png", 1)]
    assert find_images(tmp_path).doubt is None
    doubt = find_images(tmp_path, Classes(3)).doubt
    assert "there are 2 class folders, the model has 3 classes" in str(doubt)


def test_an_index_beyond_the_models_classes_is_doubted(tmp_path):
    tree(tmp_path, "0/a.png", "3/a.png")
    assert find_images(tmp_path, Classes(4)).doubt is None
    assert "is number 3, the model has 3 classes, 0 to 2" in str(
        find_images(tmp_path, Classes(3)).doubt
    )


def test_names_come_before_numbers_where_all_are_known(tmp_path):
    names = as_class_names(["3 d", "boat", "car"])
    tree(tmp_path, "3_D/a.png", "car/a.png")
    assert found(tmp_path, Classes(3, names)) == [("3_D/a.png", 0), ("car/a.png", 2)]
    doubt = find_images(tmp_path, Classes(5, names)).doubt
    assert str(doubt) == "--classes names 3 classes, the model has 5"


def test_a_folder_that_is_no_class_is_refused(tmp_path):
    tree(tmp_path, "cat/a.png", "dogs/a.png")
    with pytest.raises(DataError, match=r"no class is called 'dogs'.*'dog'") as caught:
        find_images(tmp_path, Classes(2, as_class_names(["cat", "dog"])))
    assert "--classes" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        (["a.png", "cat/b.png"], "holds both images and folders of images", "class folders"),
        (["notes.txt"], "holds no images", ".png"),
        (["train/cat/a.png", "val/cat/a.png"], "holds no images", "train, val"),
        (["1_a/x.png", "01_b/x.png"], "are both number 1", ""),
        (["cat/a.png", "dog/notes.txt"], "holds no images", "it would still take a class index"),
    ],
)
def test_what_folders_must_not_be(tmp_path, names, message, hint):
    with pytest.raises(DataError, match=message) as caught:
        find_images(tree(tmp_path, *names))
    assert hint in caught.value.hint


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the folder .*none: No such file"):
        find_images(tmp_path / "none")


def test_some_images_are_spread_over_the_classes_in_given_order(tmp_path):
    images = [ImageFile(tmp_path / str(i), label) for i, label in enumerate([0, 0, 0, 1, 2, 2])]
    chosen = [[int(each.path.name) for each in spread(images, limit)] for limit in range(8)]
    assert chosen == [
        [], [0], [0, 3], [0, 3, 4], [0, 1, 3, 4], [0, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip
