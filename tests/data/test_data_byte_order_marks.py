"""Text files that editors of Windows wrote begin with a mark, which is none of their content."""

import json

import pytest
from onnxq.data.labels.open import open_labels
from onnxq.data.preprocess import Preprocessing
from onnxq.records import read_toml

COCO = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
    "categories": [{"id": 1, "name": "cat"}],
}


@pytest.fixture
def marked(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8-sig")
        return path

    return write


def test_labels(marked):
    assert open_labels(marked("coco.json", json.dumps(COCO))).named
    yolo = marked("yolo/a.txt", "0 .5 .5 .2 .2\r\n").parent
    (boxes,) = open_labels(yolo).named.values()
    assert len(boxes.corners) == 1
    assert open_labels(marked("texts.txt", "one\r\ntwo\r\n")).ordered == ["one", "two"]


def test_recipes_and_configurations(marked):
    assert read_toml(marked("r.toml", "[quantize]\n")) == {"quantize": {}}
    content = {"do_resize": True, "size": {"height": 8, "width": 8}, "resample": 2}
    assert Preprocessing.parse(str(marked("p.json", json.dumps(content)))) == Preprocessing.of(
        content
    )
