"""`--labels`: what kind of truth a file or folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.data.labels import arrays, boxes, texts
from onnxq.data.labels.match import LabelFile
from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.labels.arrays import MaskFile
    from onnxq.data.labels.match import Label

KINDS = (
    "COCO's .json, a folder of YOLO's .txt, a folder of masks, .npz or .npy of masks or numbers, "
    ".csv of numbers, .txt, .tsv or .jsonl of texts"
)


def open_labels(
    spec: str | Path, classes: Sequence[str] = (), *, numbers: bool = False
) -> LabelFile:
    """The labels in a file or folder; see docs/metrics.md for the kinds.

    Args:
        classes: names in the model's order, by which COCO's categories are numbered.
        numbers: whether texts are to be read as numbers, since a metric wants those.

    Raises:
        DataError: there is no such file, it is of no kind known, damaged or empty, or
            a text is no number.
    """
    path = Path(spec)
    found = _folder(path) if path.is_dir() else _file(path, classes, numbers=numbers)
    if not found.named and not found.ordered:
        raise DataError(f"{path} holds no labels", hint=f"labels are {KINDS}")
    return found


def _folder(path: Path) -> LabelFile:
    masks = arrays.mask_files(path)
    if masks:
        return LabelFile(str(path), "masks", named=masks)
    return LabelFile(str(path), "boxes", named=boxes.read_yolo(path), absent=boxes.no_boxes())


def _file(path: Path, classes: Sequence[str], *, numbers: bool) -> LabelFile:
    if not path.is_file():
        raise DataError(f"there are no labels {path}", hint=f"labels are {KINDS}")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return LabelFile(str(path), "boxes", named=boxes.read_coco(path, classes))
    if suffix in {".npz", ".npy"}:
        array = arrays.read_array(path)
        if array.ndim == 3:
            return LabelFile(str(path), "masks", ordered=list(array.astype("int64")))
        return LabelFile(str(path), "numbers", ordered=array.tolist())
    if suffix == ".csv":
        return _listed(path, "numbers", arrays.read_numbers(path))
    if suffix in {".txt", ".tsv", ".jsonl"}:
        found = texts.read_texts(path)
        if numbers:
            return _listed(path, "numbers", arrays.as_numbers(found, path))
        return _listed(path, "texts", found)
    raise DataError(f"{path} is no kind of labels that is known", hint=f"labels are {KINDS}")


def _listed(
    path: Path, holds: str, found: Mapping[str, Label | MaskFile] | Sequence[Label | MaskFile]
) -> LabelFile:
    if isinstance(found, Mapping):
        return LabelFile(str(path), holds, named=found)
    return LabelFile(str(path), holds, ordered=found)
