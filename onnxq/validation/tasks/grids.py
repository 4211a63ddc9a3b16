"""Detectors that score every cell of grids over the picture: the YOLO family, one table of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.validation.tasks.boxes import Candidates, best_classes, corners_of_centers
from onnxq.validation.tasks.common import is_float

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Size = tuple[int, int]
"""(height, width) of the model's input."""

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32))
"""Pixels a cell of a model's grids: the usual three, for large pictures, of the tiny models."""

ANCHORS = 3
"""Boxes a cell of YOLOv5 and its likes."""

LIKELY_DECODED = 0.5
"""Correlation of the centers of boxes with the places of their cells: of decoded boxes about 1."""

MOST_ROWS = 1000
"""Models that put out a few hundred boxes have no grid, which has thousands of cells."""


def table_roles(outputs: Arrays, _: Size) -> tuple[str, ...] | None:
    """The first output with three axes, and the prototypes of masks where there are some."""
    tables = [name for name, a in outputs.items() if a.ndim == 3 and is_float(a)]
    prototypes = [name for name, a in outputs.items() if a.ndim == 4 and is_float(a)]
    if not tables:
        return None
    return (tables[0], *(prototypes if len(prototypes) == 1 else ()))


def strides_of(cells: int, size: Size) -> tuple[int, ...] | None:
    """The grids that have so many cells in all."""
    for strides in STRIDES:
        if cells == sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides):
            return strides
    return None


def is_short_table(table: Array, size: Size) -> bool:
    """Whether it holds a few boxes, and no axis of it counts cells."""
    axes = table.shape[1:]
    return axes[0] <= MOST_ROWS and all(strides_of(length, size) is None for length in axes)


def in_share(array: Array) -> bool:
    """Whether all values are probabilities."""
    return bool(array.size) and bool((array >= 0).all() and (array <= 1).all())


def _class_scores(rows: Array, first: int, prototypes: tuple[Array, ...]) -> Array:
    """Columns from `first` on, without the mask coefficients, as many as there are prototypes."""
    coefficients = prototypes[0].shape[1] if prototypes else 0
    return rows[..., first : max(rows.shape[-1] - coefficients, first + 1)]


# --- YOLOv8, YOLO11 ----------------------------------------------------------------------------


def fits_yolov8(arrays: tuple[Array, ...], size: Size) -> bool:
    _, columns, cells = arrays[0].shape
    return 5 <= columns < cells and strides_of(cells, size) is not None


def yolov8(arrays: tuple[Array, ...], _: Size) -> Candidates:
    """Samples×(4 + classes)×cells, boxes by center, no objectness; or the last axes exchanged.

    https://docs.ultralytics.com/modes/export/.
    """
    table, *prototypes = arrays
    rows = table.swapaxes(1, 2) if table.shape[1] < table.shape[2] else table
    return best_classes(corners_of_centers(rows), _class_scores(rows, 4, tuple(prototypes)))


# --- YOLOv5 ------------------------------------------------------------------------------------


def fits_yolov5(arrays: tuple[Array, ...], size: Size) -> bool:
    """Three boxes a cell; or one, of YOLOv6 and of YOLOX exported with its decoding."""
    _, boxes, columns = arrays[0].shape
    anchors = ANCHORS if strides_of(boxes, size) is None else 1
    cells, rest = divmod(boxes, anchors)
    return 6 <= columns < boxes and not rest and strides_of(cells, size) is not None


def yolov5(arrays: tuple[Array, ...], _: Size) -> Candidates:
    """Samples×boxes×(5 + classes), boxes by center; the score is objectness × class.

    https://github.com/ultralytics/yolov5/blob/master/utils/general.py, `non_max_suppression`.
    """
    table, *prototypes = arrays
    scores = _class_scores(table, 5, tuple(prototypes)) * table[..., 4:5]
    return best_classes(corners_of_centers(table), scores)


# --- YOLOX -------------------------------------------------------------------------------------


def yolox_roles(outputs: Arrays, size: Size) -> tuple[str, ...] | None:
    roles = table_roles(outputs, size)
    fits = roles is not None and strides_of(outputs[roles[0]].shape[1], size) is not None
    return roles if fits else None


def fits_yolox(arrays: tuple[Array, ...], size: Size) -> bool:
    """Whether centers are not where their cells are, as those of decoded boxes are."""
    table = arrays[0]
    strides = strides_of(table.shape[1], size)
    if strides is None or table.shape[2] < 6:
        return False
    corner, stride = _cells(size, strides)
    place = (corner * stride).ravel().astype(np.float64)
    center = table[..., :2].mean(axis=0, dtype=np.float64).ravel()
    place, center = place - place.mean(), center - center.mean()
    norms = np.linalg.norm(place) * np.linalg.norm(center)
    return bool(place @ center < LIKELY_DECODED * norms)


def yolox(arrays: tuple[Array, ...], size: Size) -> Candidates:
    """As YOLOv5 with one box a cell; centers are offsets in cells, sizes logarithms of cells.

    https://github.com/Megvii-BaseDetection/YOLOX/blob/main/yolox/utils/demo_utils.py.
    """
    table = arrays[0].astype(np.float64)
    corner, stride = _cells(size, strides_of(table.shape[1], size) or STRIDES[0])
    center, sides = (table[..., :2] + corner) * stride, np.exp(table[..., 2:4]) * stride
    boxes = np.concatenate([center, sides], axis=-1)
    return best_classes(corners_of_centers(boxes), table[..., 5:] * table[..., 4:5])


def _cells(size: Size, strides: tuple[int, ...]) -> tuple[Array, Array]:
    """Of every cell, grid by grid and row by row, its (x, y) in cells, and its stride."""
    corners, lengths = [], []
    for stride in strides:
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        corners.append(np.stack([x, y], axis=1))
        lengths.append(np.full((rows * columns, 1), stride))
    return np.concatenate(corners), np.concatenate(lengths)


# --- YOLO26 ------------------------------------------------------------------------------------


def fits_end_to_end(arrays: tuple[Array, ...], size: Size) -> bool:
    table = arrays[0]
    return (
        is_short_table(table, size)
        and table.shape[2] >= 6
        and in_share(table[..., 4])
        and bool((table[..., 5] == np.round(table[..., 5])).all())
    )


def end_to_end(arrays: tuple[Array, ...], _: Size) -> Candidates:
    """Samples×n×6, x1, y1, x2, y2, score, class: YOLO26, YOLOv10, exports with suppression.

    https://docs.ultralytics.com/models/yolo26/.
    """
    table = arrays[0]
    return Candidates(table[..., :4], table[..., 4], table[..., 5])
