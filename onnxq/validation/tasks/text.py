"""`cer` and `wer`: what a reader of pictures or speech writes, against texts or the float model.

Levenshtein's distance is rapidfuzz's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from onnxq.data.extras import require
from onnxq.errors import UsageError
from onnxq.validation.tasks.common import (
    Array,
    Arrays,
    Labels,
    checked_labels,
    chosen_output,
    is_float,
    samples_in,
)


@dataclass
class CharacterErrorRate:
    """Edits that turn what is read into the truth, as a share of the truth's length, percent.

    Scores samples×steps×characters are read by the best character of each step, repeats taken for
    one and blanks left out (greedy decoding of connectionist temporal classification, Graves et
    al., 2006). Integers samples×steps are characters already.

    Attributes:
        output: which output; the first that can be read where empty.
        blank: index of the blank.
        classes: the characters in the model's order, with the blank or without it. Without
            characters texts are compared as indices, with the float model only.
        space: the character that stands for a space: "|" in wav2vec 2.0's.
    """

    output: str = ""
    blank: int = 0
    classes: tuple[str, ...] = ()
    space: str = " "

    unit: ClassVar[str] = "%"
    higher_is_better: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    metric: ClassVar[str] = "cer"

    _edits: int = field(default=0, init=False, repr=False)
    _length: int = field(default=0, init=False, repr=False)
    _equal: int = field(default=0, init=False, repr=False)
    _count: int = field(default=0, init=False, repr=False)

    def update(
        self, inputs: Arrays, outputs: Arrays, labels: Labels | None, reference: Arrays
    ) -> None:
        """Add a batch.

        Args:
            labels: texts, or None.

        Raises:
            UsageError: no output can be read, texts have no characters to compare with, or
                rapidfuzz is not installed.
        """
        distance = require(
            "rapidfuzz.distance", "text", package="rapidfuzz", user=f"{self.metric} needs"
        ).Levenshtein
        wanted = "scores samples×steps×characters, or indices samples×steps"
        name = chosen_output(reference, self.output, _is_text, self.metric, wanted)
        count = samples_in(inputs)
        texts = checked_labels(labels, str, self.metric, "texts")
        if texts is not None and not self.classes:
            raise UsageError(
                f"{self.metric}: the labels are texts, but which character an index stands for is "
                "not known",
                hint="give the characters in the model's order with --classes FILE",
            )
        exact = texts if texts is not None else self._texts(reference[name], count)
        for truth, found in zip(exact, self._texts(outputs[name], count), strict=True):
            left, right = self._units(truth), self._units(found)
            self._edits += distance.distance(left, right)
            self._length += len(left)
            self._equal += left == right
            self._count += 1

    def compute(self) -> dict[str, float]:
        """The rate, and the share of texts without an error.

        Raises:
            UsageError: the truth has no text.
        """
        if not self._length:
            raise UsageError(
                f"{self.metric}: the truth of {self._count} samples is empty",
                hint=f"name the blank with {self.metric}:blank=INDEX, or look at --preprocess",
            )
        return {
            self.metric.upper(): 100 * self._edits / self._length,
            "texts equal": 100 * self._equal / self._count,
        }

    def merge(self, other: CharacterErrorRate) -> None:
        """Add what another instance saw of later batches."""
        self._edits += other._edits
        self._length += other._length
        self._equal += other._equal
        self._count += other._count

    def _units(self, text: Sequence[Hashable]) -> Sequence[Hashable]:
        """What edits change: characters."""
        return text

    def _texts(self, array: Array, samples: int) -> list[Sequence[Hashable]]:
        """What is read in each sample: a text, or indices where the characters are not known."""
        if not is_float(array):
            rows = [row[row != self.blank] for row in array]
            return [self._characters(row, None) for row in rows]
        if array.shape[0] != samples and array.shape[1] == samples:
            array = array.swapaxes(0, 1)
        return [self._characters(_collapsed(row, self.blank), row.shape[1]) for row in array]

    def _characters(self, indices: Array, known: int | None) -> Sequence[Hashable]:
        if not self.classes:
            return tuple(indices.tolist())
        if known is not None and len(self.classes) not in {known, known - 1}:
            raise UsageError(
                f"{self.metric}: there are {len(self.classes)} characters, the model has {known}",
                hint="one a line, in the model's order, with the blank or without it",
            )
        without_blank = known is not None and len(self.classes) == known - 1
        shifted = indices - (without_blank & (indices > self.blank))
        if shifted.size and not 0 <= shifted.min() <= shifted.max() < len(self.classes):
            raise UsageError(
                f"{self.metric}: the model wrote character {shifted.max()} of {len(self.classes)}"
            )
        characters = (self.classes[index] for index in shifted)
        return "".join(" " if each == self.space else each for each in characters)


@dataclass
class WordErrorRate(CharacterErrorRate):
    """As `CharacterErrorRate`, by words: what is between spaces."""

    metric: ClassVar[str] = "wer"

    def _units(self, text: Sequence[Hashable]) -> Sequence[Hashable]:
        if not isinstance(text, str):
            raise UsageError(
                "wer: which character is a space is not known",
                hint="give the characters in the model's order with --classes FILE, or take cer",
            )
        return text.split()


def _is_text(array: Array) -> bool:
    return (array.ndim == 3 and is_float(array)) or (array.ndim == 2 and array.dtype.kind in "iu")


def _collapsed(scores: Array, blank: int) -> Array:
    """Greedy decoding of steps×characters: the best of each step, without repeats and blanks."""
    best = scores.argmax(axis=1)
    changes = np.append(True, best[1:] != best[:-1])[: len(best)]
    return np.asarray(best[changes & (best != blank)])
