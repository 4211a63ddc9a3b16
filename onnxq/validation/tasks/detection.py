"""`map`: what a detector finds, against labelled boxes or the float model's own detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from onnxq.data.labels import Boxes
from onnxq.errors import UsageError
from onnxq.refusal import Refusal
from onnxq.suggest import suggest
from onnxq.validation.tasks.average_precision import average_precisions, f1_score
from onnxq.validation.tasks.boxes import Candidates, Corners, Detections, suppressed
from onnxq.validation.tasks.common import Arrays, Labels, checked_labels, samples_in
from onnxq.validation.tasks.decoders import DECODER_NAMES, Reading, recognized
from onnxq.validation.tasks.grids import Size

UNITS = ("auto", "pixels", "relative")

LARGEST_SHARE = 2.0
"""Boxes of shares may reach a little beyond the picture; boxes of pixels are larger than this."""


@dataclass
class MeanAveragePrecision:
    """Average precision and F1 of a detector, percent.

    Predictions of at least `least_score` count for average precision, those of at least `score`
    for F1. Without labels the truth is what the float model finds with at least `score`.

    Attributes:
        score: the threshold in use.
        iou: overlap from which suppression takes two boxes for one; not for layouts that are
            suppressed already.
        class_agnostic: boxes suppress those of other classes.
        least_score: below it predictions are left out.
        decoder: the layout of the outputs, one of `DECODER_NAMES`; "auto" recognizes it.
        units: of the boxes: "pixels" of the input, "relative" to its size; "auto" looks at them.
        output: the one output to look at; all where empty.
    """

    score: float = 0.25
    iou: float = 0.45
    class_agnostic: bool = False
    least_score: float = 0.01
    decoder: str = "auto"
    units: str = "auto"
    output: str = ""

    unit: ClassVar[str] = "%"
    higher_is_better: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    _reading: Reading | None = field(default=None, init=False, repr=False)
    _relative: bool | None = field(default=None, init=False, repr=False)
    _truth: list[Boxes] = field(default_factory=list, init=False, repr=False)
    _found: list[Detections] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("score", "iou", "least_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"map: {name} is {getattr(self, name)}", hint="it is in 0…1")
        if self.decoder not in {"auto", *DECODER_NAMES}:
            hint = suggest(self.decoder, DECODER_NAMES, of="the decoders")
            raise UsageError(f"map: there is no decoder {self.decoder!r}", hint=hint)
        if self.units not in UNITS:
            raise UsageError(
                f"map: units is {self.units!r}", hint=f"it is one of {', '.join(UNITS)}"
            )

    def update(
        self, inputs: Arrays, outputs: Arrays, labels: Labels | None, reference: Arrays
    ) -> None:
        """Add a batch.

        Args:
            labels: `Boxes` in pixels of the model's input, or relative to its size; or None.

        Raises:
            UsageError: the outputs are of no layout known, or labels fit neither them nor `map`.
        """
        size = _input_size(inputs)
        reading = self._read(self._chosen(reference), size)
        exact = reading.candidates(reference)
        found = reading.candidates(outputs)
        relative = self._are_relative(reading, exact)
        scale = np.array([size[1], size[0]] * 2 if relative else [1] * 4, np.float64)
        count = samples_in(inputs)
        overlapping = reading.decoder.overlapping
        self._found += [self._detections(found, row, scale, overlapping) for row in range(count)]
        truth = checked_labels(labels, Boxes, "map", "boxes")
        if truth is None:
            self._truth += [
                _as_truth(self._detections(exact, row, scale, overlapping).above(self.score))
                for row in range(count)
            ]
        else:
            _check_classes(truth, exact.class_count)
            self._truth += [boxes.in_pixels(*size) for boxes in truth]

    def compute(self) -> dict[str, float]:
        """AP50-95, AP50, AP50 of all classes pooled, F1 at `score`.

        Raises:
            UsageError: the truth has no object, or faster-coco-eval is not installed.
        """
        if not any((~boxes.crowd).any() for boxes in self._truth):
            raise UsageError(
                f"map: there is no object in the truth of {len(self._truth)} samples",
                hint=f"without labels it is what the float model finds with a score above "
                f"{self.score}: look at --preprocess, or lower it with map:score=0.1",
            )
        precisions = average_precisions(self._truth, self._found)
        return {
            "AP50-95": precisions.ap50_95,
            "AP50": precisions.ap50,
            "AP50 pooled": precisions.ap50_pooled,
            "F1": f1_score(self._truth, [each.above(self.score) for each in self._found]),
        }

    def merge(self, other: MeanAveragePrecision) -> None:
        """Add what another instance saw of later batches."""
        self._truth += other._truth
        self._found += other._found

    def _chosen(self, outputs: Arrays) -> Arrays:
        if not self.output:
            return outputs
        if self.output not in outputs:
            hint = suggest(self.output, outputs, of="its outputs")
            raise UsageError(f"map: the model has no output {self.output!r}", hint=hint)
        return {self.output: outputs[self.output]}

    def _read(self, reference: Arrays, size: Size) -> Reading:
        """How the outputs are read, found out at the first batch."""
        if self._reading is not None and self._reading.size == size:
            return self._reading
        name = self.decoder if self._reading is None else self._reading.decoder.names[0]
        reading = recognized(reference, size, name)
        if isinstance(reading, Refusal):
            raise UsageError(
                f"map: {reading}",
                hint=f"name the layout with map:decoder=NAME: {', '.join(DECODER_NAMES)}",
            )
        scores = reading.candidates(reference).scores
        if scores.size and not -0.01 <= scores.min() <= scores.max() <= 1.01:
            raise UsageError(
                f"map: read as {reading.decoder.names[0]}, scores reach from {scores.min():.3g} to "
                f"{scores.max():.3g}",
                hint="scores are in 0…1; name another layout with map:decoder=NAME",
            )
        self._reading = reading
        return reading

    def _are_relative(self, reading: Reading, exact: Candidates) -> bool:
        """Whether boxes are shares of the input's size, as the float model's first ones are."""
        known = reading.decoder.relative if self.units == "auto" else self.units == "relative"
        if known is not None:
            return known
        if self._relative is None:
            likely = exact.corners[exact.scores >= self.least_score]
            if not likely.size:
                return False
            self._relative = bool(np.abs(likely).max() <= LARGEST_SHARE)
        return self._relative

    def _detections(
        self, candidates: Candidates, row: int, scale: Corners, overlapping: bool
    ) -> Detections:
        """What is found in one sample: finite, not empty, of at least `least_score`, suppressed."""
        corners = candidates.corners[row].astype(np.float64) * scale
        scores = candidates.scores[row].astype(np.float64)
        classes = candidates.classes[row]
        valid = (scores >= self.least_score) & np.isfinite(scores) & np.isfinite(classes)
        valid &= np.isfinite(corners).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
        order = np.flatnonzero(valid)[np.argsort(-scores[valid], kind="stable")]
        found = Detections(corners[order], scores[order], classes[order].astype(np.int64))
        if overlapping:
            return suppressed(found, self.iou, class_agnostic=self.class_agnostic)
        return found


def _as_truth(found: Detections) -> Boxes:
    return Boxes(found.corners, found.classes, np.zeros(len(found), np.bool_))


def _input_size(inputs: Arrays) -> Size:
    """Height and width of the picture the model is fed: the first input of four axes."""
    for array in inputs.values():
        if array.ndim == 4:
            channels_first = array.shape[1] <= 4 or array.shape[3] > 4
            height, width = array.shape[2:] if channels_first else array.shape[1:3]
            return int(height), int(width)
    raise UsageError("map: no input of the model is a picture of four axes")


def _check_classes(truth: Sequence[Boxes], known: int | None) -> None:
    """Labels numbered otherwise than the model's classes would make every detection wrong."""
    if known is None:
        return
    for boxes in truth:
        count = boxes.class_count
        largest = int(boxes.classes.max(initial=-1))
        if largest >= known or (count is not None and count != known):
            what = f"{count} classes" if count is not None else f"a class {largest}"
            raise UsageError(
                f"map: the labels have {what}, the model {known}",
                hint="give the names in the model's order with --classes FILE",
            )
