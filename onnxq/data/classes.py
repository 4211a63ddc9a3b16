"""The classes of a model: how many there are, and their names in the model's order."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.errors import DataError
from onnxq.refusal import Refusal
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxq.model.model import TensorSpec

EXPECTED = (
    "expected one name a line in the model's order, or JSON: a list of names, or an object of "
    "index and name, as id2label in a Hugging Face config.json"
)

_SYNSET_LINE = re.compile(r"(n\d{8})[\s,:]*(.*)")
"""As in synset_words.txt of ILSVRC: "n01440764 tench, Tinca tinca"."""


@dataclass(frozen=True)
class ClassNames:
    """What each class of a model may be called, in the model's order.

    Attributes:
        spellings: for each class its names, the one to show first.
    """

    spellings: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each[0] for each in self.spellings)

    def __len__(self) -> int:
        return len(self.spellings)

    def index(self, name: str) -> int | Refusal:
        """The class of that name; upper case, "_" and "-" make no difference."""
        found = self._indices.get(_plain(name), set())
        if len(found) == 1:
            return next(iter(found))
        if found:
            return Refusal(f"classes {' and '.join(map(str, sorted(found)))} are called {name!r}")
        near = suggest(name, self.names)
        return Refusal(f"no class is called {name!r}" + (f": {near}" if near else ""))

    @cached_property
    def _indices(self) -> Mapping[str, set[int]]:
        indices: defaultdict[str, set[int]] = defaultdict(set)
        for index, spellings in enumerate(self.spellings):
            for each in spellings:
                indices[_plain(each)].add(index)
        return indices


@dataclass(frozen=True)
class Classes:
    """What is known of a model's classes.

    Attributes:
        count: how many there are; None where that is unknown.
        names: what they are called; None where that is unknown.
    """

    count: int | None = None
    names: ClassNames | None = None

    @classmethod
    def of(
        cls,
        outputs: Sequence[TensorSpec],
        names: Sequence[str] | str | os.PathLike[str] | None = None,
    ) -> Classes:
        """Those of a model with these outputs; the names, or a file of them, are the user's.

        Raises `DataError` as `read_classes` does.
        """
        return cls(class_count(outputs), None if names is None else as_class_names(names))


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-]", " ", name).casefold().split())


def as_class_names(classes: Sequence[str] | str | os.PathLike[str]) -> ClassNames:
    """Names as they are, or those in a file; see `read_classes`."""
    if isinstance(classes, (str, os.PathLike)):
        return read_classes(Path(classes))
    return ClassNames(tuple((name,) for name in classes))


def read_classes(path: Path) -> ClassNames:
    """The names in a file: one a line, or JSON as a list, {index: name} or {name: index}.

    A class may have several names: a synset id before them ("n01440764 tench, Tinca tinca"), or a
    list in JSON, as in Keras' imagenet_class_index.json. Of a config.json `id2label` is read.

    Raises:
        DataError: the file cannot be read, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if text.lstrip()[:1] in {"{", "["} else text.rstrip().split("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"cannot read the classes in {path}: {reason}", hint=EXPECTED) from error
    entries = content if isinstance(content, list) else _ordered(content, path)
    classes = []
    for index, entry in enumerate(entries):
        parts = entry if isinstance(entry, list) else [entry]
        if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
            raise DataError(f"{path}: class {index} has no name: {entry!r}", hint=EXPECTED)
        classes.append(_spellings([part.strip() for part in parts]))
    return ClassNames(tuple(classes))


def _ordered(content: Any, path: Path) -> list[Any]:
    """The entries of a JSON object, by index."""
    table = content.get("id2label", content)
    wrong = DataError(f"{path} holds no classes by index", hint=EXPECTED)
    if not isinstance(table, dict):
        raise wrong
    if all(type(value) is int for value in table.values()):
        table = {str(index): name for name, index in table.items()}
    if not table or not all(key.isdecimal() for key in table):
        raise wrong
    by_index = {int(key): value for key, value in table.items()}
    for index in range(len(table)):
        if index not in by_index:
            raise DataError(f"{path} has {len(table)} classes, but none of index {index}")
    return [by_index[index] for index in range(len(table))]


def _spellings(parts: Sequence[str]) -> tuple[str, ...]:
    """The names to show and to find a class by."""
    shown: list[str] = []
    others: list[str] = []
    for part in parts:
        found = _SYNSET_LINE.fullmatch(part)
        if found:
            others.append(found[1])
        name = found[2] if found else part
        if name:
            shown.append(name)
            others += [each.strip() for each in name.split(",") if each.strip()]
    return tuple(dict.fromkeys((*shown, *others)))


def class_count(outputs: Sequence[TensorSpec]) -> int | None:
    """How many classes a classifier has: N×1000, or N×1000×1×1. None where no shape says so."""
    shape = outputs[0].shape if outputs else None
    if not shape or not all(isinstance(side, int) for side in shape[1:]):
        return None
    sides = [int(side) for side in shape[1:] if isinstance(side, int) and side != 1]
    return sides[0] if len(sides) == 1 else None


def imagenet_index(synsets: Sequence[str], classes: int) -> dict[str, int] | None:
    """The index of each synset in a model of ILSVRC 2012's 1,000 classes.

    With 1,001 the first is the background, as in TensorFlow's models. None where the model has
    another number of classes, or a name is none of theirs.
    """
    content = resources.files("onnxq.data").joinpath("imagenet_synsets.txt")
    known = content.read_text(encoding="ascii").split()
    places = {name: place for place, name in enumerate(known, start=classes - len(known))}
    if classes - len(known) not in {0, 1} or not all(name in places for name in synsets):
        return None
    return {name: places[name] for name in synsets}
