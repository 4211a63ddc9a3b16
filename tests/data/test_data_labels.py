"""Labels: every kind of file, matched to samples by name or in order; what is wrong with them."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from onnxq.data.labels.arrays import mask_files, read_array, read_numbers
from onnxq.data.labels.boxes import Boxes
from onnxq.data.labels.match import nearest
from onnxq.data.labels.open import open_labels
from onnxq.data.labels.texts import read_characters
from onnxq.errors import DataError
from PIL import Image

COCO = {
    "images": [
        {"id": 7, "file_name": "val/b.jpg", "height": 50, "width": 100},
        {"id": 3, "file_name": "val/a.jpg", "height": 50, "width": 100},
        {"id": 9, "file_name": "val/none.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 18, "bbox": [10, 20, 30, 5.5]},
        {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 44, "bbox": [1, 2, 3, 4], "iscrowd": 0},
    ],
    "categories": [
        {"id": 44, "name": "bottle"},
        {"id": 1, "name": "person"},
        {"id": 18, "name": "dog"},
    ],
}


def coco_file(folder, **changes):
    path = folder / "instances.json"
    path.write_text(json.dumps(COCO | changes))
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def matched(path, samples, classes=(), placement=None, *, numbers=False):
    labels = open_labels(path, classes, numbers=numbers).match(samples, placement)
    return labels.batch(0, len(samples))


def rows(count, name="d.npz"):
    return [f"{name}[{index}]" for index in range(count)]


# --- boxes -------------------------------------------------------------------------------------


def test_coco_boxes_are_corners_with_classes_by_ascending_id(tmp_path):
    samples = ["/data/val/a.jpg", "/data/val/b.jpg", "/data/val/none.jpg"]
    first, second, none = matched(coco_file(tmp_path), samples)
    assert first.corners.tolist() == [[10, 20, 40, 25.5], [0, 0, 100, 50]]
    assert first.classes.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert (first.relative, first.class_count) == (False, 3)
    assert second.classes.tolist() == [2]
    assert none.corners.shape == (0, 4)


def test_coco_categories_are_numbered_by_the_models_names(tmp_path):
    classes = ("bottle", "cat", "dog", "person")
    first, _ = matched(coco_file(tmp_path), ["a.jpg", "b.jpg"], classes)
    assert first.classes.tolist() == [2, 3]
    assert first.class_count == 4
    with pytest.raises(DataError, match="category 'dog' is none of the 3 classes") as caught:
        matched(coco_file(tmp_path), ["a.jpg"], ("bottle", "dogs", "person"))
    assert "'dogs'" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"id": 1, "image_id": 3, "category_id": 1}]}, "no 'bbox'"),
        ({"annotations": [{"image_id": 3, "category_id": 1, "bbox": [1, 2, 3]}]}, "unpack"),
        ({"annotations": [{"image_id": 3, "category_id": 1, "bbox": [1, 2, -3, 4]}]}, "bbox"),
        ({"annotations": [{"image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4]}]}, "image_id 8"),
        (
            {"annotations": [{"image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4]}]},
            "annotation 0 has category_id 2",
        ),
        ({"images": {}}, "image_id 3"),
        (
            {"annotations": [{"image_id": [3], "category_id": 1, "bbox": [1, 2, 3, 4]}]},
            r"no COCO file of boxes: the image_id \[3\]",
        ),
        (
            {"annotations": [{"image_id": 3, "category_id": 1, "bbox": [10**400, 2, 3, 4]}]},
            "no COCO file of boxes",
        ),
        ({"categories": [{"id": float("inf"), "name": "dog"}]}, "no COCO file of boxes"),
        ({"categories": None}, "no COCO file"),
    ],
)
def test_damaged_coco_files_are_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        open_labels(coco_file(tmp_path, **changes))


def test_files_that_are_no_coco_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        open_labels(write(tmp_path / "x.json", "{"))
    with pytest.raises(DataError, match="holds a list"):
        open_labels(write(tmp_path / "x.json", "[]"))


def yolo_folder(folder):
    write(folder / "a.txt", "2 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.2 0.2\n")
    write(folder / "b.txt", "1 0.1 0.2 0.3 0.2 0.3 0.6\n")
    write(folder / "empty.txt", "")
    write(folder / "classes.txt", "cat\ndog\nbird\n")
    return folder


def test_yolo_boxes_are_relative_and_polygons_their_bounding_box(tmp_path):
    samples = ["p/a.png", "p/b.png", "p/empty.png", "p/without.png"]
    first, second, empty, without = matched(yolo_folder(tmp_path), samples)
    np.testing.assert_allclose(first.corners, [[0.4, 0.3, 0.6, 0.7], [0, 0, 0.2, 0.2]], atol=1e-12)
    assert first.classes.tolist() == [2, 0]
    assert first.relative
    np.testing.assert_allclose(second.corners, [[0.1, 0.2, 0.3, 0.6]])
    assert len(empty) == len(without) == 0
    np.testing.assert_allclose(first.in_pixels(50, 100).corners[0], [40, 15, 60, 35])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", r"a.txt:1: .* is no object: 4 numbers"),
        ("cat 0.5 0.5 0.2 0.2", "could not convert"),
        ("0.5 0.5 0.5 0.2 0.2", "0.5 is no class index"),
        ("1e300 0.5 0.5 0.2 0.2", "1e[+]300 is no class index"),
        ("0 120 80 40 30", "no shares"),
        ("0 nan 0.5 0.2 0.2", "not finite"),
    ],
)
def test_lines_that_are_no_objects_are_refused(tmp_path, line, message):
    write(tmp_path / "a.txt", line)
    with pytest.raises(DataError, match=message):
        open_labels(tmp_path)


def test_a_yolo_folder_of_other_pictures_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no boxes for any sample; the first is x/1.png") as caught:
        matched(yolo_folder(tmp_path), ["x/1.png", "x/2.png"])
    assert "'a'" in caught.value.hint


@dataclass(frozen=True)
class Letterbox:
    """100×50 pictures halved and laid below eight rows of padding, in an input of 50×50."""

    picture: tuple[int, int] = (50, 100)
    resized: tuple[int, int] = (25, 50)

    def to_input(self, boxes):
        return boxes / 2 + [0, 8, 0, 8]

    def lay(self, resized, fill):
        laid = np.full((50, 50), fill)
        laid[8:33] = resized
        return laid


def test_boxes_move_with_their_picture_into_the_input(tmp_path):
    asked = []

    def placement(index):
        asked.append(index)
        return Letterbox()

    first, _ = matched(coco_file(tmp_path), ["a.jpg", "b.jpg"], placement=placement)
    assert first.corners[0].tolist() == [5, 18, 20, 20.75]
    assert asked == [0, 1]
    (relative,) = matched(yolo_folder(tmp_path / "y"), ["a.jpg"], placement=placement)
    np.testing.assert_allclose(relative.corners[0], [20, 15.5, 30, 25.5])
    assert not relative.relative


# --- masks -------------------------------------------------------------------------------------


def test_masks_of_a_folder_are_read_as_indices(tmp_path):
    indices = np.arange(12).reshape(3, 4).astype(np.uint8)
    Image.fromarray(indices).save(tmp_path / "a.png")
    palette = Image.fromarray(indices)
    palette = palette.convert("P")
    palette.save(tmp_path / "b.png")
    Image.fromarray(indices > 5).save(tmp_path / "c.png")
    first, second, third = matched(tmp_path, ["p/a.jpg", "p/b.jpg", "p/c.jpg"])
    assert first.tolist() == second.tolist() == indices.tolist()
    assert third.tolist() == (indices > 5).astype(int).tolist()
    with pytest.raises(DataError, match=r"no label for p/d.jpg"):
        matched(tmp_path, ["p/a.jpg", "p/d.jpg"])


def test_masks_in_colors_and_damaged_ones_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="in RGB, not a mask"):
        matched(tmp_path, ["a.jpg"])
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"cannot read .*a.png"):
        matched(tmp_path, ["a.jpg"])


def test_labels_of_pictures_whose_place_is_not_known_stay(tmp_path):
    (first,) = matched(coco_file(tmp_path), ["a.jpg"], placement=lambda _: None)
    assert first.corners[0].tolist() == [10, 20, 40, 25.5]


def test_masks_move_with_their_picture_and_around_it_nothing_counts(tmp_path):
    mask = np.zeros((50, 100), np.uint8)
    mask[20:30, 40:60] = 3
    Image.fromarray(mask).save(tmp_path / "a.png")
    (laid,) = matched(tmp_path, ["a.jpg"], placement=lambda _: Letterbox())
    assert (laid[:8] == -1).all()
    assert (laid[33:] == -1).all()
    assert (laid[8:33] == nearest(mask, (25, 50))).all()
    assert (laid[18:23, 20:30] == 3).all()
    assert (laid == 3).sum() == 50


def test_nearest_takes_the_pixel_at_the_center():
    mask = np.arange(6).reshape(2, 3)
    assert nearest(mask, (4, 6))[::2, ::2].tolist() == mask.tolist()
    assert nearest(mask, (1, 1)).tolist() == [[4]]
    assert nearest(mask, (2, 3)).tolist() == mask.tolist()


def test_masks_of_an_array_come_in_order(tmp_path):
    masks = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
    np.savez(tmp_path / "m.npz", masks=masks, x=np.zeros(3))
    assert np.array_equal(matched(tmp_path / "m.npz", rows(4)), masks)
    np.save(tmp_path / "m.npy", masks)
    assert np.array_equal(matched(tmp_path / "m.npy", rows(4)), masks)


# --- numbers and texts -------------------------------------------------------------------------


def test_numbers_are_one_a_sample_or_one_a_pair(tmp_path):
    np.save(tmp_path / "s.npy", np.array([0.5, 2, 4]))
    assert matched(tmp_path / "s.npy", rows(3)) == [0.5, 2, 4]
    assert matched(tmp_path / "s.npy", rows(6)) == [0.5, 2, 4, None, None, None]
    with pytest.raises(DataError, match="holds 3 numbers for 4 samples"):
        matched(tmp_path / "s.npy", rows(4))
    np.savez(tmp_path / "s.npz", input_ids=np.zeros((6, 4)), scores=np.array([[1], [2], [3]]))
    assert matched(tmp_path / "s.npz", rows(3)) == [1, 2, 3]


def test_numbers_of_a_table_by_name_or_in_order(tmp_path):
    path = write(tmp_path / "s.csv", "file,score\nb.png,2.5\na.png,1\n")
    assert matched(path, ["x/a.png", "x/b.png"]) == [1, 2.5]
    assert matched(write(tmp_path / "s.csv", "1\n2.5\n\n3\n"), rows(3)) == [1, 2.5, 3]
    with pytest.raises(DataError, match=r"row 2 is 'a.png,high'"):
        open_labels(write(tmp_path / "s.csv", "b.png,2\na.png,high\n"))
    with pytest.raises(DataError, match="some rows have names"):
        open_labels(write(tmp_path / "s.csv", "b.png,2\n3\n"))
    with pytest.raises(DataError, match=r"'b.png' comes twice"):
        open_labels(write(tmp_path / "s.csv", "b.png,2\na.png,1\nb.png,3\n"))


def test_integers_of_a_table_stay_integers(tmp_path):
    """They may be class indices."""
    found = read_numbers(write(tmp_path / "s.csv", "3\n3.0\n"))
    assert [type(each) for each in found] == [int, float]
    assert read_numbers(write(tmp_path / "s.csv", "")) == []
    with pytest.raises(DataError, match="row 2 is 'nan'"):
        read_numbers(write(tmp_path / "s.csv", "1\nnan\n"))


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"x": np.zeros((3, 2)), "labels": np.arange(3)}, [0, 1, 2]),
        ({"scores": np.array([0.5, 1]), "labels": np.arange(3)}, [0.5, 1]),
        ({"anything": np.array([[4], [5]])}, [4, 5]),
    ],
)
def test_of_several_arrays_the_one_that_is_called_as_labels_are(tmp_path, arrays, wanted):
    np.savez(tmp_path / "l.npz", **arrays)
    assert read_array(tmp_path / "l.npz").tolist() == wanted


def test_an_archive_without_an_array_of_labels_is_refused_with_their_names(tmp_path):
    np.savez(tmp_path / "l.npz", a=np.arange(3), b=np.arange(3))
    with pytest.raises(DataError, match="no array that is called as labels are") as caught:
        read_array(tmp_path / "l.npz")
    assert caught.value.hint == "call it one of masks, scores, labels; it has a, b"


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.zeros((2, 4, 4)), "float64 of shape 2×4×4"),
        (np.zeros((2, 3), int), "int64 of shape 2×3"),
        (np.array(["a"]), "<U1 of shape 1"),
    ],
)
def test_arrays_of_other_shapes_are_no_labels(tmp_path, array, shown):
    np.save(tmp_path / "l.npy", array)
    with pytest.raises(DataError, match=shown):
        read_array(tmp_path / "l.npy")


def test_hidden_files_and_pictures_with_loss_are_no_masks(tmp_path):
    for name in ("b.png", "a.BMP", ".c.png"):
        Image.fromarray(np.array([[0, 7]], np.uint8)).save(tmp_path / name)
    Image.fromarray(np.zeros((1, 2), np.uint8)).save(tmp_path / "d.jpg")
    found = mask_files(tmp_path)
    assert list(found) == ["a.BMP", "b.png"]
    assert found["b.png"].read().tolist() == [[0, 7]]
    assert found["b.png"].read().dtype == np.int64


def test_a_text_file_of_numbers_where_a_metric_wants_those(tmp_path):
    path = write(tmp_path / "s.txt", "2.5\n1\n-3e-1\n")
    assert matched(path, rows(3)) == ["2.5", "1", "-3e-1"]
    assert matched(path, rows(3), numbers=True) == [2.5, 1, -0.3]
    assert matched(path, rows(6), numbers=True) == [2.5, 1, -0.3, None, None, None]
    path = write(tmp_path / "s.tsv", "b.png\t2.5\na.png\t1\n")
    assert matched(path, ["x/a.png", "x/b.png"], numbers=True) == [1, 2.5]
    for wrong in ("high", "nan", "0,5", ""):
        with pytest.raises(DataError, match=f"'{wrong}' is no number, which the metric wants"):
            open_labels(write(tmp_path / "s.txt", f"1\n{wrong}\n2\n"), numbers=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", "b.png\tder Hund\na.png\tthe cat\n"),
        ("t.txt", "b.png\tder Hund\r\na.png\tthe cat"),
        (
            "t.jsonl",
            '{"file_name": "b.png", "text": "der Hund"}\n{"file_name": "a", "text": "the cat"}\n',
        ),
    ],
)
def test_texts_by_name(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert matched(path, ["x/a.png", "x/b.png"]) == ["the cat", "der Hund"]


def test_texts_in_order_may_be_empty(tmp_path):
    path = write(tmp_path / "t.txt", "one\n\ntwo words\n")
    assert matched(path, rows(3)) == ["one", "", "two words"]
    path = write(tmp_path / "t.jsonl", '{"sentence": "one"}\n{"sentence": "two"}\n')
    assert matched(path, rows(2)) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "a.png\tone\nb.png\n", "1 lines name a file, 1 do not"),
        ("t.txt", "a.png\tone\na.png\ttwo\n", "'a.png' comes twice"),
        ("t.jsonl", '{"text": "one"}\n{"text": }\n', "t.jsonl:2 is no JSON"),
        ("t.jsonl", '{"file": "one"}\n', "t.jsonl:1 has no text"),
        ("t.jsonl", "[1]\n", "t.jsonl:1 has no text"),
    ],
)
def test_damaged_texts_are_refused(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        open_labels(write(tmp_path / name, content))


def test_an_extension_may_be_in_capitals(tmp_path):
    path = write(tmp_path / "T.JSONL", '{"text": "one", "file": "a.png"}\n')
    assert matched(path, ["a.png"]) == ["one"]
    assert read_characters(write(tmp_path / "VOCAB.JSON", '["a", " "]')) == ("a", " ")


def test_characters_are_one_a_line_a_space_too(tmp_path):
    path = write(tmp_path / "keys.txt", "a\n|\n \n<unk>\n")
    assert read_characters(path) == ("a", "|", " ", "<unk>")
    path = write(tmp_path / "vocab.json", '{"b": 1, "<pad>": 0, " ": 2}')
    assert read_characters(path) == ("<pad>", "b", " ")
    assert read_characters(write(tmp_path / "x.json", '["a", " "]')) == ("a", " ")
    for wrong in ('{"a": 0, "b": 2}', '{"a": [0]}', "3", '{"a": '):
        with pytest.raises(DataError, match=r"x.json (holds no characters|is no JSON)"):
            read_characters(write(tmp_path / "x.json", wrong))


# --- matching ----------------------------------------------------------------------------------


def test_folders_decide_between_equal_names(tmp_path):
    path = write(tmp_path / "t.tsv", "cats/1.png\tcat\ndogs/1.png\tdog\n1.jpg\tother\n")
    samples = ["/d/val/dogs/1.png", "/d/val/cats/1.png", "/d/1.jpg"]
    assert matched(path, samples) == ["dog", "cat", "other"]
    with pytest.raises(DataError, match=r"both 'cats/1.png' and 'dogs/1.png' could be /d/1.png"):
        matched(path, ["/d/1.png"])


def test_members_of_an_archive_have_names(tmp_path):
    path = write(tmp_path / "t.tsv", "0002\ttwo\n0001\tone\n")
    assert matched(path, ["/d/x.tar:0001", "/d/x.tar:0002"]) == ["one", "two"]


def test_rows_of_arrays_have_named_labels_in_the_names_order(tmp_path):
    path = write(tmp_path / "t.tsv", "b.png\ttwo\na.png\tone\n")
    assert matched(path, rows(2)) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.json", "there are no labels"), ("x.xml", "no kind of labels"), ("", "no labels")],
)
def test_what_is_no_labels_is_refused_with_the_kinds(tmp_path, name, message):
    (tmp_path / "x.xml").write_text("<a/>")
    with pytest.raises(DataError, match=message) as caught:
        open_labels(tmp_path / name)
    assert "COCO" in caught.value.hint


def test_arrays_that_are_no_labels_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(DataError, match="no array that is called as labels") as caught:
        open_labels(path)
    assert "it has a, b" in caught.value.hint
    np.savez(path, labels=np.zeros((3, 4)))
    with pytest.raises(DataError, match="holds float64 of shape 3×4"):
        open_labels(path)
    np.savez(path, labels=np.array([{}]))
    with pytest.raises(DataError, match="cannot read"):
        open_labels(path)
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="cannot read"):
        open_labels(path)


def test_batches_end_with_the_samples(tmp_path):
    labels = open_labels(write(tmp_path / "t.txt", "a\nb\nc\n")).match(rows(3))
    assert len(labels) == 3
    assert labels.batch(2, 9) == ["c"]
    assert isinstance(open_labels(coco_file(tmp_path)).match(["a.jpg"]).batch(0, 1)[0], Boxes)
