"""Find the images in a folder, and their classes."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


class ImageFile(NamedTuple):
    """An image and its class index, None where it has none."""

    path: Path
    label: int | None


def find_images(folder: Path) -> list[ImageFile]:
    """The images of `folder`, or those of its class folders, by class and name.

    A class's index is the leading number of its folder's name if all class folders have one, else
    the folder's place in sorted order. Hidden files and those of unknown extension are ignored.

    Raises `DataError` where there are no images, or their classes are ambiguous.
    """
    classes = _class_folders(folder)
    flat = _images_in(folder)
    if flat and classes:
        raise DataError(
            f"{folder} holds both images and folders of images ({classes[0].name}, …)",
            hint="name one of the folders, or move the images into class folders",
        )
    if not flat and not classes:
        raise _no_images(folder)
    if flat:
        return [ImageFile(path, None) for path in flat]
    return [
        ImageFile(path, label) for label, each in _numbered(classes) for path in _images_in(each)
    ]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error


def _images_in(folder: Path) -> list[Path]:
    return [
        path for path in _visible(folder) if path.suffix.lower() in EXTENSIONS and not path.is_dir()
    ]


def _class_folders(folder: Path) -> list[Path]:
    """The folders in `folder`, if one of them holds images."""
    folders = [path for path in _visible(folder) if path.is_dir()]
    return folders if any(_images_in(each) for each in folders) else []


def _no_images(folder: Path) -> DataError:
    nested = [path.name for path in _visible(folder) if path.is_dir() and _class_folders(path)]
    hint = (
        f"name one of its folders: {', '.join(nested)}"
        if nested
        else f"known extensions: {' '.join(sorted(EXTENSIONS))}"
    )
    return DataError(f"{folder} holds no images", hint=hint)


def _numbered(folders: Sequence[Path]) -> list[tuple[int, Path]]:
    """The class folders with their indices, by index."""
    # Eighteen digits fit int64.
    matches = [re.match(r"[0-9]{1,18}(?![0-9])", folder.name) for folder in folders]
    numbers = [int(match[0]) for match in matches if match]
    if len(numbers) < len(folders):
        for folder in folders:
            if not _images_in(folder):
                raise DataError(
                    f"the class folder {folder} holds no images",
                    hint="it would still take a class index: remove it, or number all folders",
                )
        return list(enumerate(folders))
    taken: dict[int, Path] = {}
    for number, folder in zip(numbers, folders, strict=True):
        other = taken.setdefault(number, folder)
        if other is not folder:
            raise DataError(f"the class folders {other} and {folder.name} are both number {number}")
    return sorted(taken.items())


def spread(images: Sequence[ImageFile], limit: int) -> list[ImageFile]:
    """The first image of each class, then the second, until there are `limit`; in given order."""
    seen: Counter[int | None] = Counter()
    ranks = []
    for position, image in enumerate(images):
        ranks.append((seen[image.label], position))
        seen[image.label] += 1
    chosen = sorted(position for _, position in sorted(ranks)[:limit])
    return [images[position] for position in chosen]
