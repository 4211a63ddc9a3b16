"""Which label belongs to which sample: by file name, or in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxq.data.labels.arrays import MaskFile
from onnxq.data.labels.boxes import Boxes
from onnxq.errors import DataError

Label = Boxes | NDArray[np.int64] | str | float
"""Boxes, a mask height×width, a text, or a number."""

OUTSIDE = -1
"""What a mask holds where the model's input has no picture: around a letterbox."""


class Placement(Protocol):
    """How a picture became an input: resized, then laid into it. Sizes are (height, width)."""

    @property
    def picture(self) -> tuple[int, int]: ...

    @property
    def resized(self) -> tuple[int, int]: ...

    def to_input(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Boxes of the picture, …×4: x1, y1, x2, y2 in pixels, as boxes of the input."""
        ...

    def lay(self, resized: NDArray[Any], fill: NDArray[Any]) -> NDArray[Any]:
        """The resized picture's pixels where they lie in the input, `fill` around them."""
        ...


@dataclass(frozen=True, eq=False)
class SampleLabels:
    """One label for each sample of a data source, or None.

    Attributes:
        placement: sample index → how its picture became the input; None where that is not known:
            pixels are then taken to be the input's.
    """

    entries: tuple[Label | MaskFile | None, ...]
    placement: Callable[[int], Placement | None] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def batch(self, start: int, stop: int) -> list[Label | None]:
        """The labels of consecutive samples, in pixels of the input where they have a place."""
        return [self._label(index) for index in range(start, min(stop, len(self)))]

    def _label(self, index: int) -> Label | None:
        entry = self.entries[index]
        label = entry.read() if isinstance(entry, MaskFile) else entry
        if self.placement is None or not isinstance(label, (Boxes, np.ndarray)):
            return label
        placement = self.placement(index)
        if placement is None:
            return label
        if isinstance(label, Boxes):
            pixels = label.in_pixels(*placement.picture)
            return pixels.moved(placement.to_input(pixels.corners))
        return placement.lay(nearest(label, placement.resized), np.array(OUTSIDE, np.int64))


@dataclass(frozen=True, eq=False)
class LabelFile:
    """What a file or folder of labels holds.

    Attributes:
        spec: as the user named it.
        holds: "boxes", "masks", "texts" or "numbers".
        named: labels by file name, perhaps with folders, perhaps without extension.
        ordered: labels in the samples' order, where the file has no names.
        absent: the label of a sample that `named` lacks; None where that is an error.
    """

    spec: str
    holds: str
    named: Mapping[str, Label | MaskFile] = field(default_factory=dict)
    ordered: Sequence[Label | MaskFile] = ()
    absent: Label | None = None

    def match(
        self,
        samples: Sequence[str],
        placement: Callable[[int], Placement | None] | None = None,
    ) -> SampleLabels:
        """The labels of the samples of these names (`DataSource.sample_name`).

        Names match by file name, or without extensions; of several by the folders above. Rows of
        an array have no file name: labels are theirs in order. Half as many numbers as samples
        are the labels of pairs, rows i and i + N/2; the second half has None.

        Raises:
            DataError: a sample has no label, or several; counts differ.
        """
        if self.named and any(_file_name(name) is not None for name in samples):
            return SampleLabels(self._by_name(samples), placement)
        return SampleLabels(self._in_order(samples), placement)

    def _in_order(self, samples: Sequence[str]) -> tuple[Label | MaskFile | None, ...]:
        labels = list(self.ordered) or [self.named[name] for name in sorted(self.named)]
        if self.holds == "numbers" and 2 * len(labels) == len(samples):
            return (*labels, *([None] * len(labels)))
        if len(labels) != len(samples):
            raise DataError(
                f"{self.spec} holds {len(labels)} {self.holds} for {len(samples)} samples",
                hint="labels without file names belong to the samples in order, one to each",
            )
        return tuple(labels)

    def _by_name(self, samples: Sequence[str]) -> tuple[Label | MaskFile | None, ...]:
        by_stem = defaultdict(list)
        for key in self.named:
            by_stem[PurePath(key).stem].append(key)
        keys = [self._key(name, by_stem) for name in samples]
        if all(key is None for key in keys):
            raise DataError(
                f"{self.spec} has no {self.holds} for any sample; the first is {samples[0]}",
                hint=f"its first name is {next(iter(self.named))!r}; file names have to agree",
            )
        return tuple(self.absent if key is None else self.named[key] for key in keys)

    def _key(self, sample: str, by_stem: Mapping[str, Sequence[str]]) -> str | None:
        path = PurePath(_file_name(sample) or sample)
        keys = by_stem.get(path.stem, ())
        exact = [key for key in keys if PurePath(key).name == path.name] or keys
        if not exact:
            if self.absent is not None:
                return None
            raise DataError(
                f"{self.spec} has no label for {sample}",
                hint=f"names such as {next(iter(self.named))!r} have to be those of the samples",
            )
        shared = [_common_tail(PurePath(key), path) for key in exact]
        closest = [key for key, n in zip(exact, shared, strict=True) if n == max(shared)]
        if len(closest) > 1:
            first, second, *_ = closest
            raise DataError(f"{self.spec}: both {first!r} and {second!r} could be {sample}")
        return closest[0]


def nearest(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A mask in another height and width: each pixel takes the class at its center."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(mask.shape, size, strict=True)
    )
    return np.asarray(mask[np.ix_(rows, columns)])


def _file_name(sample: str) -> str | None:
    """The file a sample is; None for rows of arrays and tables, called `file[3]`."""
    _, archive, member = sample.rpartition(".tar:")
    return member if archive else None if sample.endswith("]") else sample


def _common_tail(key: PurePath, path: PurePath) -> int:
    """How many folders above both names agree, from the last on."""
    depth = 0
    for left, right in zip(reversed(key.parts[:-1]), reversed(path.parts[:-1]), strict=False):
        if left != right:
            break
        depth += 1
    return depth
