"""Boxes as truth: COCO's instances.json, and folders of YOLO's text files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import DataError
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from pathlib import Path

YOLO_NAMES = "classes.txt"
"""The list of class names that labelling tools leave beside YOLO's files."""

LARGEST_CLASS = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects of one picture.

    Attributes:
        corners: float64 n×4: x1, y1, x2, y2.
        classes: int64 n, indices in the model's order.
        crowd: bool n: marks a group; a prediction inside is neither right nor wrong.
        relative: the corners are shares of width and height, else pixels.
        class_count: how many classes the file knows, None where it does not say.
    """

    corners: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    relative: bool = False
    class_count: int | None = None

    def __len__(self) -> int:
        return len(self.corners)

    def in_pixels(self, height: int, width: int) -> Boxes:
        """The same in pixels of a picture of that size; as they are where they are in pixels."""
        if not self.relative:
            return self
        return self.moved(self.corners * np.array([width, height] * 2, np.float64))

    def moved(self, corners: NDArray[np.float64]) -> Boxes:
        """The same objects with corners in pixels of their own."""
        return Boxes(corners, self.classes, self.crowd, class_count=self.class_count)


def read_coco(path: Path, classes: Sequence[str] = ()) -> dict[str, Boxes]:
    """Boxes by file name, from `images`, `annotations` and `categories` of COCO's json.

    Format: https://cocodataset.org/#format-data, object detection. A category's class index is
    its name's place in `classes`, or without these its place among the ascending ids.

    Raises:
        DataError: the file is no such json, names unknown pictures or categories, or its
            categories are not among `classes`.
    """
    content = _json(path)
    try:
        categories = {int(each["id"]): str(each.get("name", "")) for each in content["categories"]}
        names = {each["id"]: str(each["file_name"]) for each in content["images"]}
        annotations = [_annotation(each) for each in content["annotations"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} is no COCO file of boxes: {_reason(error)}",
            hint='it holds "images", "annotations" with a "bbox" each, and "categories"',
        ) from error
    index = _class_indices(categories, classes, path)
    found: dict[Any, list[tuple[list[float], int, bool]]] = defaultdict(list)
    for number, (image, category, corners, crowd) in enumerate(annotations):
        if image not in names or category not in index:
            what = f"image_id {image}" if image not in names else f"category_id {category}"
            raise DataError(f"{path}: annotation {number} has {what}, which is not in the file")
        found[image].append((corners, index[category], crowd))
    count = len(classes) or len(categories)
    return {name: _boxes(found[image], class_count=count) for image, name in names.items()}


def read_yolo(folder: Path) -> dict[str, Boxes]:
    """Boxes by name without extension, from text files of lines `class x y width height`.

    Format: https://docs.ultralytics.com/datasets/detect/, centers and sizes as shares of the
    picture's. A line with more numbers is a polygon, of which the bounding box is taken.

    Raises:
        DataError: a line is neither.
    """
    files = sorted(file for file in folder.glob("*.txt") if file.name != YOLO_NAMES)
    return {file.stem: _yolo_file(file) for file in files}


def no_boxes() -> Boxes:
    """What a picture without objects has."""
    return _boxes([], relative=True)


def _boxes(
    found: Sequence[tuple[Sequence[float], int, bool]],
    *,
    relative: bool = False,
    class_count: int | None = None,
) -> Boxes:
    return Boxes(
        np.array([corners for corners, *_ in found], np.float64).reshape(-1, 4),
        np.array([index for _, index, _ in found], np.int64),
        np.array([crowd for *_, crowd in found], np.bool_),
        relative,
        class_count,
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is no COCO file: it holds a {type(content).__name__}")
    return content


def _annotation(entry: Mapping[str, Any]) -> tuple[Any, int, list[float], bool]:
    """Image id, category id, corners, whether it is a crowd."""
    left, top, width, height = (float(each) for each in entry["bbox"])
    corners = [left, top, left + width, top + height]
    if not np.isfinite(corners).all() or width < 0 or height < 0:
        raise ValueError(f"the bbox {entry['bbox']}")
    image = entry["image_id"]
    if not isinstance(image, (int, str)):
        raise TypeError(f"the image_id {image}")
    return image, int(entry["category_id"]), corners, bool(entry.get("iscrowd", 0))


def _class_indices(
    categories: Mapping[int, str], classes: Sequence[str], path: Path
) -> dict[int, int]:
    if not classes:
        return {each: index for index, each in enumerate(sorted(categories))}
    places = {name: index for index, name in enumerate(classes)}
    for name in categories.values():
        if name not in places:
            raise DataError(
                f"{path}: the category {name!r} is none of the {len(classes)} classes",
                hint=suggest(name, classes) or "the classes have to be named as in the labels",
            )
    return {each: places[name] for each, name in categories.items()}


def _yolo_file(file: Path) -> Boxes:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_yolo_line([float(each) for each in line.split()]))
        except ValueError as error:
            raise DataError(
                f"{file}:{number}: {line.strip()[:60]!r} is no object: {error}",
                hint="a line is: class x y width height, with sizes as shares of the picture's",
            ) from error
    return _boxes(found, relative=True)


def _yolo_line(values: list[float]) -> tuple[list[float], int, bool]:
    if not np.isfinite(values).all():
        raise ValueError("not finite")
    index, numbers = int(values[0]), values[1:]
    if index != values[0] or not 0 <= index <= LARGEST_CLASS:
        raise ValueError(f"{values[0]} is no class index")
    if len(numbers) == 4:
        x, y, width, height = numbers
        if max(numbers) > 2 or min(width, height) < 0:
            raise ValueError("the numbers are no shares")
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2], index, False
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        across, down = numbers[::2], numbers[1::2]
        return [min(across), min(down), max(across), max(down)], index, False
    raise ValueError(f"{len(values)} numbers")


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
