"""Masks and numbers as truth: folders of pictures, NumPy files, tables of numbers."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MASK_EXTENSIONS = frozenset({".png", ".bmp", ".tif", ".tiff"})
"""Without loss: JPEG would change class indices."""

PREFERRED = ("masks", "scores", "labels")
"""The arrays of an .npz that are truth, whatever else it holds."""

_UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, zipfile.BadZipFile)
"""What NumPy and Pillow raise for files that are damaged or of another kind."""


@dataclass(frozen=True)
class MaskFile:
    """A mask that is read when its sample comes up."""

    path: Path

    def read(self) -> NDArray[np.int64]:
        """Class indices, height×width.

        Raises:
            DataError: the picture cannot be read or has colors without a palette.
        """
        try:
            with Image.open(self.path) as image:
                if image.mode not in {"1", "L", "P", "I", "I;16"}:
                    raise DataError(
                        f"{self.path} is a picture in {image.mode}, not a mask of class indices",
                        hint="save one number a pixel: gray, or a palette in the classes' order",
                    )
                return np.asarray(image).astype(np.int64)
        except _UNREADABLE as error:
            raise DataError(f"cannot read {self.path}: {error}") from error


def mask_files(folder: Path) -> dict[str, MaskFile]:
    """The masks of a folder by file name."""
    files = sorted(each for each in folder.iterdir() if each.suffix.lower() in MASK_EXTENSIONS)
    return {file.name: MaskFile(file) for file in files if not file.name.startswith(".")}


def read_array(path: Path) -> NDArray[Any]:
    """One array a file: masks N×H×W of integers, or numbers, N.

    Raises:
        DataError: the file is damaged, or holds neither.
    """
    try:
        with path.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.ndarray):
                with stored:
                    stored = stored[_chosen(stored.files, path)]
    except _UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error}") from error
    array: NDArray[Any] = stored[:, 0] if stored.ndim == 2 and stored.shape[1] == 1 else stored
    if (array.ndim == 3 and array.dtype.kind in "iub") or (
        array.ndim == 1 and array.dtype.kind in "iuf"
    ):
        return array
    raise DataError(
        f"{path} holds {array.dtype} of shape {'×'.join(map(str, array.shape))}",
        hint="labels are numbers, one a sample, or masks of integers, samples×height×width",
    )


def _chosen(names: Sequence[str], path: Path) -> str:
    for name in PREFERRED:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise DataError(
        f"{path} has no array that is called as labels are",
        hint=f"call it one of {', '.join(PREFERRED)}; it has {', '.join(names) or 'none'}",
    )


def read_numbers(path: Path) -> dict[str, float] | list[float]:
    """The numbers of a .csv, by file name where rows are `name,number`, else in order.

    A first row without a number is a header.

    Raises:
        DataError: a row has no number, or a name comes twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if rows and not _is_number(rows[0][-1]):
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if len(row) not in {1, 2} or not _is_number(row[-1]):
            raise DataError(
                f"{path}: row {number} is {','.join(row)[:60]!r}",
                hint="a row is a number, or a file name and a number",
            )
    if any(len(row) != len(rows[0]) for row in rows):
        raise DataError(f"{path}: some rows have names, others have none")
    if rows and len(rows[0]) == 2:
        names = [row[0].strip() for row in rows]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{path}: {twice!r} comes twice")
        return {row[0].strip(): _number(row[1]) for row in rows}
    return [_number(row[0]) for row in rows]


def as_numbers(
    texts: Mapping[str, str] | Sequence[str], path: Path
) -> dict[str, float] | list[float]:
    """The numbers that the texts of a file are, by name where these are.

    Raises:
        DataError: a text is none.
    """
    for label in texts.values() if isinstance(texts, Mapping) else texts:
        if not _is_number(label):
            raise DataError(
                f"{path}: {label[:60]!r} is no number, which the metric wants",
                hint="a line is a number, or a file name, a tab and a number",
            )
    if isinstance(texts, Mapping):
        return {name: _number(text) for name, text in texts.items()}
    return [_number(text) for text in texts]


def _number(text: str) -> float:
    """Integers stay integers: they may be class indices."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
