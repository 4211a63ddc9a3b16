"""Find the images in a folder, and their classes."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from onnxq.data.classes import Classes, imagenet_index
from onnxq.errors import DataError
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.data.classes import ClassNames

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


class ImageFile(NamedTuple):
    """An image and its class index, None where it has none."""

    path: Path
    label: int | None


class FoundImages(NamedTuple):
    """Images by class and name.

    Attributes:
        doubt: why the class indices cannot be those of the model's; None where they can.
    """

    files: list[ImageFile]
    doubt: Refusal | None = None


def find_images(folder: Path, classes: Classes | None = None) -> FoundImages:
    """The images of `folder`, or those of its class folders.

    A class's index is its place among the names of the model's classes; without these the leading
    number of its folder's name if all class folders have one, else the folder's place in sorted
    order. Where their number is not that of the model's classes, folders named as ILSVRC's synsets
    have the indices of these. Hidden files and those of unknown extension are ignored.

    Raises:
        DataError: there are no images, their classes are ambiguous, or a folder is no class.
    """
    folders = _class_folders(folder)
    flat = _images_in(folder)
    if flat and folders:
        raise DataError(
            f"{folder} holds both images and folders of images ({folders[0].name}, …)",
            hint="name one of the folders, or move the images into class folders",
        )
    if not flat and not folders:
        raise _no_images(folder)
    if flat:
        return FoundImages([ImageFile(path, None) for path in flat])
    indices, doubt = _indexed(folders, classes or Classes())
    ordered = sorted(zip(indices, folders, strict=True))
    files = [ImageFile(path, label) for label, each in ordered for path in _images_in(each)]
    return FoundImages(files, doubt)


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


def _indexed(folders: Sequence[Path], classes: Classes) -> tuple[list[int], Refusal | None]:
    """The class index of each folder, and what speaks against them."""
    by_number = _numbers(folders)
    if classes.names is not None:
        found = _named(folders, classes.names, numbered=by_number is not None)
        if found is not None:
            return found, _misnamed(classes.names, classes.count)
    if by_number is not None:
        return by_number, _beyond(folders, by_number, classes.count)
    if classes.count is not None and classes.count != len(folders):
        synsets = imagenet_index([each.name for each in folders], classes.count)
        if synsets is not None:
            return [synsets[each.name] for each in folders], None
    return _places(folders), _miscounted(folders, classes.count)


def _named(folders: Sequence[Path], names: ClassNames, *, numbered: bool) -> list[int] | None:
    """Each folder's place among the names; None where numbers tell it instead."""
    found = [names.index(each.name) for each in folders]
    indices = [each for each in found if not isinstance(each, Refusal)]
    if len(indices) < len(found):
        if numbered:
            return None
        folder, reason = next(
            (each, index)
            for each, index in zip(folders, found, strict=True)
            if isinstance(index, Refusal)
        )
        raise DataError(
            f"the class folder {folder}: {reason}",
            hint="--classes names the model's classes in its order; rename the folder or the class",
        )
    _check_distinct(folders, indices)
    return indices


def _numbers(folders: Sequence[Path]) -> list[int] | None:
    """The leading number of each folder's name; None unless all have one."""
    # Eighteen digits fit int64.
    matches = [re.match(r"[0-9]{1,18}(?![0-9])", folder.name) for folder in folders]
    numbers = [int(match[0]) for match in matches if match]
    if len(numbers) < len(folders):
        return None
    _check_distinct(folders, numbers)
    return numbers


def _check_distinct(folders: Sequence[Path], indices: Sequence[int]) -> None:
    taken: dict[int, Path] = {}
    for index, folder in zip(indices, folders, strict=True):
        other = taken.setdefault(index, folder)
        if other is not folder:
            raise DataError(f"the class folders {other} and {folder.name} are both number {index}")


def _places(folders: Sequence[Path]) -> list[int]:
    for folder in folders:
        if not _images_in(folder):
            raise DataError(
                f"the class folder {folder} holds no images",
                hint="it would still take a class index: remove it, or number all folders",
            )
    return list(range(len(folders)))


def _misnamed(names: ClassNames, classes: int | None) -> Refusal | None:
    if classes in {None, len(names)}:
        return None
    return Refusal(f"--classes names {len(names)} classes, the model has {classes}")


def _miscounted(folders: Sequence[Path], classes: int | None) -> Refusal | None:
    if classes in {None, len(folders)}:
        return None
    return Refusal(
        f"{_class_folder_count(len(folders))}, the model has {classes} classes: a folder's place "
        "in sorted order is not its index"
    )


def _beyond(folders: Sequence[Path], indices: Sequence[int], classes: int | None) -> Refusal | None:
    if classes is None or max(indices) < classes:
        return None
    folder = folders[indices.index(max(indices))]
    return Refusal(
        f"the class folder {folder.name} is number {max(indices)}, the model has {classes} "
        f"classes, 0 to {classes - 1}"
    )


def _class_folder_count(count: int) -> str:
    return f"there {'is' if count == 1 else 'are'} {count} class folder{'s' * (count != 1)}"


def spread(images: Sequence[ImageFile], limit: int) -> list[ImageFile]:
    """The first image of each class, then the second, until there are `limit`; in given order."""
    seen: Counter[int | None] = Counter()
    ranks = []
    for position, image in enumerate(images):
        ranks.append((seen[image.label], position))
        seen[image.label] += 1
    chosen = sorted(position for _, position in sorted(ranks)[:limit])
    return [images[position] for position in chosen]
